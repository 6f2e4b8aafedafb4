#!/usr/bin/env bash
# The Debian package, and a new user's walk with it on a clean root: tests/package.sh BINARY
# BINARY plays the origin. The root is made from Debian's mirror. systemd is not booted in it: tests/supervised.py
# speaks LISTEN_FDS, FDSTORE and NOTIFY_SOCKET, and a recorder stands for systemctl. What each step of the walk
# printed is in tests/out/walk.log.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/checks.sh
cp "$1" "$scratch/origin"
binary=$scratch/origin
root=$PWD/tests/out/root
log=$PWD/tests/out/walk.log
version=$(dpkg-parsechangelog --file config/debian/changelog --show-field Version)
later=$version+later1

main() {
    mkdir -p tests/out
    : >"$log"
    check "the package is built" build
    manual_and_completions
    check "lintian has nothing to say" lints
    check "a later version of it is made" make_later
    check "a clean root is made" make_root
    check "an image is made from the package" make_image
    check "it serves as nobody in particular, who owns the volumes' folder" image_runs
    walk
    [ "$failures" -eq 0 ] || sed "s/^/    /" "$log"
    [ "$failures" -eq 0 ]
}

build() {
    rm -f target/debian/*.deb
    TIDEGATE_PACKAGE_PROFILE=dev TIDEGATE_PACKAGE_COMPRESSION=-Zgzip DEB_BUILD_OPTIONS=noautodbgsym config/debian/build
    package=$(echo target/debian/tidegate_"$version"_*.deb)
    [ "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)" = "$version" ]
}

manual_and_completions() {
    local made=target/debian/made page
    for page in "$made"/man/*.1; do
        check "no warning of $(basename "$page")" renders "$page"
    done
    check "bash understands its completions" bash -n "$made/bash/tidegate"
    check "bash completes a command's option" completes
    check "zsh understands its completions" zsh -n "$made/zsh/_tidegate"
    check "fish understands its completions" fish --no-execute "$made/fish/tidegate.fish"
}

renders() {
    local warned
    warned=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$1" 2>&1 >/dev/null)
    echo "$warned"
    [ -z "$warned" ]
}

completes() {
    bash -c '. target/debian/made/bash/tidegate
        COMP_WORDS=(tidegate volume verify --js); COMP_CWORD=3; _tidegate tidegate --js verify
        echo "${COMPREPLY[@]}"' | grep -qx -- --json
}

lints() {
    local said
    said=$(lintian --allow-root --profile debian --fail-on error,warning "$package") || { echo "$said"; return 1; }
}

# The same files with a later number, and one line more in the configuration that it brings.
make_later() {
    local files=$scratch/later
    dpkg-deb --raw-extract "$package" "$files"
    sed -i "s/^Version: .*/Version: $later/" "$files/DEBIAN/control"
    echo '# A later version has a line more.' >>"$files/etc/tidegate/tidegate.toml"
    dpkg-deb --root-owner-group -Zgzip --build "$files" "$scratch/later.deb"
}

make_root() {
    unmake_root
    as_root mmdebstrap --quiet --variant=apt --include=ca-certificates "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
        "$scratch/root.tar"
    as_root mkdir "$root"
    as_root tar --extract --file "$scratch/root.tar" --directory "$root"
    as_root mount -t proc proc "$root/proc"
    echo 'Dpkg { Options { "--force-confold"; } Use-Pty "0"; }' | as_root tee "$root/etc/apt/apt.conf.d/kept" >/dev/null
    as_root cp "$package" "$root/first.deb"
    as_root cp "$scratch/later.deb" "$root/later.deb"
    # It records what it is asked, and says that the service is active once that was told to it.
    as_root mkdir -p "$root/run/systemd/system"
    as_root tee "$root/usr/bin/systemctl" >/dev/null <<'SH'
#!/bin/sh
echo "$*" >>/run/asked
case "$*" in *is-active*) [ -e /run/is-active ] ;; *is-enabled*) echo enabled ;; esac
SH
    as_root chmod 755 "$root/usr/bin/systemctl"
    # systemd makes these for all services with a user of their own.
    as_root mkdir -p "$root/var/lib/private" "$root/var/log/private"
    files >"$scratch/before"
}

# The clean root stands for the image that it begins with.
make_image() {
    local base
    base=$(images from scratch)
    images add "$base" "$scratch/root.tar" / >/dev/null
    images commit "$base" docker.io/library/debian:bookworm-slim
    images build --pull-never --isolation chroot --file config/Containerfile --tag tidegate target/debian
    image=$(images from --pull-never localhost/tidegate)
}

images() { as_root buildah --root "$scratch/images/root" --runroot "$scratch/images/run" --storage-driver vfs "$@"; }

image_runs() {
    images run --isolation chroot "$image" -- /usr/bin/tidegate check --without-ports /etc/tidegate/tidegate.toml
    images run --isolation chroot "$image" -- sh -c 'id && test "$(id -u)" = 65532 && touch /var/lib/tidegate/volume'
}

unmake_root() {
    as_root umount "$root/proc" 2>/dev/null || true
    as_root rm -rf --one-file-system "$root"
}

# What lies in the root, but for what apt and dpkg remember.
files() {
    as_root find "$root" -xdev -regex "$root/\(var/lib/dpkg\|var/lib/apt\|var/cache\|var/log\|run\)" -prune -o -print | sort
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

in_root() { as_root chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }

# step NAME COMMAND...: a step of the walk; what it printed is kept.
step() {
    check "$@"
    { printf '\n## %s\n$ %s\n' "$1" "${*:2}"; cat "$scratch/check.log"; } >>"$log"
}

walk() {
    step "install" in_root apt-get install -y --no-install-recommends /first.deb
    check "nothing was started or enabled" not_asked 'start\|enable'
    check "the demo is not in it" ends_with 64 in_root tidegate demo
    check "it shares libraries with glibc and libgcc alone" shares_little
    check "it brings the licences of what it is linked from" brings_licences
    check "its configuration is right as it comes" in_root tidegate check --without-ports /etc/tidegate/tidegate.toml
    start_demo
    step "edit the one file" edit
    step "check" in_root tidegate check /etc/tidegate/tidegate.toml
    step "doctor" in_root tidegate doctor --path /film/seg-0-00001.m4s
    start_service
    step "play: a range" plays 65536-131071
    step "play: the whole" plays 0-
    step "play again: it is held" is_hit
    step "look" in_root tidegate status
    step "look at one object" in_root tidegate explain "http://127.0.0.1:$http/film/seg-0-00001.m4s"
    reloads
    drains
    upgrades
    removes
}

shares_little() {
    in_root ldd /usr/bin/tidegate
    ! in_root ldd /usr/bin/tidegate | grep -v 'linux-vdso\|/ld-linux\|libc\.so\|libm\.so\|libgcc_s\.so'
}

brings_licences() {
    in_root zcat /usr/share/doc/tidegate/linked-crates.gz >"$scratch/licences"
    cargo tree --locked --offline --no-default-features --features acme --edges normal,no-proc-macro --prefix none --format '{p}' |
        sed 's/ v\([^ ]*\).*/ \1/' | grep -v '^tidegate ' | sort -u >"$scratch/linked"
    while read -r crate; do
        [ "$(grep -c -- "^\(.*, \)\?$crate\(,.*\)\?:" "$scratch/licences")" -ge 2 ] || { echo "$crate"; return 1; }
    done <"$scratch/linked"
}

# The three places that it names, and ports that a test may have.
edit() {
    http=$(free_port) admin=$(free_port)
    as_root sed -i -e "s|^http = .*|http = [\"127.0.0.1:$http\"]|" -e "s|^admin = .*|admin = [\"127.0.0.1:$admin\"]|" \
        -e 's|^hosts = .*|hosts = ["127.0.0.1"]|' -e "s|^origins = .*|origins = [\"$(link http | sed s/localhost/127.0.0.1/)\"]|" \
        -e '$a[memory]\nram = "64 MiB"\n[limits]\nconnections = 512\n[log]\naccess = "off"' "$root/etc/tidegate/tidegate.toml"
    as_root diff "$root/etc/tidegate/tidegate.toml" config/debian/tidegate.toml || true
}

start_service() {
    mkfifo "$scratch/asked"
    as_root python3 -u tests/supervised.py "$root" lib/systemd/system/tidegate.service "http=127.0.0.1:$http" \
        <"$scratch/asked" >"$scratch/said" 2>"$scratch/service.log" &
    service=$!
    started+=("$service")
    exec {asked}>"$scratch/asked"
    step "start: READY=1 is said" wait_until 30 said READY=1 1
    as_root touch "$root/run/is-active"
}

# said LINE TIMES
said() { [ "$(grep -cx -- "$1" "$scratch/said")" -ge "$2" ] || { cat "$scratch/said" "$scratch/service.log"; return 1; }; }

seg=film/seg-0-00001.m4s

plays() {
    local path=$seg
    curl --silent --show-error --fail --range "$1" --dump-header - --output "$scratch/got" "http://127.0.0.1:$http/$path"
    curl --silent --show-error --fail --range "$1" --output "$scratch/wanted" "$(link http)/$path"
    cmp "$scratch/got" "$scratch/wanted"
}

is_hit() { plays 0-65535 | tee /dev/stderr | grep -qi '^cache-status: tidegate; hit'; }

reloads() {
    as_root sed -i 's/^name = .*/name = "film"/' "$root/etc/tidegate/tidegate.toml"
    echo reload >&"$asked"
    step "reload: what changes is said" wait_until 20 said 'reloaded 0' 1
    cat "$scratch/said" >>"$log"
    check "the service manager was told" said RELOADING=1 1
    as_root sed -i 's/^name = .*/nmae = "film"/' "$root/etc/tidegate/tidegate.toml"
    echo reload >&"$asked"
    step "reload a file with a fault: refused" wait_until 20 said 'reloaded 64' 1
    tail -n 12 "$scratch/said" >>"$log"
    check "it serves on by what was before" plays 0-99
}

drains() {
    step "drain" in_root tidegate drain --wait --within 30s
    check "load balancers are told" ready 503
    step "look: it is safe to power off" in_root tidegate status
    step "undrain" in_root tidegate undrain
    check "load balancers are told of that too" ready 200
    check "it plays again" plays 0-
}

ready() { [ "$(curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$admin/health/ready")" = "$1" ]; }

# With what the operator has edited, which stays, and at first with the fault that still stands in it.
upgrades() {
    as_root rm -f "$root/run/asked"
    step "upgrade with a fault in the configuration" in_root apt-get install -y /later.deb
    check "it is not restarted then" not_asked "restart tidegate.service"
    as_root sed -i 's/^nmae = .*/name = "film"/' "$root/etc/tidegate/tidegate.toml"
    step "install the first version again" in_root apt-get install -y --allow-downgrades /first.deb
    check "it takes over, and the process before leaves" wait_until 30 said 'left 0' 1
    as_root rm -f "$root/run/asked"
    curl --silent --show-error --fail --limit-rate 20K --output "$scratch/got" "http://127.0.0.1:$http/$seg" &
    local transfer=$!
    step "upgrade" in_root apt-get install -y /later.deb
    check "the new version has taken over" test "$(grep -c 'serves, version' "$log")" -eq 2
    check "it was not restarted for it" not_asked "restart tidegate.service"
    check "what was under way comes whole" wait "$transfer"
    curl --silent --show-error --fail --output "$scratch/wanted" "$(link http)/$seg"
    check "byte for byte" cmp "$scratch/got" "$scratch/wanted"
    check "and then the process before has left" wait_until 90 said 'left 0' 2
    step "upgrade by hand" in_root tidegate upgrade
    check "the service manager is told who serves" wait_until 30 said 'MAINPID=[0-9]*' 3
    check "the later version is installed" test "$(in_root dpkg-query --showformat '${Version}' --show tidegate)" = "$later"
    check "what the operator wrote stays" grep -q '^name = "film"' "$root/etc/tidegate/tidegate.toml"
    echo restart >&"$asked"
    step "restart: READY=1 is said again, on the same socket" wait_until 30 said READY=1 7
    check "it plays" plays 0-
}

removes() {
    step "remove" in_root apt-get remove -y tidegate
    check "it was stopped first" grep -q 'stop tidegate.socket tidegate-https.socket tidegate.service tidegate-control.service' "$root/run/asked"
    echo stop >&"$asked"
    check "SIGTERM ends it with status 0" wait_until 40 said 'exit 0' 2
    check "its configuration and state stay" test -e "$root/etc/tidegate/tidegate.toml" -a -e "$root/var/lib/private/tidegate"
    step "purge" in_root apt-get purge -y tidegate
    check "nothing stays" nothing_stays
    unmake_root
}

nothing_stays() {
    files >"$scratch/after"
    diff "$scratch/before" "$scratch/after" && ! [ -e "$root/var/log/private/tidegate" ] && ! [ -e "$root/var/log/tidegate" ]
}

not_asked() {
    [ -e "$root/run/asked" ] || return 0
    cat "$root/run/asked"
    ! grep -v daemon-reload "$root/run/asked" | grep -q "$1"
}

ends_with() {
    local wanted=$1 status=0
    shift
    "$@" || status=$?
    echo "status $status"
    [ "$status" -eq "$wanted" ]
}

main
