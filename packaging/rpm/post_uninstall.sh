# A pool keeps the build that it was started with. Restart the running pools after an upgrade: their
# sockets belong to systemd, so clients wait meanwhile, and no request is lost.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    if [ "$1" -ge 1 ]; then
        systemctl try-restart 'wsgate@*.service' wsgate-monitor.service >/dev/null 2>&1 || :
    fi
fi
# rpm removes the files, and leaves the directories that it created for them.
if [ "$1" -eq 0 ]; then
    examples=/usr/share/doc/wsgate/examples
    rmdir $examples/cgi-bin/djangosite/notes/migrations $examples/cgi-bin/djangosite/notes \
        $examples/cgi-bin/djangosite $examples/cgi-bin $examples/apache $examples/web-servers \
        $examples /usr/share/doc/wsgate /usr/share/licenses/wsgate /usr/lib/wsgate \
        /etc/wsgate/pools /etc/wsgate \
        2>/dev/null || :
fi
