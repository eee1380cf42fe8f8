# What the tests of packages have in common. Each test is a program that exits with 1 if it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

test_name=$(basename "$0" .sh)
cache=/var/tmp/wsgate-test-$(id -u)/roots
work=$(mktemp -d /var/tmp/wsgate-packaging-XXXXXX)
# Functions that undo what a test did, in the order in which they run.
undo=()
trap clean_up EXIT

clean_up() {
    local status=$? command
    for command in "${undo[@]}"; do
        $command || true
    done
    rm -rf --one-file-system "$work"
    exit "$status"
}

say() { printf '%s: %s\n' "$test_name" "$*"; }
fail() {
    say "failed: $*" >&2
    exit 1
}

# The package of a kind in target/artifacts, which `make deb rpm` wrote.
artefact() {
    local found=(target/artifacts/$1)
    [ "${#found[@]}" = 1 ] && [ -f "${found[0]}" ] ||
        fail "target/artifacts has no single $1; run \`make deb rpm\`"
    echo "${found[0]}"
}

# The file name of a root of a suite: an archive of Debian or Ubuntu with what the tests need. It is
# made once, and again if the list of packages changes.
root_archive() {
    local suite=$1 mirror=http://deb.debian.org/debian keyring=() components=main
    local packages=systemd,systemd-sysv,python3,python3-venv,apache2,nginx,rpm,ca-certificates,logrotate
    case $suite in
        noble)
            mirror=http://archive.ubuntu.com/ubuntu components=main,universe
            keyring=("--keyring=$(ubuntu_keyring)")
            ;;
    esac
    local archive
    archive=$cache/$suite-$(printf '%s' "$packages $mirror" | cksum | cut -d ' ' -f 1).tar
    if [ ! -f "$archive" ]; then
        say "making a root of $suite" >&2
        mkdir -p "$cache"
        [ -O "$cache" ] || fail "$cache belongs to another user"
        mmdebstrap --quiet --variant=minbase --components="$components" --include="$packages" \
            "${keyring[@]}" "$suite" "$work/$suite.tar" "$mirror" >&2
        mv "$work/$suite.tar" "$archive"
    fi
    echo "$archive"
}

# Debian 12 has no package of Ubuntu's keys. The checksum stands for the signature.
ubuntu_keyring() {
    local keys=$cache/ubuntu-archive-keyring.gpg
    local url=http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring
    local checksum=36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8
    if [ ! -f "$keys" ]; then
        mkdir -p "$cache"
        curl --silent --fail --location --output "$work/keyring.deb" \
            "$url/ubuntu-keyring_2023.11.28.1_all.deb"
        echo "$checksum  $work/keyring.deb" | sha256sum --check --quiet >&2
        dpkg-deb --fsys-tarfile "$work/keyring.deb" |
            tar -xO ./usr/share/keyrings/ubuntu-archive-keyring.gpg >"$keys.new"
        mv "$keys.new" "$keys"
    fi
    echo "$keys"
}

# Unpacks the root of a suite into a directory.
unpack_root() {
    local archive
    archive=$(root_archive "$1")
    mkdir -p "$2"
    tar -C "$2" --exclude='./dev/*' -xf "$archive"
}
