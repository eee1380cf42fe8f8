#!/usr/bin/env bash
# The deb in the distributions it is for, booted by systemd: installation, CGI behind Apache, a pool
# behind nginx, an upgrade in place under load, one that a pool cannot follow, and a purge that
# leaves nothing.
#
# Arguments: names of suites; all by default.
. "$(dirname "$0")/lib.sh"

[ "$#" -gt 0 ] || set -- bullseye bookworm trixie noble
[ "$(id -u)" = 0 ] || fail "needs root, for the roots of distributions"
deb=$(artefact '*.deb')
version=$(dpkg-deb -f "$deb" Version)

# The same package with a later version.
mkdir "$work/packages"
cp "$deb" "$work/packages/first.deb"
dpkg-deb -R "$deb" "$work/unpacked"
sed -i "s/^Version: .*/Version: $version+1/" "$work/unpacked/DEBIAN/control"
dpkg-deb --root-owner-group -b "$work/unpacked" "$work/packages/second.deb" >/dev/null
cp tests/packaging/load.py "$work/packages/load.py"
chmod 755 "$work/packages"

. "$(dirname "$0")/booted.sh"

fetch() {
    inside python3 -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode(), end="")' "$1"
}

expect() {
    local found
    found=$(fetch "$1") || fail "$suite: $1 is not served"
    [[ $found == "$2"* ]] || fail "$suite: $1 answers: $found"
}

# What the root has: files with their owners and modes, users, units. Caches, logs and the state of
# other programs are left out.
list() {
    find "$root" -xdev \( -path "$root/proc" -o -path "$root/sys" -o -path "$root/dev" \
        -o -path "$root/tmp" -o -path "$root/run" -o -path "$root/var/lib/dpkg" \
        -o -path "$root/var/cache" -o -path "$root/var/lib/systemd" -o -path "$root/var/log" \
        -o -path "$root/var/lib/apache2" -o -path "$root/var/lib/nginx" \
        -o -name __pycache__ \) -prune -o -printf '%P %y %m %U %G\n' | LC_ALL=C sort
    sha256sum "$root"/etc/{passwd,group,shadow}
    find "$root/run" "$root/var/log" "$root/var/lib" "$root/var/cache" -name '*wsgate*'
}

# A site whose pool is wsgate@shop, nginx before it, and Apache for CGI, before anything of wsgate
# is installed. The configurations are those that the package brings.
prepare() {
    chroot "$root" useradd --system --shell /usr/sbin/nologin shop
    mkdir -p "$root/srv/shop"
    cat >"$root/srv/shop/app.wsgi" <<'PY'
import time


def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"].partition("=")[2] or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello from the pool\n"]
PY
    local examples=/usr/share/doc/wsgate/examples
    cat >"$root/etc/nginx/sites-available/default" <<CONF
upstream shop {
    server unix:/run/wsgate/shop.sock;
    keepalive 4;
}
server {
    listen 127.0.0.1:80;
    location ~ "(?s)^(?<wsgate_script>/shop)(?<wsgate_path>/.*)?$" {
        set \$wsgate_pool shop;
        include $examples/web-servers/nginx.conf;
    }
}
CONF
    echo 'Listen 127.0.0.1:8080' >"$root/etc/apache2/ports.conf"
    cat >"$root/etc/apache2/conf-available/shop.conf" <<CONF
Define WSGATE_CGI_BIN /usr/lib/cgi-bin
Include $examples/apache/scriptalias.conf
CONF
    chroot "$root" a2enmod --quiet cgid
    chroot "$root" a2dissite --quiet 000-default
    # Both servers read files of the package: the test starts them when it is installed.
    chroot "$root" systemctl --quiet disable apache2.service nginx.service
}

pool_pid() { inside systemctl show --property=MainPID --value wsgate@shop.service; }
pool_program() { inside readlink "/proc/$(pool_pid)/exe"; }

serve() {
    cp -a "$root/usr/share/doc/wsgate/examples/cgi-bin/." "$root/usr/lib/cgi-bin"
    chroot "$root" a2enconf --quiet shop
    inside systemctl start apache2.service nginx.service
    [ "$(inside wsgate call /usr/lib/cgi-bin/hello.wsgi)" = "Hello from WSGI" ] ||
        fail "$suite: wsgate call"
    expect http://127.0.0.1:8080/cgi-bin/hello.wsgi "Hello from WSGI"
    inside systemctl --quiet is-active 'wsgate@*' && fail "$suite: a pool runs by itself"
    echo 'app = "/srv/shop/app.wsgi"' >"$root/etc/wsgate/pools/shop.toml"
    inside systemctl --quiet enable --now wsgate@shop.socket wsgate@shop.service
    expect http://127.0.0.1/shop "Hello from the pool"
    await "message of the pool with its priority" journal_has_notice
}
journal_has_notice() {
    inside journalctl --unit=wsgate@shop.service --priority=notice..notice --output=cat |
        grep -q '^wsgate: notice\[W0710\]'
}

upgrade_under_load() {
    local before after load status=0
    before=$(pool_pid)
    mkdir "$root/root/load"
    local pool=http://127.0.0.1/shop cgi=http://127.0.0.1:8080/cgi-bin/hello.wsgi
    inside python3 /mnt/load.py /root/load "$pool" "$pool" "$pool" "$pool" "$pool?sleep=0.5" \
        "$pool?sleep=2" "$cgi" "$cgi" >"$work/$suite.load" 2>&1 &
    load=$!
    await "request under load" test -e "$root/root/load/ready"
    inside dpkg -i /mnt/second.deb >"$work/$suite.upgrade" 2>&1 || {
        cat "$work/$suite.upgrade" >&2
        fail "$suite: the upgrade fails"
    }
    expect "$pool" "Hello from the pool"
    touch "$root/root/load/stop"
    wait "$load" || status=$?
    sed "s/^/  $suite: /" "$work/$suite.load"
    [ "$status" = 0 ] || fail "$suite: requests failed during the upgrade"
    rm -r "$root/root/load"
    after=$(pool_pid)
    [ "$before" = "$after" ] || fail "$suite: the upgrade restarted the pool"
    [ "$(pool_program)" = /usr/bin/wsgate ] ||
        fail "$suite: the pool runs another build than the installed one"
}

# A pool whose application cannot be loaded any more.
upgrade_below_broken_application() {
    local before
    before=$(pool_pid)
    cp "$root/srv/shop/app.wsgi" "$work/app.wsgi"
    echo 'raise ValueError("broken")' >"$root/srv/shop/app.wsgi"
    inside dpkg -i /mnt/first.deb >"$work/$suite.upgrade" 2>&1 || {
        cat "$work/$suite.upgrade" >&2
        fail "$suite: the upgrade fails because of a broken application"
    }
    grep -q 'wsgate@shop.service goes on with its old build' "$work/$suite.upgrade" || {
        cat "$work/$suite.upgrade" >&2
        fail "$suite: the upgrade does not name the pool with its old build"
    }
    expect http://127.0.0.1/shop "Hello from the pool"
    [ "$before" = "$(pool_pid)" ] || fail "$suite: the upgrade restarted a pool that cannot start"
    [ "$(pool_program)" = "/usr/bin/wsgate (deleted)" ] || fail "$suite: $(pool_program) serves"
    cp "$work/app.wsgi" "$root/srv/shop/app.wsgi"
    inside systemctl restart wsgate@shop.service
    expect http://127.0.0.1/shop "Hello from the pool"
}

remove() {
    inside systemctl stop apache2.service nginx.service
    chroot "$root" a2disconf --quiet shop
    find "$root/usr/lib/cgi-bin" -mindepth 1 -delete
    inside dpkg --remove wsgate >/dev/null || fail "$suite: dpkg --remove"
    [ -e "$root/etc/wsgate/pools/shop.toml" ] || fail "$suite: a removal deletes the configuration"
    [ -z "$(inside ls /proc/[0-9]*/exe -l 2>/dev/null | grep wsgate || true)" ] ||
        fail "$suite: processes of wsgate run after the removal"
    inside dpkg --purge wsgate >/dev/null || fail "$suite: dpkg --purge"
    [ -z "$(inside find /run -name '*wsgate*')" ] || fail "$suite: /run has files of wsgate"
}

for suite; do
    started=$SECONDS
    root=$work/$suite
    unpack_root "$suite" "$root"
    prepare
    list >"$work/$suite.clean"
    # Without systemd, as in the build of a container image.
    cp "$deb" "$root/tmp/wsgate.deb"
    chroot "$root" dpkg -i /tmp/wsgate.deb >"$work/dpkg.log" 2>&1 || {
        cat "$work/dpkg.log" >&2
        fail "$suite: dpkg -i without systemd"
    }
    chroot "$root" dpkg --purge wsgate >/dev/null || fail "$suite: dpkg --purge without systemd"
    list | diff "$work/$suite.clean" - || fail "$suite: a purge without systemd leaves files"

    boot
    list >"$work/$suite.before"
    inside dpkg -i /mnt/first.deb >/dev/null || fail "$suite: dpkg -i"
    serve
    upgrade_under_load
    upgrade_below_broken_application
    remove
    list | diff "$work/$suite.before" - || fail "$suite: a purge leaves files"
    shut_down
    rm -rf --one-file-system "$root"
    say "$suite passed in $((SECONDS - started)) s"
done
say "passed"
