#!/usr/bin/env bash
# Five sites on one machine, kept by systemd, by the commands of docs/five-sites.md: one file and
# one user each, behind nginx, reloads of all and of one, priorities in the journal, rotation of
# logs, an upgrade in place, and the removal of a site.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "needs root, for the root of a distribution"
suite=bookworm root=$work/bookworm
sites=(alpha beta gamma delta epsilon)
mkdir "$work/packages"
cp "$(artefact '*.deb')" "$work/packages/wsgate.deb"
chmod 755 "$work/packages"
. "$(dirname "$0")/booted.sh"

# Runs the commands below a heading of the page.
page() {
    local commands
    commands=$(awk -v heading="## $1" '
        /^## / { is_there = $0 == heading }
        /^```/ { is_code = is_there && /bash$/; next }
        is_code' docs/five-sites.md)
    [ -n "$commands" ] || fail "docs/five-sites.md has no commands below: $1"
    inside bash -euc "$commands" >"$work/page.log" 2>&1 || {
        cat "$work/page.log" >&2
        fail "the commands of the page fail: $1"
    }
}
by_name() {
    inside python3 -c '
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1/", headers={"Host": sys.argv[1]})
print(urllib.request.urlopen(request, timeout=30).read().decode(), end="")' "$1.example.org"
}
answer() { inside wsgate call --via "unix:/run/wsgate/$1.sock" /; }
pid_of() { inside systemctl show --property=MainPID --value "wsgate@$1.service"; }
generation_of() {
    inside wsgate status --json "$1" | python3 -c 'import json, sys
print(json.load(sys.stdin)["generation"])'
}
code() {
    cat >"$root/srv/$1/app.wsgi" <<PY
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("$1 $2 " + os.environ.get("COLOUR", "none")).encode()]
PY
}
expect() {
    local found
    found=$(answer "$1") || fail "$1 is not served"
    [ "$found" = "$1 $2" ] || fail "$1 answers: $found"
}
journal_has() {
    inside journalctl --unit="wsgate@$1.service" --priority="$2..$2" --output=cat | grep -q "$3"
}

unpack_root "$suite" "$root"
boot
inside dpkg -i /mnt/wsgate.deb >/dev/null
for site in "${sites[@]}"; do
    mkdir "$root/srv/$site"
    code "$site" 1
done
page "Add the sites"
page "Connect nginx"
declare -A pids
for site in "${sites[@]}"; do
    expect "$site" "1 none"
    pids[$site]=$(pid_of "$site")
    [ "$(inside stat -c %U "/proc/${pids[$site]}")" = "$site" ] || fail "$site runs as another user"
done
[ "$(inside wsgate status --json | wc -l)" = 5 ] || fail "status does not show all pools"
for site in "${sites[@]}"; do
    [ "$(by_name "$site")" = "$site 1 none" ] || fail "nginx answers for $site: $(by_name "$site")"
done
page "Look at all sites"
grep -q "alpha 1 none" "$work/page.log" || fail "the page shows: $(cat "$work/page.log")"
say "five sites serve"

for site in "${sites[@]}"; do code "$site" 2; done
inside systemctl reload 'wsgate@*.service' || fail "systemctl reload of all sites"
for site in "${sites[@]}"; do
    expect "$site" "2 none"
    [ "$(pid_of "$site")" = "${pids[$site]}" ] || fail "$site was restarted"
done
say "one command reloads all sites"

# Pools notice changed scripts by themselves, too: the numbers of loads are those of now.
declare -A generations
for site in "${sites[@]}"; do generations[$site]=$(generation_of "$site"); done
printf '[env]\nCOLOUR = "blue"\n' >>"$root/etc/wsgate/pools/beta.toml"
page "Deliver new code"
expect beta "2 blue"
for site in alpha gamma delta epsilon; do
    [ "$(generation_of "$site")" = "${generations[$site]}" ] || fail "$site was reloaded, too"
done
say "an edit of one file reloads one site"

echo 'timeout = "soon"' >"$root/etc/wsgate/pools/gamma.toml"
inside systemctl reload wsgate@gamma.service 2>/dev/null && fail "a wrong file was reloaded"
expect gamma "2 none"
await "error of the reload with its priority" journal_has gamma err 'error\[W0105\]'
await "notice of the pool with its priority" journal_has gamma notice 'notice\[W0710\]'
inside systemctl --quiet is-active wsgate@gamma.service || fail "gamma does not run any more"
say "a wrong file leaves a site as it was, and the journal knows the priority"

log=$root/var/log/wsgate/alpha/access.log
[ "$(grep -c GET "$log")" = 4 ] || fail "the access log of alpha has: $(cat "$log")"
inside logrotate --force /etc/logrotate.d/wsgate || fail "logrotate"
logs_are_there() {
    for site in "${sites[@]}"; do [ -e "$root/var/log/wsgate/$site/access.log" ] || return 1; done
}
await "logs after the rotation" logs_are_there
expect alpha "2 none"
await "line in the new log" grep -q GET "$log"
[ "$(grep -c GET "$log.1")" = 4 ] || fail "the rotated log of alpha has: $(cat "$log.1")"
say "logrotate rotates the logs of all sites"

inside systemctl kill --kill-who=main --signal=USR2 wsgate@delta.service
await "upgrade in the journal" journal_has delta notice 'notice\[W0727\]'
expect delta "2 none"
[ "$(pid_of delta)" = "${pids[delta]}" ] || fail "the upgrade changed the main process"
inside systemctl --quiet is-active wsgate@delta.service || fail "delta does not run any more"
say "an upgrade keeps the main process"

page "Remove a site"
[ "$(inside wsgate status --json | wc -l)" = 4 ] || fail "a removed site runs"
[ ! -e "$root/run/wsgate/epsilon.sock" ] || fail "the socket of a removed site is there"
expect alpha "2 none"
say "a site is removed, and the others serve"

inside systemctl stop 'wsgate@*.socket' 'wsgate@*.service'
[ -z "$(inside wsgate status --json 2>/dev/null)" ] || fail "a pool runs after systemctl stop"
say "passed"
