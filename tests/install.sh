#!/usr/bin/env bash
# `make install` puts a whole wsgate in place, that works from there and can be taken away again.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

make install DESTDIR="$place" PREFIX=/opt/wsgate >/dev/null
cp cgi-bin/hello.wsgi "$place/hello.wsgi"
answer=$(cd "$place" && opt/wsgate/bin/wsgate call hello.wsgi)
[ "$answer" = "Hello from WSGI" ] || { echo "the installed wsgate answers: $answer"; exit 1; }
# Users are looked up, which a statically linked program must not leave to the C library.
tail -n +2 cgi-bin/hello.wsgi >"$place/plain.wsgi"
chmod -R a+rX "$place"
(cd "$place" && opt/wsgate/bin/wsgate check plain.wsgi --user root >/dev/null) || { echo "the installed wsgate fails to check"; exit 1; }
status=0
(cd "$place" && opt/wsgate/bin/wsgate fastcgi plain.wsgi --listen unix:app.sock --socket-owner no-such-user 2>/dev/null) || status=$?
[ "$status" = 78 ] || { echo "the installed wsgate ends with $status on an unknown user"; exit 1; }
for file in share/man/man1/wsgate.1 share/bash-completion/completions/wsgate share/zsh/site-functions/_wsgate \
    share/fish/vendor_completions.d/wsgate.fish lib/systemd/system/wsgate@.service lib/systemd/system/wsgate@.socket; do
    [ -s "$place/opt/wsgate/$file" ] || { echo "$file is missing"; exit 1; }
done
grep -q '^ExecStart=/opt/wsgate/bin/wsgate fastcgi ' "$place/opt/wsgate/lib/systemd/system/wsgate@.service" ||
    { echo "the unit starts another wsgate than the installed one"; exit 1; }
bash -n "$place/opt/wsgate/share/bash-completion/completions/wsgate"
make uninstall DESTDIR="$place" PREFIX=/opt/wsgate >/dev/null
left=$(find "$place/opt" ! -type d)
[ -z "$left" ] || { echo "left behind: $left"; exit 1; }
echo "install: passed"
