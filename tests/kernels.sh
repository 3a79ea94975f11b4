#!/usr/bin/env bash
# Boots Debian's kernels one after the other, under QEMU without KVM, and runs tests on each.
#
#   tests/kernels.sh             the oldest kernel and the newest that can be had
#   tests/kernels.sh --all       one of each release of Debian, and some between
#   tests/kernels.sh 6.1 newest  these
#
# The machine gets QEMU, busybox, cpio, kmod and what the tests call, nothing else; kernels are kept in
# target/kernels. One that cannot be had is named on the last lines; one that boots and fails a test
# fails.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
export PATH="$PATH:/usr/sbin:/sbin"

# Debian's releases from the oldest on: the meta package of each names one kernel.
suites=(bullseye bookworm trixie trixie-backports)
between=(6.16 6.18)
# What asks the kernel something, and the boots that a test of tests/boots.rs is for, beside the plain
# one.
binaries=(kernel situations passed_over machines destination sysctls)
# Of the longest of these, what runs where nothing is said.
some=(reuse live_connection bound)
# Tests that hold the kernel to seconds, or fill tables of many thousands.
left_out=(a_large_table_is_counted_exactly_by_either_source the_advice_applies_as_it_is_and_is_enough
    random_lists_of_reserved_ports_are_told_whole_and_the_kernel_agrees
    a_flow_filled_within_a_second_is_waited_for reuse_that_works_is_seen_in_what_the_kernel_counts
    a_pool_whose_server_has_died_is_no_busy_moment
    old_time_wait_tells_more_than_a_live_connection
    sockets_of_a_time_without_timestamps_are_not_reused_on_this_machine_either)
boots=(small no_modules no_ipv6 hidden)
# The modules that the tests need, and what they are loaded by where nothing is said.
modules=(tcp_diag udp_diag veth nft_masq nft_chain_nat nf_conntrack nft_ct)
# The programs that the tests call.
programs=(bash sh ip unshare nsenter setpriv sysctl netstat ss nft script awk sleep seq timeout env cat ls
    kill pgrep chmod mount modprobe true)

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/kernels
notes=()
failed=()
table=()

main() {
    mkdir -p "$work"
    have_programs || finish
    local wanted=("$@") names=() releases=() name found
    case "${1-}" in
    '') wanted=(oldest newest) ;;
    --all) wanted=("${suites[@]}" "${between[@]}") some=() ;;
    *) some=() ;;
    esac
    for name in "${wanted[@]}"; do
        if found=$(resolve "$name"); then
            [[ " ${releases[*]-} " == *" $found "* ]] || releases+=("$found")
        else
            notes+=("kernel $name cannot be had here")
        fi
    done
    [ ${#releases[@]} -gt 0 ] || finish
    build
    for found in "${releases[@]}"; do
        if fetch "${found%%/*}" "${found#*/}" >"$work/fetch.log" 2>&1; then
            try "${found#*/}"
        else
            notes+=("kernel ${found#*/} could not be fetched: $(tail -n 1 "$work/fetch.log")")
        fi
    done
    finish
}

# Says how it came out: the table, then what was not tried.
finish() {
    printf '%s\n' "${table[@]+"${table[@]}"}"
    printf 'left out under emulation: %s\n' "${left_out[*]}"
    [ ${#notes[@]} = 0 ] || printf 'not tried: %s\n' "${notes[@]}"
    [ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" && exit 1; }
    [ ${#table[@]} -gt 0 ] && echo "every kernel that was booted passed"
    exit 0
}

# The programs that boot a kernel, and the Debian packages that bring them.
have_programs() {
    local pair packages=() sudo=
    for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio depmod:kmod \
        ip:iproute2 nft:nftables netstat:net-tools sysctl:procps script:bsdutils; do
        type -P "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
    done
    [ ${#packages[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || sudo="sudo -n"
    echo "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { $sudo apt-get -qq -o DPkg::Lock::Timeout=300 update &&
        $sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${packages[@]}"
    } >"$work/install.log" 2>&1 && return
    notes+=("any kernel: ${packages[*]} could not be installed")
    return 1
}

# apt for a suite with a state of its own: `apt SUITE get …`, `apt SUITE cache …`.
apt() {
    local folder=$work/apt/$1 program=apt-$2 mirror
    shift 2
    if [ ! -e "$folder/sources.list" ]; then
        mkdir -p "$folder"/{lists/partial,cache/archives/partial,state,parts}
        mirror=$(grep -hoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/* \
            2>/dev/null | head -n 1)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "${mirror:-http://deb.debian.org/debian}" "${folder##*/} main" >"$folder/sources.list"
    fi
    "$program" -q -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts="$folder/parts" \
        -o Dir::State="$folder/state" -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" \
        -o Dir::State::status=/dev/null -o APT::Sandbox::User= -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# The index of a suite, once a day.
update() {
    local stamp=$work/apt/$1/updated
    [ -n "$(find "$stamp" -mtime -1 2>/dev/null)" ] && return
    apt "$1" get update -o Acquire::http::Timeout=30 >"$work/update.log" 2>&1 && touch "$stamp"
}

# The kernel that the meta package of a suite stands for.
of_suite() {
    update "$1" && apt "$1" cache show linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^Depends:.*linux-image-\([^ ]*-cloud-amd64\) .*/\1/p' | sort -V | tail -n 1 | grep .
}

# SUITE/RELEASE of a kernel by its suite, its version, or as the oldest or the newest.
resolve() {
    local suite release order=("${suites[@]}")
    [ "$1" = newest ] && mapfile -t order < <(printf '%s\n' "${suites[@]}" | tac)
    for suite in "${order[@]}"; do
        release=$(of_suite "$suite") || continue
        case "$1" in
        oldest | newest | "$suite") echo "$suite/$release" && return ;;
        esac
        [[ "$release" == "$1".* ]] && echo "$suite/$release" && return
        release=$(apt "$suite" cache search --names-only "^linux-image-${1//./\\.}\\..*-cloud-amd64\$" |
            sed -n 's/^linux-image-\([^ ]*\) .*/\1/p' | sort -V | tail -n 1)
        [ -n "$release" ] && echo "$suite/$release" && return
    done
    return 1
}

# The packages of a kernel, unpacked to where they lie in the guest: vmlinuz and the modules.
fetch() {
    local suite=$1 release=$2 folder=$work/$2 part packages=("linux-image-$2")
    [ -e "$folder/done" ] && return
    rm -rf "$folder" && mkdir -p "$folder/root"
    for part in binary modules base; do # From 6.19 on the image is in these.
        apt "$suite" cache show "linux-$part-$release" 2>/dev/null | grep -q . &&
            packages+=("linux-$part-$release")
    done
    (cd "$folder" && apt "$suite" get download -o Acquire::http::Timeout=30 "${packages[@]}") || return 1
    for part in "$folder"/*.deb; do
        dpkg-deb -x "$part" "$folder/root"
    done
    rm "$folder"/*.deb
    find "$folder/root" -name "vmlinuz*" -type f -exec mv {} "$folder/vmlinuz" \;
    [ -e "$folder/vmlinuz" ] || { echo "no vmlinuz in ${packages[*]}" && return 1; }
    [ -d "$folder/root/lib/modules" ] || ln -s usr/lib "$folder/root/lib"
    depmod -b "$folder/root" "$release"
    # Those that are needed, and what they need.
    local kept=$folder/kept/lib/modules/$release file
    mkdir -p "$kept"
    for part in "${modules[@]}"; do
        modprobe -d "$folder/root" -S "$release" --show-depends "$part"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
        file=${file#*"/lib/modules/$release/"}
        install -D "$folder/root/lib/modules/$release/$file" "$kept/$file"
    done
    cp "$folder/root/lib/modules/$release"/modules.{builtin,order} "$kept" 2>/dev/null || true
    depmod -b "$folder/kept" "$release"
    (cd "$folder/kept" && find . | cpio --quiet -o -H newc >"$folder/modules.cpio")
    rm -rf "$folder/root" "$folder/kept"
    touch "$folder/done"
}

# What every guest gets: the test binaries and twcheck where cargo has them, and the programs.
build() {
    local guest=$work/guest program file binary
    # Debug builds of twcheck take half a second to start there.
    cargo build --locked --release
    cargo test --locked --no-run 2>&1 | tee "$work/build.log" | grep -v Executable || true
    rm -rf "$guest"
    mkdir -p "$guest"/{dev,proc,sys,run,tmp,root,etc,usr/bin,busybox,tests} "$guest$target"/{debug,tmp}
    cp -r --parents "$repository/tests" "$guest"
    strip -o "$guest$target/debug/twcheck" "$target/release/twcheck"
    for binary in "${binaries[@]}" boots; do
        file=$(sed -n "s|.*Executable tests/$binary.rs (\(.*\))|\1|p" "$work/build.log")
        strip -o "$guest/tests/$binary" "$file"
    done
    for program in "${programs[@]}"; do
        cp -L "$(type -P "$program")" "$guest/usr/bin/"
    done
    for program in "$guest"/usr/bin/* "$guest"/tests/* "$guest$target/debug/twcheck"; do
        ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true
    done | sort -u | while read -r file; do
        [ -e "$guest$file" ] || install -D "$file" "$guest$file"
    done
    ln -s usr/bin "$guest/bin"
    ln -s usr/bin "$guest/sbin"
    ln -s bin "$guest/usr/sbin"
    cp -L "$(type -P busybox)" "$guest/busybox/busybox"
    for program in $(busybox --list | grep -vx busybox); do
        [ -e "$guest/usr/bin/$program" ] || ln -s /busybox/busybox "$guest/usr/bin/$program"
    done
    cp /etc/protocols /etc/nsswitch.conf /etc/host.conf "$guest/etc/"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$guest/etc/hosts"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$guest/etc/passwd"
    guest_init >"$guest/init"
    chmod +x "$guest/init"
    (cd "$guest" && find . | cpio --quiet -o -H newc >"$work/guest.cpio")
}

# What runs as the first process of a guest: a line RESULT for each test binary, END at last.
guest_init() {
    cat <<INIT
#!/busybox/busybox sh
export PATH=/usr/bin HOME=/root TWCHECK_EMULATED=1 CI=true INSTA_UPDATE=no
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
ln -s /proc/self/fd /dev/fd
ip link set lo up
cd "$repository"
exec >/dev/ttyS1 2>&1
echo BOOTED
ulimit -n 65536
case "\$TWCHECK_BOOT" in
no_modules) rm /usr/bin/modprobe ;;
hidden)
    mount -o remount,hidepid=2 /proc
    echo 0 >/proc/sys/user/max_user_namespaces
    ;;
esac
try() {
    local binary=\$1 begun ended attempt
    shift
    read -r begun _ </proc/uptime
    # An emulator that was starved for a moment is no fault of the kernel: what fails twice is one.
    for attempt in first second; do
        timeout 300 /tests/\$binary "\$@" >/tmp/said.\$binary 2>&1
        grep -q '^test result: ok' /tmp/said.\$binary && break
        echo "the \$attempt attempt failed:"
        cat /tmp/said.\$binary
    done
    read -r ended _ </proc/uptime
    grep -h MEASURED /tmp/said.\$binary
    set -- \$(sed -n 's/^test result: [^0-9]*\([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' \
        /tmp/said.\$binary | tail -n 1) 0 1
    echo "RESULT \$binary \$1 \$2 \$((\${ended%.*} - \${begun%.*}))"
}
# What it waits for takes a minute, and nothing else.
if [ "\$TWCHECK_BOOT" = plain ]; then
    try boots --ignored plain:: >/tmp/plain &
    for binary in ${binaries[*]}; do
        filter=
        [ \$binary != situations ] || filter="${some[*]-}"
        try \$binary \$filter ${left_out[*]/#/--skip }
    done
    wait
    cat /tmp/plain
else
    try boots --ignored "\$TWCHECK_BOOT::"
fi
echo END
/busybox/busybox poweroff -f
INIT
}

# Boots a kernel once: plainly, or in one of the ways that a test is for. Its results go to a file.
boot() {
    local release=$1 kind=$2 folder=$work/$1 memory=2048 arguments=
    case "$kind" in
    plain) arguments="thash_entries=262144" ;;
    small) memory=1024 ;;
    no_ipv6) arguments="ipv6.disable=1" ;;
    esac
    : >"$folder/$kind.log"
    timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m $memory -net none \
        -nographic -nodefaults -no-user-config -no-reboot -monitor none \
        -kernel "$folder/vmlinuz" -initrd "$folder/initrd" \
        -append "console=ttyS0 quiet panic=-1 TWCHECK_BOOT=$kind $arguments" \
        -serial file:"$folder/$kind.console" -serial file:"$folder/$kind.log" || true
    sed -i 's/\r$//' "$folder/$kind.log"
}

# All boots of a kernel: a line of the table.
try() {
    local release=$1 folder=$work/$1 kind begun=$SECONDS binary passed bad seconds row=
    cat "$work/guest.cpio" "$folder/modules.cpio" >"$folder/initrd"
    boot "$release" plain
    # They wait more than they work.
    for kind in "${boots[@]}"; do
        boot "$release" "$kind" &
    done
    wait
    for kind in plain "${boots[@]}"; do
        if [ "$(tail -n 1 "$folder/$kind.log")" != END ]; then
            if ! grep -q '^BOOTED' "$folder/$kind.log"; then
                notes+=("$kind: kernel $release does not boot here: $(tail -n 1 "$folder/$kind.console")")
                continue
            fi
            failed+=("$release/$kind")
            row+=" $kind: no end"
            tail -n 30 "$folder/$kind.console" "$folder/$kind.log"
            continue
        fi
        grep -vE '^(BOOTED|RESULT|END)' "$folder/$kind.log" | sed "s/^/$release $kind: /" || true
        while read -r _ binary passed bad seconds; do
            [ "$kind" = plain ] || binary=$kind
            row+=" $binary $passed/$((passed + bad)) ($seconds s)"
            [ "$bad" = 0 ] || failed+=("$release/$binary")
        done < <(grep '^RESULT' "$folder/$kind.log")
    done
    rm "$folder/initrd"
    [ -z "$row" ] || table+=("$release, $((SECONDS - begun)) s:$row")
}

main "$@"
