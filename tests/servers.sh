#!/usr/bin/env bash
# Unpacks the servers that people run today, and what they watch machines with, into private roots
# below the target folder, for tests/servers.rs and tests/monitoring.rs: Debian's own packages by a
# private apt configuration, with lists and a cache of its own and the machine's mirror and keys. The
# machine's packages stay as they are, and no service is started.
#
#   tests/servers.sh            all of them
#   tests/servers.sh RUN PROGRAM ARGUMENTS…   runs one of its programs, RUN being unstable, trixie, machine or monitoring
#
# A suite that cannot be had leaves the reason in a file called "unavailable", which the tests repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
servers=${CARGO_TARGET_DIR:-target}/servers
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)

# Runs a program of a root with the root's own libraries: nothing has to be mounted, no root is needed.
run() {
    local root=$servers/$1/root program=$2
    shift 2
    local loader libraries
    loader=$(compgen -G "$root/usr/lib*/ld-linux*.so.*" | head -n 1)
    libraries=$(compgen -G "$root/usr/lib/*-linux-gnu" | head -n 1)
    exec "$loader" --library-path "$libraries:$root/usr/lib/mysql-router:$root/usr/lib/mysql-router/private:$libraries/systemd" "$root/usr/$program" "$@"
}

if [ $# -gt 0 ]; then
    run "$@"
fi

mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -ohE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' '
}

# fetch NAME SUITE PACKAGE…: says why on its last line where it cannot.
fetch() {
    local name=$1 suite=$2 folder=$servers/$1 from
    shift 2
    from=$(mirror)
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    : >"$folder/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${from:-http://deb.debian.org/debian} $suite main" \
        >"$folder/sources.list"
    # Packages of an older key ring's machine are signed by keys that it knows; what may be switched
    # off is the date of the index alone.
    cat >"$folder/apt.conf" <<END
Dir::State::lists "$folder/lists";
Dir::State::status "$folder/status";
Dir::Cache "$folder";
Dir::Cache::archives "$folder/archives";
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::main "-";
Dir::Etc::parts "-";
Dir::Etc::preferencesparts "-";
APT::Sandbox::User "";
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Check-Date "false";
Acquire::Check-Valid-Until "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
END
    export APT_CONFIG=$folder/apt.conf
    {
        apt-get -qq update && apt-get -qq -y -d install "$@"
    } >"$folder/log" 2>&1 || {
        grep -E '^E:' "$folder/log" | head -n 1
        return 1
    }
    rm -rf "$folder/root"
    mkdir -p "$folder/root/usr"
    for library in lib lib64 bin sbin; do
        mkdir -p "$folder/root/usr/$library"
        ln -s "usr/$library" "$folder/root/$library"
    done
    local package
    for package in "$folder"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$folder/root" --keep-directory-symlink --no-same-owner \
                --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
                --exclude='./usr/share/locale/*' --exclude='./dev/*' || {
            echo "unpacking $(basename "$package") failed"
            return 1
        }
    done
    rm -rf "$folder/lists" "$folder"/archives
}

codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
suites=(
    "unstable unstable mysql-server-core mysql-router mysql-client-core"
    "trixie trixie mariadb-server-core mariadb-server mariadb-client-core"
    "machine $codename haproxy redis-server postgresql nginx-light"
    "monitoring $codename prometheus prometheus-node-exporter monitoring-plugins-common systemd"
)
for suite in "${suites[@]}"; do
    read -r name from packages <<<"$suite"
    folder=$servers/$name
    [ -e "$folder/ready" ] && continue
    mkdir -p "$folder"
    rm -f "$folder/unavailable"
    echo "unpacking ${packages// /, } of Debian $from"
    # shellcheck disable=SC2086 # Its words are the packages.
    if why=$( (fetch "$name" "$from" $packages) ); then
        touch "$folder/ready"
    else
        echo "Debian $from cannot be had: ${why:-see $folder/log}" | tee "$folder/unavailable"
        # The machine's own suite is there wherever its other packages are.
        [[ $name != machine && $name != monitoring ]]
    fi
done
