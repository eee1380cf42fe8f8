//! Processes that the application forks: each is as it would be without wsgate, and nothing of the
//! worker is theirs.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    process::Command,
};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    child_process::run,
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup},
    probe::{Probe, python},
    web_servers::eventually,
};

/// The application, which tells what it found.
pub(crate) const APPLICATION: &str = include_str!("forks.py");

/// The response of the application to `path` in a plain Python process.
pub(crate) fn plainly(path: &str) -> String {
    let ended = run(Command::new(python()).args(["-c", APPLICATION, path]), "");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    ended.text()
}

/// Pools of every kind for the application, each with the number of its threads.
fn pools() -> impl Iterator<Item = (u32, Pool)> {
    let with = |args: &[&str]| PoolSetup::new(APPLICATION).args(args);
    let lone = |args: &[&str]| {
        let setup = with(args);
        let socket = UnixListener::bind(setup.path("app.sock")).unwrap();
        setup.start_on(socket)
    };
    [
        (1, with(&[]).start()),
        (1, with(&["--preload", "no"]).start()),
        (4, with(&["--threads", "4"]).start()),
        (1, lone(&[])),
        (4, lone(&["--threads", "4"])),
    ]
    .into_iter()
}

#[test]
fn a_child_of_the_application_and_its_programs_are_as_those_of_a_plain_process() {
    let plain = plainly("state");
    for (threads, pool) in pools() {
        assert_eq!(pool.ask(&FastcgiRequest::get("/state")).text(), plain, "{threads} threads");
        // The second request finds the state of the first.
        assert_eq!(pool.ask(&FastcgiRequest::get("/state")).text(), plain, "{threads} threads");
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn a_child_of_the_application_is_as_in_a_plain_process_in_cold_cgi_too() {
    for path in ["state", "signals", "exits", "work"] {
        let response = Probe::new(APPLICATION).variable("PATH_INFO", format!("/{path}")).run();
        assert_eq!(response.text(), plainly(path), "{response:?}");
        assert_eq!(codes(&response.log), [""; 0], "{}", response.log);
    }
}

#[test]
fn multiprocessing_works_in_every_worker() {
    for (threads, pool) in pools() {
        for _ in 0..3 {
            assert_eq!(
                pool.ask(&FastcgiRequest::get("/work")).text(),
                "worked",
                "{threads} threads"
            );
        }
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn a_signal_to_a_child_reaches_the_child_alone() {
    let plain = plainly("signals");
    for (threads, pool) in pools() {
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        for _ in 0..3 {
            let answer = pool.ask(&FastcgiRequest::get("/signals"));
            assert_eq!((answer.text(), answer.pid()), (plain.clone(), worker), "{threads} threads");
        }
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn a_child_that_raises_system_exit_has_the_status_that_it_names() {
    for (_, pool) in pools() {
        assert_eq!(pool.ask(&FastcgiRequest::get("/exits")).text(), plainly("exits"));
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn a_child_that_returns_from_the_application_is_named_in_the_log_and_exits() {
    let pool = PoolSetup::new(
        "
        import atexit, os
        atexit.register(lambda: print('exit handler', 'of a child' if IS_CHILD else ''))
        IS_CHILD = False
        def application(environ, start_response):
            global IS_CHILD
            child = os.fork()
            IS_CHILD = not child
            if not child and environ['PATH_INFO'] == '/raises':
                raise ValueError('on purpose')
            status = child and os.waitpid(child, 0)[1]
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield str(status).encode()
        ",
    )
    .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "0");
    assert_eq!(pool.ask(&FastcgiRequest::get("/raises")).text(), "256");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0608", "W0608"], "{log}");
    assert!(log.contains("GET /raises") && log.contains("ValueError: on purpose"), "{log}");
    assert!(log.contains("exit handler") && !log.contains("exit handler of a child"), "{log}");
}

#[test]
fn an_object_that_ends_in_a_child_closes_no_file_of_the_child() {
    for (threads, pool) in pools() {
        let post = FastcgiRequest::get("/reuse").param("REQUEST_METHOD", "POST").body(b"body");
        assert_eq!(pool.ask(&post).text(), "0", "{threads} threads");
        let log = pool.stop();
        assert!(log.contains("a line for the log\n"), "{log}");
    }
}

#[test]
fn children_have_nothing_of_a_worker_whatever_its_other_threads_do() {
    let pool = PoolSetup::new(APPLICATION).args(&["--threads", "4"]).start();
    let socket = pool.socket();
    std::thread::scope(|scope| {
        for kept in [true, true, false, false, false] {
            let socket = &socket;
            scope.spawn(move || {
                let mut connection = FastcgiConnection::unix(socket);
                for _ in 0..40 {
                    let answer = match kept {
                        true => connection.ask(&FastcgiRequest::get("/check").keep()),
                        false => {
                            FastcgiConnection::unix(socket).ask(&FastcgiRequest::get("/check"))
                        }
                    };
                    assert_eq!(answer.text(), "0");
                }
            });
        }
    });
    pool.stop();
}

#[test]
fn a_daemon_that_a_request_has_started_keeps_no_client_and_no_address() {
    for args in
        [&["--threads", "1"][..], &["--threads", "4"], &["--preload", "no"], &["--workers", "2"]]
    {
        let mut pool =
            PoolSetup::new(APPLICATION).gated().args(args).listen(&["127.0.0.1:0"]).start();
        let address = pool.log().split('`').nth(3).unwrap().to_owned();
        let mut kept = pool.connect();
        assert_eq!(kept.ask(&FastcgiRequest::get("/").keep()).text(), "");
        let mut silent = pool.connect();
        assert_eq!(pool.ask(&FastcgiRequest::get("/daemon")).text(), "started");
        pool.await_log("the daemon has 0 sockets");
        pool.signal(Signal::TERM);
        assert!(closed(&mut kept) && closed(&mut silent), "clients are not kept waiting");
        eventually("the socket is closed", || TcpStream::connect(&address).is_err());
        eventually("the address is free", || TcpListener::bind(&address).is_ok());
        pool.open_gate();
        pool.end();
    }
}

#[test]
fn programs_that_an_import_has_started_are_no_workers() {
    let code = "
        import os, signal, subprocess
        programs = [subprocess.Popen(['sleep', '1000']) for _ in range(3)]
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/end':
                for program in programs:
                    os.kill(program.pid, signal.SIGKILL)
            else:
                print('held')
                gate = os.open(os.environ['GATE'], os.O_RDONLY)
                os.read(gate, 1)
                os.close(gate)
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'finished']
        ";
    let mut pool =
        PoolSetup::new(code).gated().args(&["--preload", "yes", "--workers", "2"]).start();
    pool.ask(&FastcgiRequest::get("/end"));
    let mut held = pool.connect();
    held.send(&FastcgiRequest::get("/held").bytes());
    pool.await_log("held");
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    // The template is left alone with a worker, which it must wait for.
    pool.open_gate();
    assert_eq!(held.response().text(), "finished");
    let ended = pool.end();
    assert_eq!(codes(&ended.stderr), ["W0308"], "{}", ended.stderr);
}

/// Waits until the pool closes a connection, upon which nothing is asked.
fn closed(connection: &mut FastcgiConnection) -> bool {
    matches!(connection.try_response(), Ok(None) | Err(_))
}
