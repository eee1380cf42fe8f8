#!/usr/bin/env bash
# The deb and the rpm as files: contents, licenses, scripts, dependencies.
. "$(dirname "$0")/lib.sh"

deb=$(artefact '*.deb')
rpm=$(artefact '*.rpm')
files=$work/files
dpkg-deb -x "$deb" "$files"

lintian --fail-on error,warning "$deb" || fail "lintian"

for file in usr/bin/wsgate usr/lib/wsgate/libwsgate_engine.so usr/lib/wsgate/wsgate-http \
    usr/lib/systemd/system/wsgate@.service usr/lib/systemd/system/wsgate@.socket \
    usr/lib/systemd/system/wsgate-monitor.service etc/wsgate/pools/example.toml \
    etc/logrotate.d/wsgate \
    usr/share/doc/wsgate/{copyright,changelog.gz,changelog.Debian.gz} \
    usr/share/bash-completion/completions/wsgate usr/share/zsh/vendor-completions/_wsgate \
    usr/share/fish/vendor_completions.d/wsgate.fish; do
    [ -s "$files/$file" ] || fail "the deb has no $file"
done
commands=$("$files/usr/bin/wsgate" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || fail "the help lists no commands"
for page in wsgate $(printf 'wsgate-%s\n' $commands); do
    [ -s "$files/usr/share/man/man1/$page.1.gz" ] || fail "the deb has no $page.1.gz"
done
examples=$files/usr/share/doc/wsgate/examples
git ls-files apache web-servers cgi-bin | while read -r file; do
    [ -e "$examples/$file" ] || fail "the deb has no example $file"
done
found=$(grep -rl /usr/local/bin/wsgate "$examples/cgi-bin" "$files/usr/lib/systemd" || true)
[ -z "$found" ] || fail "these files name another wsgate than the package's: $found"
"$files/usr/bin/wsgate" call "$examples/cgi-bin/hello.wsgi" >/dev/null || fail "wsgate call"

# Both packages have the same files, apart from the directories that a distribution chooses.
of_deb=$(cd "$files" && find . ! -type d | sed 's,^\.,,' | grep -v \
    -e /usr/share/lintian -e /usr/share/doc/wsgate/c -e vendor-completions | LC_ALL=C sort)
of_rpm=$(rpm -qpl "$rpm" | grep -v -e /usr/share/licenses -e /usr/share/doc/wsgate/CHANGELOG.md \
    -e site-functions | LC_ALL=C sort)
diff <(echo "$of_deb") <(echo "$of_rpm") || fail "deb and rpm have different files"
grep -q -x /usr/share/licenses/wsgate/copyright <<<"$(rpm -qpl "$rpm")" ||
    fail "the rpm has no copyright"
grep -q -x /etc/wsgate/pools/example.toml <<<"$(rpm -qpc "$rpm")" ||
    fail "the rpm has no configuration file"

# The copyright file has each crate: those that cargo lists, and those whose names stand in the
# programs, in messages of panics.
copyright=$files/usr/share/doc/wsgate/copyright
{
    for package in wsgate wsgate-engine wsgate-http; do
        for libc in gnu musl; do
            cargo tree --locked -p "$package" -e normal --target "x86_64-unknown-linux-$libc" \
                --prefix none -f '{p}'
        done
    done | grep -v '(/' | awk 'NF { sub("^v", "", $2); print $1 "-" $2 }'
    cat "$files/usr/bin/wsgate" "$files"/usr/lib/wsgate/* |
        grep -a -o 'index\.crates\.io-[0-9a-f]*/[A-Za-z0-9_.-]*/src' | cut -d / -f 2
} | sort -u >"$work/crates"
[ "$(wc -l <"$work/crates")" -gt 20 ] || fail "the crates are not found"
while read -r crate; do
    grep -q -F "Files: crates.io/$crate/*" "$copyright" || fail "the copyright file has no $crate"
done <"$work/crates"
# Each license that a stanza names has a text.
sed -n 's/^License: //p' "$copyright" | sed 's/,\? \(or\|and\) /\n/g' | sort -u |
    while read -r license; do
        grep -A 1 -x -F "License: $license" "$copyright" | grep -q '^ ' ||
            fail "the copyright file has no text of $license"
    done

# The packages need glibc and Python only.
# cargo-generate-rpm reads what the engine needs.
required=$(rpm -qpR "$rpm" | grep -v -e '^rpmlib(' -e '^config(' | LC_ALL=C sort -u)
other=$(grep -v -E -e '^(/bin/sh|python3|rtld\(GNU_HASH\))$' \
    -e '^(libc|libm|libdl|libpthread|librt|ld-linux-[a-z0-9_-]+)\.so\.[0-9](\(|$)' \
    <<<"$required" || true)
[ -z "$other" ] || fail "the rpm requires more than glibc and Python: $other"
newest=$(grep -o 'GLIBC_[0-9.]*' <<<"$required" | sort -t _ -k 2 -V | tail -n 1)
[ "$(printf '%s\nGLIBC_2.17\n' "$newest" | sort -t _ -k 2 -V | tail -n 1)" = GLIBC_2.17 ] ||
    fail "the rpm requires $newest"
depends=$(dpkg-deb -f "$deb" Depends)
[ "$depends" = "libc6 (>= 2.17), python3 (>= 3.9)" ] || fail "the deb depends on: $depends"

# The scripts of the rpm are shell, and act on pools as they should.
for script in preuninstall postuninstall postinstall; do
    rpm -qp --scripts "$rpm" | sed -n "/^$script /,/^[a-z]* scriptlet/p" | grep -v scriptlet \
        >"$work/$script"
    [ -s "$work/$script" ] || fail "the rpm has no script for $script"
    sh -n "$work/$script" || fail "the rpm's $script is no shell script"
done
grep -q "try-restart 'wsgate@" "$work/postuninstall" || fail "the rpm does not restart pools"
grep -q "stop 'wsgate@\*.socket'" "$work/preuninstall" || fail "the rpm does not stop pools"
# What remains: signatures and tags that the release process or cargo-generate-rpm would set.
# systemd creates the directory of logs; without logrotate its file does nothing.
complaints=$(rpmlint "$rpm" 2>/dev/null | grep -E ': [EW]: ' | grep -v -E \
    -e ': (no-signature|no-packager-tag|no-group-tag|no-changelogname-tag|no-buildhost-tag)' \
    -e ': (manpage-not-compressed bz2|no-manual-page-for-binary|invalid-license MIT)' \
    -e ': (missing-dependency-to-logrotate|logrotate-log-dir-not-packaged)' \
    -e ': (statically-linked-binary|unstripped-binary-or-object) /usr/' || true)
[ -z "$complaints" ] || fail "rpmlint: $complaints"

# The rpm installs, and leaves nothing when it is removed; its scripts run without systemd.
unpack_root bookworm "$work/root"
mknod -m 666 "$work/root/dev/null" c 1 3
# Directories that are not only wsgate's belong to other packages of an rpm distribution.
list() {
    (cd "$work/root" && find . -path ./var/lib/rpm -prune -o \
        \( ! -type d -o -path '*wsgate*' \) -print | LC_ALL=C sort)
}
rpm_in_root() { rpm --root "$work/root" --dbpath /var/lib/rpm "$@"; }
rpm_in_root --initdb
list >"$work/before"
# Debian's rpm warns that Debian has packages of its own.
rpm_in_root --install --nodeps "$rpm" 2>/dev/null || fail "the rpm is not installed"
hello=/usr/share/doc/wsgate/examples/cgi-bin/hello.wsgi
# A mount namespace of its own, for /proc.
answer=$(unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot "$1" wsgate call "$2"' \
    - "$work/root" "$hello")
[ "$answer" = "Hello from WSGI" ] || fail "the rpm's wsgate answers: $answer"
find "$work/root" -name __pycache__ -path '*/examples/*' -prune -exec rm -rf {} +
rpm_in_root --erase wsgate
list | diff "$work/before" - || fail "the rpm leaves files"
say "passed"
