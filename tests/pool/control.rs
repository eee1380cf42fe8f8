//! Commands to a pool, and their protection against hostile requests and applications.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Stdio,
};

use rustix::process::{Signal, geteuid};

use crate::{
    messages::visible::hides,
    pool::{ECHO, only_log_message},
    support::{
        child_process::run, fastcgi_client::FastcgiRequest, pool::PoolSetup, waiting::DEADLINE,
    },
};

#[test]
fn no_byte_of_a_request_reaches_the_terminal_of_a_status_command() {
    let pool = PoolSetup::new(ECHO).start();
    let request = FastcgiRequest::get("/")
        .without("REQUEST_URI")
        .param("REQUEST_URI", "/\x1b[2J\r\n  4711 busy\u{202e}\u{2028}\u{9b}");
    pool.ask(&request);
    for args in [&["status", "app"][..], &["status", "--json"]] {
        let reported = pool.run_wsgate(args).text();
        assert!(!hides(&reported) && reported.contains("202e"), "{reported:?}");
        assert!(
            reported.contains("[2J") && !reported.lines().any(|line| line.starts_with("  4711")),
            "{reported:?}"
        );
    }
    pool.stop();
}

#[test]
fn silent_connections_and_noise_on_the_control_socket_delay_no_answer() {
    let pool = PoolSetup::new(ECHO).start();
    let control = pool.setup().path("run/app.pool");
    let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(&control).unwrap()).collect();
    for noise in [&b"stat"[..], b"\0\xff\xfe", b"status\nstop\n", &[b'x'; 4096]] {
        UnixStream::connect(&control).unwrap().write_all(noise).unwrap();
    }
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    drop(silent);
    pool.stop();
}

#[test]
fn a_hundred_commands_at_once_are_all_answered() {
    let pool = PoolSetup::new(ECHO).start();
    let control = pool.setup().path("run/app.pool");
    // All commands arrive before the supervisor continues.
    pool.signal(Signal::STOP);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(&control).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"status\n").unwrap();
            stream
        })
        .collect();
    pool.signal(Signal::CONT);
    for mut stream in asking {
        let mut status = String::new();
        stream.read_to_string(&mut status).unwrap();
        assert!(status.contains("\"app\""), "{status}");
    }
    pool.stop();
}

#[test]
fn an_application_cannot_cut_the_memory_that_its_supervisor_looks_at() {
    let pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            cut = 0
            for name in os.listdir('/proc/self/fd'):
                try:
                    if 'scoreboard' in os.readlink('/proc/self/fd/' + name):
                        os.ftruncate(int(name), 0)
                        cut += 1
                except OSError:
                    pass
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'%d cut' % cut]
        ",
    )
    .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "0 cut");
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "0 cut");
    pool.stop();
}

#[test]
fn a_worker_whose_application_closes_all_descriptors_is_replaced_with_a_log_message() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/close':
                os.closerange(0, 4096)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'served']
        ",
    )
    .start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/close").bytes());
    assert!(!matches!(connection.try_response(), Ok(Some(_))));
    pool.await_log("W0701");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "served");
    pool.stop();
}

#[test]
fn times_out_of_range_and_invalid_names_are_refused() {
    let far = u64::MAX.to_string();
    let args: [[&str; 2]; 7] = [
        ["--drain", &far],
        ["--slow", &far],
        ["--timeout", &far],
        ["--max-age", &far],
        ["--name", "two\nlines"],
        ["--name", "../app"],
        ["--name", ""],
    ];
    for args in args {
        let setup = PoolSetup::new(ECHO).args(&args);
        let ended = run(setup.command().stdin(Stdio::piped()), "");
        assert_eq!(ended.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(args[0]), "{args:?}: {}", ended.stderr);
    }
    // The largest time that every clock can represent.
    let longest = u32::MAX.to_string();
    let pool = PoolSetup::new(ECHO)
        .args(&["--drain", &longest, "--slow", &longest, "--timeout", &longest])
        .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    pool.stop();
}

#[test]
fn a_pool_without_a_directory_for_its_control_socket_logs_it_and_serves() {
    let setup = PoolSetup::new(ECHO);
    fs::create_dir_all(setup.path("run/app.pool")).unwrap();
    fs::set_permissions(setup.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let pool = setup.start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    assert_eq!(
        fs::read_dir(pool.setup().path("run")).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let log = pool.stop();
    let message = only_log_message(&log, "W0730");
    assert!(message.contains("/run/app.pool`: "), "{message}");

    let nowhere = PoolSetup::new(ECHO).variable("WSGATE_RUNTIME_DIR", "/nonexistent/run");
    let log = nowhere.start().stop();
    assert!(
        only_log_message(&log, "W0730").contains("`/nonexistent/run` cannot be created: "),
        "{log}"
    );
}

/// What is at the path of the runtime directory, and the hint.
type Misfit = (fn(&Path), &'static str);

#[test]
fn the_hint_about_a_missing_control_socket_follows_the_cause() {
    let misfits: [Misfit; 4] = [
        (|path| fs::create_dir_all(path.join("open")).unwrap(), "hint: close the directory: chmod"),
        (|path| fs::write(path, "").unwrap(), "hint: remove `"),
        (|path| symlink("/tmp", path).unwrap(), "hint: remove `"),
        (
            |path| {
                let mut private = fs::DirBuilder::new();
                private.mode(0o700).create(path).unwrap();
                let socket = path.join("app.pool");
                let listener = UnixListener::bind(socket).unwrap();
                // Open until the tests end.
                std::mem::forget(listener);
            },
            "hint: give this pool another name with --name;",
        ),
    ];
    for (make, hint) in misfits {
        let setup = PoolSetup::new(ECHO);
        make(&setup.path("run"));
        let log = setup.start().stop();
        only_log_message(&log, "W0730");
        assert!(log.contains(hint) && log.contains("SIGHUP reloads the pool"), "{hint}: {log}");
    }
    if !geteuid().is_root() {
        return;
    }
    let setup = PoolSetup::new(ECHO);
    fs::create_dir(setup.path("run")).unwrap();
    chown(setup.path("run"), Some(65534), None).unwrap();
    let log = setup.start().stop();
    only_log_message(&log, "W0730");
    assert!(log.contains("65534"), "{log}");
}
