#!/usr/bin/env bash
# Installs what the tests need, unpacks the servers of tests/servers.rs and tests/monitoring.rs below
# the target folder (some 270 MB to fetch, once), and runs all tests. Its last lines say what was skipped, if anything.
set -euo pipefail
cd "$(dirname "$0")/.."

# The programs the tests call, and the Debian packages that bring them.
needed=(ip:iproute2 netstat:net-tools sysctl:procps unshare:util-linux setpriv:util-linux
    script:bsdutils tmux:tmux nft:nftables time:time
    mariadbd:mariadb-server mariadb:mariadb-client openssl:openssl)
export PATH="$PATH:/usr/sbin:/sbin"
packages=()
for pair in "${needed[@]}"; do
    type -P "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
/usr/bin/python3 -c 'import MySQLdb' 2>/dev/null || packages+=(python3-mysqldb)

if [ ${#packages[@]} -gt 0 ]; then
    sudo=
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    echo "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # On a fresh machine another apt may still be at work.
    apt() {
        local said
        for _ in $(seq 60); do
            said=$($sudo apt-get -qq -o DPkg::Lock::Timeout=300 "$@" 2>&1) && return
            grep -q 'get lock' <<<"$said" || break
            sleep 5
        done
        tail -n 3 <<<"$said"
        return 1
    }
    if ! { apt update && apt install -y --no-install-recommends "${packages[@]}"; }; then
        echo "tests/run.sh: apt could not install ${packages[*]}, which the tests need" >&2
        exit 1
    fi
fi
tests/servers.sh

TWCHECK_SKIPPED=$(mktemp)
export TWCHECK_SKIPPED
trap 'rm -f "$TWCHECK_SKIPPED"' EXIT
cargo test --locked "$@"
if [ -s "$TWCHECK_SKIPPED" ]; then
    echo "skipped on this machine:"
    cat "$TWCHECK_SKIPPED"
else
    echo "nothing was skipped"
fi
