#!/usr/bin/env bash
# The container image, on a base made here, since no registry is needed for that: the image of an
# application, nginx beside it, health check, drain.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || fail "needs root, for containers with a storage of their own"
deb=$(artefact '*.deb')
container=packaging/container
mkdir "$work/context" "$work/shop" "$work/run"
cp "$deb" "$work/context"
dpkg-deb -x "$deb" "$work/files"
nofile=$(ulimit -Hn)

# All images and containers of the test are below its directory.
podman() {
    command podman --root "$work/storage" --runroot "$work/run" --runtime runc \
        --events-backend file --log-level fatal "$@"
}
remove_containers() {
    podman rm --all --force --time 0 >/dev/null 2>&1
    umount "$work/storage/overlay" 2>/dev/null
}
undo+=(remove_containers)
# A container without network. Podman's own limits may be above those of the test.
start() {
    local name=$1
    shift
    podman run --detach --name "$name" --network none \
        --ulimit nofile="$nofile:$nofile" --ulimit nproc=4096:4096 "$@" >/dev/null
}
await() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || {
            podman logs app >&2 || true
            fail "no $what after a minute"
        }
        read -r -t 0.2 <> <(:) || true
    done
}

archive=$(root_archive bookworm)
podman import --quiet "$archive" localhost/base >/dev/null
build() { podman build --quiet --format docker --network host "$@" >/dev/null; }
build --build-arg BASE=localhost/base -t wsgate -f "$container/Containerfile" "$work/context" ||
    fail "the image is not built"

# The image of an application, as in docs/containers.md.
sed -n '/^```Dockerfile$/,/^```$/p' docs/containers.md | grep -v '^```' >"$work/shop/Containerfile"
[ -s "$work/shop/Containerfile" ] || fail "the page has no image of an application"
touch "$work/shop/requirements.txt"
cat >"$work/shop/app.wsgi" <<'PY'
import os
import time


def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"].partition("=")[2] or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Hello from user {os.getuid()} in {os.environ.get('VIRTUAL_ENV', '')}\n".encode()]
PY
build -t shop "$work/shop" || fail "the image of an application is not built"

# The default command: TCP. The client is in the container's network, and outlives the container.
start app shop
call() {
    nsenter --target "$(podman inspect --format '{{.State.Pid}}' app)" --net \
        "$work/files/usr/bin/wsgate" call --via 127.0.0.1:9000 "$@"
}
await "response over TCP" call /
[[ $(call /) == "Hello from user 10001 "* ]] || fail "the application answers: $(call /)"
podman healthcheck run app || fail "the container is not healthy"
podman exec app wsgate reload app || fail "the pool does not reload"
[ "$(podman image inspect --format '{{.Config.StopSignal}}' wsgate)" = SIGTERM ] ||
    fail "the image does not stop by SIGTERM"

# A stop drains: the running request completes, and the pool exits with 0.
call '/?sleep=5' >"$work/slow" 2>&1 &
slow=$!
is_busy() { podman exec app wsgate status app --json | grep -q '/?sleep=5'; }
await "busy worker" is_busy
podman stop --time 40 app >/dev/null
wait "$slow" || true
state=$(podman inspect --format '{{.State.ExitCode}}' app)
[ "$state" = 0 ] || fail "the stopped container exited with $state"
[[ $(cat "$work/slow") == "Hello from user"* ]] ||
    fail "the stop cut a request: $(cat "$work/slow")"
podman rm app >/dev/null

# The command of compose.yaml, with nginx in a container beside it: they share the socket only.
command=$(sed -n 's/^    command: //p' "$container/compose.yaml")
[ -n "$command" ] || fail "compose.yaml has no command"
podman volume create sockets >/dev/null
# The words of the command are its arguments.
start app --init --read-only --tmpfs /tmp --volume sockets:/run/wsgate shop $command
await "healthy pool" podman healthcheck run app
start web --volume sockets:/run/wsgate \
    --volume "$PWD/$container/nginx.conf:/etc/nginx/sites-enabled/default:ro" \
    --volume "$PWD/web-servers/nginx.conf:/etc/nginx/wsgate.conf:ro" \
    localhost/base nginx -g 'daemon off;'
fetch() {
    podman exec web python3 -c '
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1" + sys.argv[1], timeout=60).read().decode())' "$1"
}
await "response through nginx" fetch /
fetch '/?sleep=5' >"$work/slow" 2>&1 &
slow=$!
await "busy worker" is_busy
podman stop --time 40 app >/dev/null
wait "$slow" || true
[[ $(cat "$work/slow") == "Hello from user"* ]] ||
    fail "the stop cut a request behind nginx: $(cat "$work/slow")"
say "passed"
