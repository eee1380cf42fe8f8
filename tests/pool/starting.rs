//! How a pool or a lone worker comes by its sockets (FastCGI 1.0, 2.2, 2.3).

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        assertions::{codes, complete_response},
        child_process::{RunningProcess, piped, run},
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        install_dir::InstallDir,
        pool::{Pool, PoolSetup, children, signal},
        probe::python,
    },
};

/// A script that FastCGI's process managers and web servers execute by its path.
fn script(dir: &InstallDir) -> std::path::PathBuf {
    let first_line = format!("#!WSGATE --python {}", python().display());
    let code = "
        import os, sys
        def application(environ, start_response):
            print('printed')
            print('complained', file=sys.stderr)
            environ['wsgi.errors'].write('logged\\n')
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [environ['PATH_INFO'].encode('latin-1'), b'|' + environ['wsgi.input'].read()]
        ";
    dir.script("cgi-bin/app.fcgi", &first_line, code)
}

/// `script`, with nothing but a path among its variables.
fn bare(script: &Path) -> Command {
    let mut command = Command::new(script);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn f01_a_script_with_a_listening_socket_on_descriptor_0_is_a_worker_even_if_1_and_2_are_closed() {
    let dir = InstallDir::new();
    let script = script(&dir);
    let path = dir.path("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" >&- 2>&-"])
        .arg(&script)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = RunningProcess::start(&mut command);
    let mut connection = FastcgiConnection::unix(&path);
    // Printed output must not reach the connection or the listening socket.
    for _ in 0..3 {
        assert_eq!(connection.ask(&FastcgiRequest::post("/x", "body").keep()).text(), "/x|body");
    }
    let worker = connection.ask(&FastcgiRequest::get("/").keep()).pid();
    for number in 0..3 {
        let open = fs::read_link(format!("/proc/{worker}/fd/{number}")).unwrap();
        assert_eq!(open, Path::new("/dev/null"), "descriptor {number}");
    }
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn f02_a_listening_socket_means_fastcgi_and_anything_else_a_cgi_request_or_a_shell() {
    let dir = InstallDir::new();
    let script = script(&dir);
    let path = dir.path("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Web servers that know nothing of FastCGI's rules have their own variables set while they
    // start it.
    let mut command = bare(&script);
    dir.describe(&mut command, &script);
    piped(&mut command).stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let running = RunningProcess::start(&mut command);
    assert_eq!(
        FastcgiConnection::unix(&path).ask(&FastcgiRequest::get("/fastcgi")).text(),
        "/fastcgi|"
    );
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
    // A socket that is connected has a peer.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = dir.request(&script);
    command.env("PATH_INFO", "/cgi").stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    let running = RunningProcess::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(complete_response(&running.end().stdout).body, b"/cgi|");
    drop(ours);
    // No socket at all.
    let ended = run(dir.request(&script).env("PATH_INFO", "/pipe"), "");
    assert_eq!(complete_response(&ended.stdout).body, b"/pipe|");
    let ended = run(&mut bare(&script), "");
    assert!(ended.text().ends_with('|'), "{ended:?}");
}

/// Addresses in the line that says that the pool serves.
fn addresses(log: &str) -> Vec<String> {
    let line = log.lines().find(|line| line.contains("W0710")).unwrap();
    line.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn f03_a_pool_listens_at_unix_ipv4_and_ipv6_sockets_alike() {
    let setup = PoolSetup::new(ECHO);
    let unix = format!("unix:{}", setup.path("app.sock").display());
    let pool = setup.listen(&[&unix, "127.0.0.1:0", "[::1]:0"]).start();
    let [first, ipv4, ipv6] = &addresses(&pool.log())[..] else { panic!("{}", pool.log()) };
    assert_eq!(first, &unix);
    assert!(ipv4.starts_with("127.0.0.1:") && ipv6.starts_with("[::1]:"), "{ipv4} {ipv6}");
    for (connect, path) in [
        (Box::new(|| pool.connect()) as Box<dyn Fn() -> FastcgiConnection>, "/unix"),
        (Box::new(|| FastcgiConnection::tcp(ipv4)), "/ipv4"),
        (Box::new(|| FastcgiConnection::tcp(ipv6)), "/ipv6"),
    ] {
        assert_eq!(
            connect().ask(&FastcgiRequest::post(path, "body")).text(),
            format!("{path}|body")
        );
        let mut kept = connect();
        for _ in 0..2 {
            assert_eq!(kept.ask(&FastcgiRequest::get(path).keep()).text(), format!("{path}|"));
        }
    }
    pool.stop();
}

#[test]
fn f03_a_lone_worker_serves_a_socket_of_any_family_on_descriptor_0() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let pool = PoolSetup::new(ECHO).start_on(listener);
        assert_eq!(
            FastcgiConnection::tcp(&address).ask(&FastcgiRequest::post("/", "body")).text(),
            "/|body"
        );
        pool.stop();
    }
}

#[test]
fn a_pool_that_other_machines_can_reach_starts_with_a_warning() {
    for (address, expected) in
        [("0.0.0.0:0", vec!["W0734"]), ("[::1]:0", vec![]), ("localhost:0", vec![])]
    {
        let log = PoolSetup::new(ECHO).listen(&[address]).start().stop();
        assert_eq!(codes(&log), expected, "{log}");
    }
}

#[test]
fn f04_only_listed_web_servers_may_connect() {
    let start = |list: &str| {
        let pool = PoolSetup::new(ECHO)
            .listen(&["127.0.0.1:0"])
            .variable("FCGI_WEB_SERVER_ADDRS", list)
            .start();
        let address = addresses(&pool.log()).remove(0);
        (pool, address)
    };
    let (pool, address) = start("192.0.2.1,127.0.0.1");
    assert_eq!(
        FastcgiConnection::tcp(&address).ask(&FastcgiRequest::get("/listed")).text(),
        "/listed|"
    );
    pool.stop();
    let (pool, address) = start("192.0.2.1,127.0.0.2");
    for _ in 0..3 {
        FastcgiConnection::tcp(&address).assert_closed();
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0405", "W0405"], "{log}");
    assert!(
        log.contains("from `127.0.0.1` was closed: FCGI_WEB_SERVER_ADDRS does not list it"),
        "{log}"
    );
    assert!(log.contains("this or the like, 2 times since the last message"), "{log}");
}

#[test]
fn f04_a_list_of_addresses_and_unix_sockets_alone_are_refused_at_the_start() {
    let setup = |args: &[&str]| {
        PoolSetup::new(ECHO).args(args).variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.1")
    };
    let socket = UnixListener::bind(setup(&[]).path("lone.sock")).unwrap();
    let by_option = PoolSetup::new(ECHO).args(&["--env", "FCGI_WEB_SERVER_ADDRS=127.0.0.1"]);
    for pool in [setup(&[]).launch(), by_option.launch(), setup(&[]).start_on(socket)] {
        let ended = pool.end();
        assert_eq!(ended.code(), Some(78), "{ended:?}");
        assert_eq!(codes(&ended.stderr), ["W0105"], "{}", ended.stderr);
        assert!(ended.stderr.contains("a Unix socket"), "{}", ended.stderr);
    }
    let both = setup(&[]);
    let unix = format!("unix:{}", both.path("app.sock").display());
    let pool = both.listen(&[&unix, "127.0.0.1:0"]).start();
    let tcp =
        addresses(&pool.log()).into_iter().find(|address| address.starts_with("127.")).unwrap();
    assert_eq!(
        FastcgiConnection::tcp(&tcp).ask(&FastcgiRequest::get("/listed")).text(),
        "/listed|"
    );
    let log = pool.stop();
    assert!(only_log_message(&log, "W0725").contains("a Unix socket"), "{log}");
}

#[test]
fn f04_an_invalid_address_list_admits_no_client_and_is_logged() {
    let setup = PoolSetup::new(ECHO)
        .listen(&["127.0.0.1:0"])
        .variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.1,localhost");
    let mut pool = setup.start();
    FastcgiConnection::tcp(&addresses(&pool.log())[0]).assert_closed();
    pool.await_log("hint: ");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0105", "W0405"], "{log}");
    assert!(log.contains("contains `localhost`, which is not an address"), "{log}");
}

/// The pool's worker, which is the process that was started.
#[track_caller]
fn lone(pool: &Pool) -> i32 {
    assert_eq!(children(pool.pid()), [0; 0]);
    pool.pid()
}

#[test]
fn f45_a_lone_worker_that_is_asked_to_stop_exits_with_0_and_one_that_crashes_does_not() {
    let code = "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/crash':
                os.kill(os.getpid(), 11)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'fine']
        ";
    for (path, code_at_end) in [("/fine", Some(0)), ("/crash", None)] {
        let setup = PoolSetup::new(code);
        let socket = setup.path("app.sock");
        let pool = setup.start_on(UnixListener::bind(&socket).unwrap());
        let mut connection = FastcgiConnection::unix(&socket);
        connection.send(&FastcgiRequest::get(path).bytes());
        if path == "/fine" {
            assert_eq!(connection.response().text(), "fine");
            signal(lone(&pool), Signal::TERM);
        } else {
            assert!(connection.try_response().is_ok_and(|response| response.is_none()));
        }
        assert_eq!(pool.end().code(), code_at_end);
    }
}

#[test]
fn f45_a_lone_worker_whose_application_cannot_be_loaded_logs_it_and_exits() {
    let setup = PoolSetup::new("import there_is_no_such_module");
    let socket = setup.path("app.sock");
    let pool = setup.start_on(UnixListener::bind(&socket).unwrap());
    assert_eq!(FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/")).valid().status, 500);
    let ended = pool.end();
    assert_eq!(ended.code(), Some(0));
    only_log_message(&ended.stderr, "W0302");
}

#[test]
fn f46_a_lone_worker_with_idle_connections_exits_at_once_when_asked_to_stop() {
    let setup = PoolSetup::new(ECHO);
    let socket = setup.path("app.sock");
    let pool = setup.start_on(UnixListener::bind(&socket).unwrap());
    let mut kept = FastcgiConnection::unix(&socket);
    kept.ask(&FastcgiRequest::get("/").keep());
    let mut silent = FastcgiConnection::unix(&socket);
    // Taken by the worker for certain: its connections are served in their order.
    FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/"));
    let begin = std::time::Instant::now();
    signal(lone(&pool), Signal::TERM);
    kept.assert_closed();
    silent.assert_closed();
    assert_eq!(pool.end().code(), Some(0));
    // Process managers kill after three seconds.
    assert!(begin.elapsed().as_secs() < 2, "{:?}", begin.elapsed());
}

#[test]
fn f46_a_lone_worker_that_is_asked_to_stop_finishes_its_request() {
    let setup = PoolSetup::new(super::GATED).gated();
    let socket = setup.path("app.sock");
    let mut pool = setup.start_on(UnixListener::bind(&socket).unwrap());
    let mut connection = FastcgiConnection::unix(&socket);
    connection.send(&FastcgiRequest::post("/slow", "body").keep().bytes());
    pool.await_log("at the gate");
    signal(lone(&pool), Signal::TERM);
    pool.open_gate();
    assert_eq!(connection.response().text(), "/slow|body");
    connection.assert_closed();
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn f55_a_socket_has_the_requested_mode_and_is_removed_with_its_pool() {
    for (args, mode) in
        [(&[][..], 0o660), (&["--socket-mode", "600"], 0o600), (&["--socket-mode", "666"], 0o666)]
    {
        let pool = PoolSetup::new(ECHO).args(args).start();
        assert_eq!(fs::metadata(pool.socket()).unwrap().permissions().mode() & 0o777, mode);
        let mut found: Vec<_> = fs::read_dir(pool.socket().parent().unwrap()).unwrap().collect();
        found.retain(|entry| entry.as_ref().unwrap().file_name() != "run");
        assert_eq!(found.len(), 2, "application and socket: {found:?}");
        pool.signal(Signal::TERM);
        let (ended, setup) = pool.end_and_leave();
        assert_eq!((ended.code(), setup.path("app.sock").exists()), (Some(0), false));
    }
}

#[test]
fn f55_a_second_pool_does_not_take_the_socket_of_the_first() {
    let first = PoolSetup::new(ECHO).start();
    let ended = run(first.setup().command().stdin(Stdio::piped()), "");
    assert_eq!(ended.code(), Some(78));
    assert!(ended.stderr.contains("error[W0720]"), "{}", ended.stderr);
    assert_eq!(first.ask(&FastcgiRequest::get("/still")).text(), "/still|");
    first.stop();
}

#[test]
fn f55_a_socket_that_a_killed_pool_has_left_is_replaced() {
    let setup = PoolSetup::new(ECHO);
    drop(UnixListener::bind(setup.path("app.sock")).unwrap());
    let pool = setup.start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/new")).text(), "/new|");
    pool.stop();
}

#[test]
fn f55_a_file_at_the_sockets_path_that_is_no_socket_is_left_alone() {
    let setup = PoolSetup::new(ECHO);
    fs::write(setup.path("app.sock"), "precious").unwrap();
    let ended = run(setup.command().stdin(Stdio::piped()), "");
    assert_eq!(ended.code(), Some(78));
    assert!(ended.stderr.contains("error[W0720]"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(setup.path("app.sock")).unwrap(), "precious");
}
