# A root of a distribution, booted by systemd in a container. `root` is its directory, `suite` its
# name; `$work/packages` is mounted at /mnt.

# Boots the root with systemd, with loopback as its only network.
boot() {
    local unit=()
    [ -d /run/systemd/system ] || unit=(--keep-unit)
    # systemd 256 and later ask for leave to run with the first version of cgroups.
    systemd-nspawn --quiet --directory="$root" --boot --private-network --register=no "${unit[@]}" \
        --machine="wsgate-$suite" --bind-ro="$work/packages:/mnt" --console=pipe \
        SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.show_status=0 \
        </dev/null >"$work/$suite.console" 2>&1 &
    nspawn=$!
    await "the first process of the root" first_process
    await "systemd" systemd_runs
}
first_process() { leader=$(pgrep -P "$nspawn") && [ -n "$leader" ]; }
systemd_runs() {
    local state
    state=$(inside systemctl is-system-running 2>/dev/null || true)
    [ "$state" = running ] || [ "$state" = degraded ]
}

shut_down() {
    [ -n "${nspawn:-}" ] || return 0
    kill -KILL "$leader" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
    nspawn=
}
undo+=(shut_down)

# Runs a command in the booted root.
inside() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid --root \
        env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive "$@"
}

# Waits until a command succeeds, for a minute.
await() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || {
            tail -n 20 "$work/$suite.console" >&2
            fail "$suite: no $what after a minute"
        }
        read -r -t 0.1 <> <(:) || true
    done
}
