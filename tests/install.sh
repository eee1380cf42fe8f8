#!/usr/bin/env bash
# `make install` installs a complete wsgate, which works there, and `make uninstall` removes it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "install: $1"
    exit 1
}

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
installed=$place/opt/wsgate
wsgate=$installed/bin/wsgate

make install DESTDIR="$place" PREFIX=/opt/wsgate >/dev/null
cp cgi-bin/hello.wsgi "$place/hello.wsgi"
answer=$(cd "$place" && "$wsgate" call hello.wsgi)
[ "$answer" = "Hello from WSGI" ] || fail "the installed wsgate answers: $answer"
# Users are looked up, which a statically linked program must not leave to the C library.
tail -n +2 cgi-bin/hello.wsgi >"$place/plain.wsgi"
chmod -R a+rX "$place"
(cd "$place" && "$wsgate" check plain.wsgi --user root >/dev/null) ||
    fail "the installed wsgate fails to check"
status=0
(cd "$place" && "$wsgate" fastcgi plain.wsgi --listen unix:app.sock --socket-owner no-such-user \
    2>/dev/null) || status=$?
[ "$status" = 78 ] || fail "the installed wsgate exits with $status on an unknown user"
commands=$("$wsgate" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || fail "the help lists no commands"
for page in wsgate $(printf 'wsgate-%s\n' $commands); do
    [ -s "$installed/share/man/man1/$page.1" ] || fail "$page.1 is missing"
done
for file in share/bash-completion/completions/wsgate share/zsh/site-functions/_wsgate \
    share/fish/vendor_completions.d/wsgate.fish lib/systemd/system/wsgate@.service \
    lib/systemd/system/wsgate@.socket lib/systemd/system/wsgate-monitor.service \
    lib/wsgate/wsgate-http; do
    [ -s "$installed/$file" ] || fail "$file is missing"
done
grep -q '^ExecStart=/opt/wsgate/bin/wsgate fastcgi ' \
    "$installed/lib/systemd/system/wsgate@.service" ||
    fail "the unit starts another wsgate than the installed one"
bash -n "$installed/share/bash-completion/completions/wsgate"
make uninstall DESTDIR="$place" PREFIX=/opt/wsgate >/dev/null
left=$(find "$place/opt" ! -type d)
[ -z "$left" ] || fail "left behind: $left"
echo "install: passed"
