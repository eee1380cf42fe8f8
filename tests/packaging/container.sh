#!/usr/bin/env bash
# The container image, on a base made here, since no registry is needed for that: the image of an
# application, nginx beside it by TCP and by compose.yaml, health check, drain.
. "$(dirname "$0")/lib.sh"
unset MAKEFLAGS

[ "$(id -u)" = 0 ] || fail "needs root, for containers with a storage of their own"
deb=$(artefact '*.deb')
container=packaging/container
mkdir "$work/bin" "$work/shop" "$work/web" "$work/run"
dpkg-deb -x "$deb" "$work/files"
nofile=$(ulimit -Hn)

# All images and containers of the test are below its directory: make and podman-compose start this
# program, too.
cat >"$work/bin/podman" <<SH
#!/bin/sh
exec $(command -v podman) --root "$work/storage" --runroot "$work/run" --runtime runc \
    --events-backend file --log-level fatal "\$@"
SH
chmod 755 "$work/bin/podman"
PATH=$work/bin:$PATH
remove_containers() {
    podman rm --all --force --time 0 >/dev/null 2>&1
    podman network rm "$network" "${network}_default" >/dev/null 2>&1
    umount "$work/storage/overlay" 2>/dev/null
}
network=wsgate-test-$$
undo+=(remove_containers)
# Podman's own limits may be above those of the test.
limits=(--ulimit "nofile=$nofile:$nofile" --ulimit nproc=4096:4096)
start() {
    local name=$1
    shift
    podman run --detach --name "$name" "${limits[@]}" "$@" >/dev/null
}
await() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || {
            podman logs "$app" >&2 || true
            fail "no $what after a minute"
        }
        read -r -t 0.2 <> <(:) || true
    done
}

# The base is imported under the name that the Containerfile has.
archive=$(root_archive bookworm)
podman import --quiet "$archive" docker.io/library/debian:13-slim >/dev/null
build() { podman build --quiet --format docker --network host "$@" >/dev/null; }
make --no-print-directory container-image >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    fail "make container-image"
}

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
# nginx as compose.yaml takes it from a registry: its image includes conf.d alone.
cat >"$work/web/Containerfile" <<'TEXT'
FROM docker.io/library/debian:13-slim
RUN rm /etc/nginx/sites-enabled/default
CMD ["nginx", "-g", "daemon off;"]
TEXT
nginx=docker.io/library/nginx:stable
build -t "$nginx" "$work/web" || fail "the image of nginx is not built"

# The default command: TCP. The client is in the container's network, and outlives the container.
app=app
podman network create "$network" >/dev/null
start app --network "$network" shop
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

# nginx in a container beside it, with the other upstream of nginx.conf. Not every podman has names
# of containers in its networks.
address="{{(index .NetworkSettings.Networks \"$network\").IPAddress}}"
address=$(podman inspect --format "$address" app)
sed -e '/^    server unix:/d' -e 's/# For the TCP variant: //' "$container/nginx.conf" \
    >"$work/tcp.conf"
grep -q '^    server app:9000;$' "$work/tcp.conf" || fail "nginx.conf has no variant for TCP"
start web --network "$network" --add-host "app:$address" --publish 127.0.0.1::80 \
    --volume "$work/tcp.conf:/etc/nginx/conf.d/default.conf:ro" \
    --volume "$PWD/web-servers/nginx.conf:/etc/nginx/wsgate.conf:ro" "$nginx"
port_of() { podman port "$1" 80 | head -n 1; }
fetch() { curl --silent --fail --max-time 60 "http://$(port_of "$1")$2"; }
await "response through nginx and TCP" fetch web /
[[ $(fetch web /) == "Hello from user 10001 "* ]] || fail "nginx answers: $(fetch web /)"

# A stop drains: the running request completes, and the pool exits with 0.
drains() {
    local web=$1 slow state
    fetch "$web" '/?sleep=5' >"$work/slow" &
    slow=$!
    await "busy worker" is_busy
    podman stop --time 40 "$app" >/dev/null
    wait "$slow" || true
    state=$(podman inspect --format '{{.State.ExitCode}}' "$app")
    [ "$state" = 0 ] || fail "the stopped container exited with $state"
    [[ $(cat "$work/slow") == "Hello from user"* ]] ||
        fail "the stop cut a request behind $web: $(cat "$work/slow")"
}
is_busy() { podman exec "$app" wsgate status app --json | grep -q '/?sleep=5'; }
drains web
podman rm --force --time 0 app web >/dev/null

# compose.yaml as it stands, but for the port, which may be in use here.
mkdir -p "$work/tree/packaging"
cp -R "$container" "$work/tree/packaging"
cp -R web-servers "$work/tree"
compose=$work/tree/$container/compose.yaml
sed -i 's/"8080:80"/"127.0.0.1::80"/' "$compose"
grep -q -F '"127.0.0.1::80"' "$compose" || fail "compose.yaml publishes another port"
tools=$(tests/packaging/tools)
compose() {
    "$tools/bin/podman-compose" --podman-run-args="${limits[*]}" --project-name "$network" \
        --file "$compose" "$@" >>"$work/compose.log" 2>&1 || {
        cat "$work/compose.log" >&2
        fail "podman-compose $*"
    }
}
compose up --detach
app=${network}_app_1
await "healthy pool" podman healthcheck run "$app"
await "response through the web server of compose.yaml" fetch "${network}_web_1" /
drains "${network}_web_1"
compose down --volumes
[ -z "$(podman ps --all --quiet)" ] || fail "podman-compose down leaves containers"
say "passed"
