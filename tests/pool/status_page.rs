//! The status page and the ping of a pool: FastCGI requests at `--status-listen`, which the
//! supervisor answers.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    pool::{ECHO, GATED, Pool, PoolSetup},
    support::{
        child_process::RunningProcess,
        fastcgi_client::{FastcgiConnection, FastcgiRequest, FastcgiResponse},
        pool::signal,
        web_servers::eventually,
    },
};

/// The setup of a pool with a status page beside its application.
fn with_status(setup: PoolSetup) -> PoolSetup {
    let address = format!("unix:{}", socket_of(&setup).display());
    setup.args(&["--status-listen", &address, "--status-path", "/status", "--ping-path", "/ping"])
}

fn socket_of(setup: &PoolSetup) -> PathBuf {
    setup.path("status.sock")
}

fn ask(pool: &Pool, path: &str, query: &str) -> FastcgiResponse {
    let request = FastcgiRequest::get(path).param("QUERY_STRING", query);
    FastcgiConnection::unix(&socket_of(pool.setup())).ask(&request)
}

fn json(response: &FastcgiResponse) -> Value {
    serde_json::from_str(&response.text()).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

#[test]
fn status_and_ping_are_answered_within_10_ms_while_every_worker_is_stopped() {
    let pool = with_status(PoolSetup::new(ECHO).args(&["--workers", "3"])).start();
    let workers = pool.loaded_workers(3);
    workers.iter().for_each(|worker| signal(*worker, Signal::STOP));
    for (path, query) in [("/status", "json&full"), ("/ping", "")] {
        // Another process of a busy machine may delay some of them.
        let fastest = (0..50).map(|_| {
            let begun = Instant::now();
            assert_eq!(ask(&pool, path, query).valid().status, 200, "{path}");
            begun.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(fastest < Duration::from_millis(10), "{path}: {fastest:?}");
    }
    assert_eq!(ask(&pool, "/ping", "").text(), "pong");
    let status = json(&ask(&pool, "/status", "json&full"));
    assert_eq!((&status["name"], status["workers"].as_array().unwrap().len()), (&"app".into(), 3));
    assert!(json(&ask(&pool, "/status", "json"))["workers"].is_null());
    workers.iter().for_each(|worker| signal(*worker, Signal::CONT));
    pool.stop();
}

#[test]
fn the_text_has_the_fields_of_the_json_and_shows_no_request_unless_asked_for_all() {
    let mut pool = with_status(PoolSetup::new(GATED).gated()).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow?\u{1b}[2J\nname: forged").bytes());
    pool.await_log("at the gate");
    let short = ask(&pool, "/status", "").text();
    assert!(short.contains("\nname: app\n") && short.contains("\nbusy: 1\n"), "{short}");
    assert!(!short.contains("/slow") && !short.contains("workers."), "{short}");
    let full = ask(&pool, "/status", "full").text();
    let target = "\nworkers.request.target: /slow?\\u{1b}[2J\\nname: forged\n";
    assert!(full.contains(target) && full.contains("\nworkers.busy: true\n"), "{full}");
    assert!(!full.contains('\u{1b}'), "{full}");
    pool.open_gate();
    assert!(slow.response().text().starts_with("/slow"));
    pool.stop();
}

#[test]
fn the_addresses_of_the_application_never_show_the_status() {
    let pool = with_status(PoolSetup::new(ECHO)).start();
    for path in ["/status", "/ping"] {
        assert_eq!(pool.ask(&FastcgiRequest::get(path)).text(), format!("{path}|"));
    }
    for path in ["/", "/status/", "//status", "/status/x", "/STATUS"] {
        assert_eq!(ask(&pool, path, "").valid().status, 404, "{path}");
    }
    let connect = || FastcgiConnection::unix(&socket_of(pool.setup()));
    let post = FastcgiRequest::get("/status").param("REQUEST_METHOD", "POST");
    assert_eq!(connect().ask(&post).valid().status, 405);
    let head = FastcgiRequest::get("/status").param("REQUEST_METHOD", "HEAD");
    let head = connect().ask(&head);
    assert!(head.stdout.ends_with(b"\r\n\r\n"), "{head:?}");
    // Where a web server splits the path, as for an application below a URL path.
    let split = FastcgiRequest::get("").param("SCRIPT_NAME", "/status");
    assert_eq!(connect().ask(&split).valid().status, 200);
    pool.stop();
}

#[test]
fn a_ping_gets_503_while_no_worker_serves_or_the_pool_stops() {
    let mut pool = with_status(PoolSetup::new(GATED).gated())
        .args(&["--ping-response", "alive: app", "--preload", "no"])
        .start();
    assert_eq!(ask(&pool, "/ping", "").text(), "alive: app");
    let slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.signal(Signal::TERM);
    eventually("the ping fails while the last request is finished", || {
        ask(&pool, "/ping", "").valid().status == 503
    });
    pool.open_gate();
    drop(slow);
    let (_, setup) = pool.end_and_leave();
    assert!(!socket_of(&setup).exists(), "the socket is removed");
    let loading = with_status(PoolSetup::new("import time; time.sleep(1000)")).launch();
    eventually("the status socket is there", || socket_of(loading.setup()).exists());
    assert_eq!(ask(&loading, "/ping", "").valid().status, 503);
    assert_eq!(json(&ask(&loading, "/status", "json"))["loading"], true);
}

#[test]
fn a_pool_that_rests_is_alive() {
    let pool = with_status(PoolSetup::new(ECHO).dynamic(&["--max", "2", "--idle", "1"])).start();
    eventually("the pool rests", || json(&ask(&pool, "/status", "json"))["resting"] == true);
    assert_eq!(ask(&pool, "/ping", "").text(), "pong");
    pool.stop();
}

#[test]
fn clients_that_send_nothing_too_much_or_garbage_harm_no_other() {
    let pool = with_status(PoolSetup::new(ECHO)).start();
    let socket = socket_of(pool.setup());
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0xff; 4096]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(garbage).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let large = FastcgiRequest::get("/status").param("X", "x".repeat(100_000));
    assert_eq!(FastcgiConnection::unix(&socket).ask(&large).valid().status, 400);
    assert_eq!(ask(&pool, "/ping", "").text(), "pong");
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    drop(silent);
    pool.stop();
}

/// nginx with the location that `docs/inspect.md` shows, and the application for all other paths.
fn nginx(directory: &Path) -> (RunningProcess, PathBuf) {
    let (run, http) = (directory.display(), directory.join("http.sock"));
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {run}/{what};"))
        .concat();
    let text = format!(
        "daemon off; master_process off; pid {run}/nginx.pid; error_log stderr;
        events {{ }}
        http {{
            access_log off; {temporary}
            server {{
                listen unix:{};
                include /etc/nginx/fastcgi_params;
                location / {{ fastcgi_pass unix:{run}/app.sock; }}
                location = /status {{ fastcgi_pass unix:{run}/status.sock; }}
                location = /ping {{ fastcgi_pass unix:{run}/status.sock; }}
            }}
        }}",
        http.display()
    );
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).args(["-e", "stderr", "-c"]).arg(configuration);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let running = RunningProcess::start(&mut command);
    eventually("nginx listens", || UnixStream::connect(&http).is_ok());
    (running, http)
}

fn get(http: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(http).unwrap();
    stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn nginx_and_cgi_fcgi_get_the_status_and_the_application_the_rest() {
    let pool = with_status(PoolSetup::new(ECHO)).start();
    let (_nginx, http) = nginx(&pool.setup().path(""));
    let status = get(&http, "/status?json");
    assert!(status.starts_with("HTTP/1.1 200 OK\r\n"), "{status}");
    assert!(status.contains("\r\nContent-Type: application/json\r\n"), "{status}");
    let body = status.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["name"], "app");
    assert!(get(&http, "/ping").ends_with("\r\n\r\npong"));
    // nginx decodes the path before it chooses the location.
    assert!(get(&http, "/%70ing").ends_with("\r\n\r\npong"));
    assert!(get(&http, "/other").ends_with("|"), "{}", get(&http, "/other"));
    let mut command = Command::new("cgi-fcgi");
    command.args(["-bind", "-connect"]).arg(socket_of(pool.setup())).env_clear();
    command.env("REQUEST_METHOD", "GET").env("SCRIPT_NAME", "/ping").env("QUERY_STRING", "");
    let output = command.output().expect("cgi-fcgi: run tests/setup.sh");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Status: 200 OK\r\n") && text.ends_with("\r\n\r\npong"), "{text}");
    pool.stop();
}

#[test]
fn the_page_outlives_an_upgrade_and_a_reload() {
    let pool = with_status(PoolSetup::new(ECHO)).start();
    for command in [&["reload", "app"][..], &["reload", "--binary", "app"]] {
        let ended = pool.run_wsgate(command);
        assert_eq!(ended.code(), Some(0), "{command:?}: {}{}", ended.stderr, pool.log());
        assert_eq!(ask(&pool, "/ping", "").text(), "pong", "{command:?}");
    }
    pool.stop();
}

#[test]
fn options_without_an_effect_and_wrong_values_are_refused() {
    let pool = PoolSetup::new(ECHO).start();
    for (args, reason) in [
        (&["--status-path", "/status"][..], "--status-listen"),
        (&["--status-listen", "unix:/nowhere/s"], "needs --status-path or --ping-path"),
        (
            &["--status-listen", "unix:/s", "--status-path", "/a", "--ping-path", "/a"],
            "--status-path and --ping-path are both `/a`",
        ),
        (
            &["--listen", "127.0.0.1:9", "--listen", "127.0.0.1:9"],
            "--listen names `127.0.0.1:9` twice",
        ),
        (
            &["--listen", "unix:/s", "--status-listen", "unix:/s", "--ping-path", "/a"],
            "--status-listen names `unix:/s`, where --listen of this pool listens",
        ),
        (&["--status-listen", "fd:3", "--ping-path", "/ping"], "unix:/run/status.sock"),
        (&["--status-listen", "unix:/s", "--ping-path", "ping"], "such as /status"),
        (&["--status-listen", "unix:/s", "--status-path", "/a?json"], "such as /status"),
        (&["--status-listen", "unix:/s", "--status-path", "/a", "--ping-response", "x"], "ping"),
    ] {
        let ended = pool.run_wsgate(&[&["fastcgi", "app.wsgi"], args].concat());
        assert_eq!(ended.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(reason), "{args:?}: {}", ended.stderr);
    }
    pool.stop();
}
