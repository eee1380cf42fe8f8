# At removal, not at an upgrade. The sockets stop first, so that no request starts a pool again.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl stop 'wsgate@*.socket' >/dev/null 2>&1 || :
    systemctl stop 'wsgate@*.service' wsgate-monitor.service >/dev/null 2>&1 || :
    systemctl --no-reload disable wsgate@.socket wsgate@.service wsgate-monitor.service \
        >/dev/null 2>&1 || :
fi
