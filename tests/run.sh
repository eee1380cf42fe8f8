#!/bin/sh
# Runs a program of this tree for cargo. Tests get the environment of a new user in every shell.
case $1 in */deps/*) ;; *) exec "$@" ;; esac

# Variables that Python, pip, curl, wsgate, service managers and frameworks read. WSGATE_TEST_…
# are variables of the tests.
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in
        WSGATE_TEST_*) ;;
        PYTHON* | PIP_* | VIRTUAL_ENV | WSGATE_*) unset "$name" ;;
        DJANGO_* | FLASK_* | OPENBLAS_* | OMP_*) unset "$name" ;;
        LANG | LANGUAGE | LC_* | TZ | COLUMNS | LINES | NO_COLOR | CLICOLOR*) unset "$name" ;;
        *_proxy | *_PROXY | CURL_HOME) unset "$name" ;;
        NOTIFY_SOCKET | LISTEN_* | WATCHDOG_* | XDG_*) unset "$name" ;;
        GATEWAY_INTERFACE | SERVER_* | SCRIPT_* | REQUEST_*) unset "$name" ;;
        REDIRECT_* | REMOTE_* | HTTP_* | QUERY_STRING) unset "$name" ;;
    esac
done

# Servers of other users read what tests write.
umask 022
# Some web servers cannot start a script whose path has a space.
case ${TMPDIR-} in *[!A-Za-z0-9/._-]*) unset TMPDIR ;; esac

# `nohup` and a shell's background jobs leave signals ignored; tests send these.
exec env --default-signal=HUP,INT,QUIT,TERM,PIPE "$@"
