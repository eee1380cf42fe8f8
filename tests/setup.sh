#!/usr/bin/env bash
# Installs what the tests need beside Rust: real web servers, php-fpm, curl, litmus, and a
# virtualenv with the packages of requirements.txt.
# May be run any number of times; when all is there it takes a moment and changes nothing.
#
# `tests/setup.sh packages` also installs what `make test-packages` needs: roots of distributions,
# containers, and programs that check packages.
#
# The virtualenv stands outside the source tree, where the web server's user can enter it: in
# WSGATE_TEST_VENV, else in /var/tmp/wsgate-test-UID/venv.
set -euo pipefail
cd "$(dirname "$0")"
with_packages=$([ "${1:-}" != packages ] || echo yes)
# Users who cannot write there read the packages: their .pyc files must exist already.
unset PYTHONDONTWRITEBYTECODE
umask 022

absent=0
say() { printf 'tests/setup.sh: %s\n' "$*"; }
miss() {
    say "missing: $*" >&2
    absent=1
}

# apache2, haproxy, lighttpd and nginx live in /usr/sbin, which is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3 || true)

needed() {
    command -v apache2 >/dev/null || echo apache2
    command -v lighttpd >/dev/null || echo lighttpd
    command -v nginx >/dev/null || echo nginx-light
    command -v caddy >/dev/null || echo caddy
    command -v haproxy >/dev/null || echo haproxy
    command -v logrotate >/dev/null || echo logrotate
    [ -e /usr/lib/apache2/modules/mod_fcgid.so ] || echo libapache2-mod-fcgid
    [ -e /usr/lib/apache2/modules/mod_xsendfile.so ] || echo libapache2-mod-xsendfile
    [ -e /usr/lib/apache2/suexec-custom ] || echo apache2-suexec-custom
    command -v spawn-fcgi >/dev/null || echo spawn-fcgi
    command -v cgi-fcgi >/dev/null || echo libfcgi-bin
    # Debian names the program by its version.
    compgen -G '/usr/sbin/php-fpm*' >/dev/null || echo php-fpm
    command -v curl >/dev/null || echo curl
    command -v tmux >/dev/null || echo tmux
    command -v ss >/dev/null || echo iproute2
    command -v ps >/dev/null || echo procps
    command -v litmus >/dev/null || echo litmus
    { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
    command -v chromium >/dev/null || echo chromium
    # Its tools work without it running.
    command -v systemd-socket-activate >/dev/null || echo systemd
    { [ -n "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; } || echo python3-venv
    [ -z "$with_packages" ] || needed_for_packages
}

needed_for_packages() {
    command -v mmdebstrap >/dev/null || echo mmdebstrap
    command -v systemd-nspawn >/dev/null || echo systemd-container
    command -v lintian >/dev/null || echo lintian
    command -v rpm >/dev/null || echo rpm
    command -v rpmlint >/dev/null || echo rpmlint
    command -v podman >/dev/null || echo podman
    command -v catatonit >/dev/null || echo catatonit
    # Debian 12's crun refuses machines with both versions of cgroups.
    command -v runc >/dev/null || echo runc
}

install_packages() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            miss "$* (not root, and no sudo without a password)"
            return
        fi
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null; then
        miss "$* (no apt-get here: install them by hand)"
        return
    fi
    say "installing $*"
    # Tests start servers of their own. The services of the packages must not start or hold a port.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        made=yes
    fi
    local installed=yes
    "${as_root[@]}" apt-get update -qq ||
        say "apt-get update failed; trying with the lists that are here" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null || installed=
    [ -z "$made" ] || "${as_root[@]}" rm -f "$policy"
    [ -n "$installed" ] || miss "$* (apt-get could not install them)"
}

mapfile -t packages < <(needed)
if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}"
    python=/usr/bin/python3
    [ -x "$python" ] || python=$(command -v python3 || true)
fi

# suexec runs scripts of users below /home, in ~/public_html. Debian compiles /var/www in.
allow_suexec() {
    local settings=/etc/apache2/suexec/www-data
    { [ "$(id -u)" = 0 ] && [ -e "$settings" ]; } || return 0
    printf '/home\npublic_html\n' | cmp -s - "$settings" ||
        printf '/home\npublic_html\n' >"$settings"
}
allow_suexec

make_venv() {
    local venv=$1
    if [ -z "$python" ]; then
        miss "python3"
        return
    fi
    # The name of the default place can be guessed by anybody on this machine.
    mkdir -p "$(dirname "$venv")"
    if [ ! -O "$(dirname "$venv")" ]; then
        miss "$(dirname "$venv") belongs to somebody else (set WSGATE_TEST_VENV to another place)"
        return
    fi
    # The copy of the requirements is written last: a virtualenv that is incomplete has none.
    local needed='import flask, django, flup, numpy, webtest, Zope2'
    if cmp -s requirements.txt "$venv/requirements.txt" &&
        "$venv/bin/python" -c "$needed" 2>/dev/null; then
        return
    fi
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || { miss "a virtualenv in $venv"; return; }
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r requirements.txt; then
        miss "the packages of tests/requirements.txt (pip could not install them)"
        return
    fi
    cp requirements.txt "$venv/requirements.txt"
}
# What a test installs into a virtualenv of its own.
fetch_wheels() {
    local venv=$1 wheels
    wheels=$(dirname "$venv")/wheels
    [ -x "$venv/bin/python" ] && ! compgen -G "$wheels/flask-*" >/dev/null || return 0
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --dest "$wheels" flask ||
        miss "flask (pip could not download it)"
}

# Writes wheels, for the test that installs one, in a virtualenv beside that of the applications.
make_builder() {
    local venv=$1 needed builder
    builder=$(dirname "$venv")/build
    needed=$(grep '^hatchling==' ../packaging/tools.txt)
    [ -x "$venv/bin/python" ] && [ "$(cat "$builder/needed" 2>/dev/null)" != "$needed" ] || return 0
    "$python" -m venv --clear "$builder" &&
        "$builder/bin/python" -m pip install --quiet --disable-pip-version-check "$needed" &&
        echo "$needed" >"$builder/needed" || miss "$needed (pip could not install it)"
}

# Shows the Python stacks of a process, beside `wsgate stacks`.
make_profiler() {
    local venv=$1 needed=py-spy==0.4.3 profiler
    profiler=$(dirname "$venv")/py-spy
    [ -x "$venv/bin/python" ] || return 0
    [ "$(cat "$profiler/needed" 2>/dev/null)" != "$needed" ] || return 0
    "$python" -m venv --clear "$profiler" &&
        "$profiler/bin/python" -m pip install --quiet --disable-pip-version-check "$needed" &&
        echo "$needed" >"$profiler/needed" || miss "$needed (pip could not install it)"
}

make_venv "${WSGATE_TEST_VENV:-/var/tmp/wsgate-test-$(id -u)/venv}"
fetch_wheels "${WSGATE_TEST_VENV:-/var/tmp/wsgate-test-$(id -u)/venv}"
make_profiler "${WSGATE_TEST_VENV:-/var/tmp/wsgate-test-$(id -u)/venv}"
make_builder "${WSGATE_TEST_VENV:-/var/tmp/wsgate-test-$(id -u)/venv}"

if [ "$absent" = 0 ]; then
    say "all there"
elif [ "${CI:-}" = true ]; then
    exit 1
else
    say "the tests that use what is missing will fail" >&2
fi
