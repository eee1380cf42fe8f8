//! The process that serves a request: its streams, its signals, its end (RFC 3875 3.4, 6.1, 6.4).

use std::{
    fs,
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    assertions::{codes, complete_response, only_log_message, parse_response},
    child_process::{Gate, RunningProcess, piped},
    probe::{Implementation, Probe},
    web_servers::eventually,
};

/// Streams a block, and leaves a mark when it is closed.
const LEAVES_A_MARK: &str = "
    import signal
    class Body:
        def __iter__(self):
            yield b'first'
            print('streaming')
            while True:
                signal.pause()
        def close(self):
            open('closed', 'a').write('x')
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return Body()
    ";

/// How often `close()` was called.
fn closed(probe: &Probe) -> usize {
    fs::read(probe.directory().join("closed")).map_or(0, |marks| marks.len())
}

#[test]
fn c01_an_application_that_is_asked_to_stop_is_closed_and_its_response_is_cut() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let probe = Probe::new(LEAVES_A_MARK);
        let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
        running.await_output("first");
        running.await_log("streaming");
        running.signal(signal);
        let ended = running.end();
        assert_eq!(parse_response(&ended.stdout).unwrap().body, b"first", "{signal:?}");
        let code = if signal == Signal::INT { 130 } else { 1 };
        assert_eq!((ended.code(), closed(&probe)), (Some(code), 1), "{signal:?}: {}", ended.stderr);
        only_log_message(&ended.stderr, "W0606");
    }
}

#[test]
fn c01_an_application_that_is_asked_to_stop_before_its_response_gives_a_valid_response() {
    let app = "
        import atexit, signal
        atexit.register(lambda: print('atexit ran'))
        def application(environ, start_response):
            try:
                print('working')
                signal.pause()
            finally:
                print('finally ran')
        ";
    let probe = Probe::new(app);
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.await_log("working");
    running.signal(Signal::TERM);
    let ended = running.end();
    assert_eq!((complete_response(&ended.stdout).status, ended.code()), (503, Some(0)));
    only_log_message(&ended.stderr, "W0606");
    assert!(
        ended.stderr.contains("finally ran") && ended.stderr.contains("atexit ran"),
        "{}",
        ended.stderr
    );
}

#[test]
fn c01_output_printed_by_an_application_is_in_the_log_when_it_is_asked_to_stop() {
    let app = "
        import signal, sys
        def application(environ, start_response):
            sys.stdout.write('no line end')
            environ['wsgi.errors'].write('not flushed')
            print('working', file=sys.stderr)
            signal.pause()
        ";
    let probe = Probe::new(app);
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.await_log("working");
    running.signal(Signal::TERM);
    let log = running.end().stderr;
    assert!(log.contains("no line end") && log.contains("not flushed"), "{log}");
}

#[test]
fn c28_an_application_that_does_not_load_in_time_is_answered_with_504() {
    for (app, code) in [
        ("while True: pass", "W0305"),
        ("def application(environ, start_response):\n    while True: pass", "W0604"),
        ("import signal; signal.pause()", "W0305"),
        ("import threading; threading.Event().wait()", "W0305"),
    ] {
        let response = Probe::new(app).options(&["--timeout", "3"]).run();
        assert_eq!(
            (complete_response(&response.raw).status, response.exit.code()),
            (504, Some(0)),
            "{app}"
        );
        assert!(only_log_message(&response.log, code).contains("3 s"), "{}", response.log);
    }
}

#[test]
fn c37_the_response_ends_when_it_is_complete_and_not_when_the_process_exits() {
    // The front waits for the end of the stream; a client must not wait for what an application
    // does at its exit.
    let room = TempDir::new().unwrap();
    let gate = Gate::new(room.path());
    let app = "
        import atexit, os, threading
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/thread':
                threading.Thread(target=lambda: open(os.environ['GATE']).readline()).start()
            else:
                atexit.register(lambda: open(os.environ['GATE']).readline())
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return (block for block in [b'all ', b'of it'])
        ";
    for path_info in ["/atexit", "/thread"] {
        let probe = Probe::new(app).variable("GATE", gate.path()).variable("PATH_INFO", path_info);
        // Of a pipe somebody may wait for the end, so that the response would not end before.
        let log = probe.directory().join("error.log");
        let mut command = probe.command(Implementation::Wsgate);
        let mut running =
            RunningProcess::start(piped(&mut command).stderr(fs::File::create(&log).unwrap()));
        assert_eq!(complete_response(running.await_end_of_output()).body, b"all of it");
        // Only now may it go on.
        gate.open();
        let ended = running.end();
        let log = fs::read_to_string(log).unwrap();
        assert_eq!((ended.code(), log.as_str()), (Some(0), ""), "{path_info}");
    }
}

#[test]
fn c37_an_error_page_ends_when_it_is_complete() {
    let room = TempDir::new().unwrap();
    let gate = Gate::new(room.path());
    let app = "
        import atexit, os
        atexit.register(lambda: open(os.environ['GATE']).readline())
        raise RuntimeError()
        ";
    let probe = Probe::new(app).variable("GATE", gate.path());
    let log = probe.directory().join("error.log");
    let mut command = probe.command(Implementation::Wsgate);
    let mut running =
        RunningProcess::start(piped(&mut command).stderr(fs::File::create(&log).unwrap()));
    assert_eq!(complete_response(running.await_end_of_output()).status, 500);
    gate.open();
    running.end();
    only_log_message(&fs::read_to_string(log).unwrap(), "W0301");
}

#[test]
fn c42_printed_output_goes_to_the_log_and_not_into_the_response() {
    let app = "
        import ctypes, os, subprocess, sys
        print('at import')
        def application(environ, start_response):
            print('by print')
            print('by __stdout__', file=sys.__stdout__, flush=True)
            sys.stdout.buffer.write(b'by buffer\\n')
            os.write(1, b'by descriptor\\n')
            subprocess.run(['echo', 'by child'])
            os.system('echo by shell')
            libc = ctypes.CDLL(None)
            libc.puts(b'by C')
            libc.fflush(None)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'body'
            print('in the middle')
        ";
    // CGIHandler mixes them all into its response.
    let response = Probe::new(app).run();
    assert_eq!(complete_response(&response.raw).body, b"body");
    for line in [
        "at import",
        "by print",
        "by __stdout__",
        "by buffer",
        "by descriptor",
        "by child",
        "by shell",
        "by C",
        "in the middle",
    ] {
        assert!(
            response.log.lines().any(|found| found == line),
            "no `{line}` in the log: {}",
            response.log
        );
    }
}

#[test]
fn c42_standard_input_is_empty_and_the_body_whole() {
    let app = "
        import os, subprocess, sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            found = [sys.stdin.read(), os.read(0, 10), subprocess.run(['cat'], \
            stdout=subprocess.PIPE).stdout]
            return [repr(found).encode() + environ['wsgi.input'].read()]
        ";
    // CGIHandler lets a child process read the body away.
    let response = Probe::new(app).post("body").run();
    assert_eq!((response.text().as_str(), response.log.as_str()), ("['', b'', b'']body", ""));
}

#[test]
fn c42_a_surviving_child_process_does_not_keep_the_request_open() {
    let room = TempDir::new().unwrap();
    let gate = Gate::new(room.path());
    let app = "
        import os, subprocess
        def application(environ, start_response):
            subprocess.Popen(['head', '-n', '1', os.environ['GATE']], stderr=subprocess.DEVNULL, \
            stdout=subprocess.DEVNULL,
                             close_fds=False, start_new_session=True)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    let probe = Probe::new(app).variable("GATE", gate.path());
    let ended = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate))).end();
    assert_eq!(complete_response(&ended.stdout).body, b"done");
    // Until here it cannot have ended.
    gate.open();
}

#[test]
fn c43_an_error_page_that_was_delivered_is_a_success_of_the_gateway() {
    for (app, status) in [
        ("def application(environ, start_response): raise RuntimeError()", 500),
        ("raise RuntimeError()", 500),
        ("import nowhere", 500),
        ("import os; os.abort()", 502),
        ("", 500),
    ] {
        let response = Probe::new(app).run();
        assert_eq!(
            (complete_response(&response.raw).status, response.exit.code()),
            (status, Some(0)),
            "{app}"
        );
        assert_eq!(codes(&response.log).len(), 1, "{}", response.log);
    }
}

#[test]
fn c43_a_response_that_could_not_be_made_whole_is_a_failure_of_the_gateway() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            raise RuntimeError()
        ";
    let response = Probe::new(app).run();
    assert_eq!((response.text().as_str(), response.exit.code()), ("begun", Some(1)));
    only_log_message(&response.log, "W0502");
}

#[test]
fn c44_a_client_that_disconnects_ends_the_request_with_close_and_no_message() {
    let app = "
        class Body:
            def __iter__(self):
                while True:
                    yield b'x' * 10000
            def close(self):
                open('closed', 'a').write('x')
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            while environ['PATH_INFO'] == '/write':
                write(b'x' * 10000)
            return Body()
        ";
    for (path_info, closes) in [("/iterable", 1), ("/write", 0)] {
        let probe = Probe::new(app).variable("PATH_INFO", path_info);
        let (mut client, response) = std::io::pipe().unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let running = RunningProcess::start(piped(&mut command).stdout(response));
        drop(command);
        client.read_exact(&mut [0; 100_000]).unwrap();
        drop(client);
        let ended = running.end();
        assert_eq!(
            (ended.code(), ended.stderr.as_str(), closed(&probe)),
            (Some(1), "", closes),
            "{path_info}"
        );
    }
}

#[test]
fn c44_a_client_that_disconnects_ends_a_stream_of_empty_blocks() {
    let app = "
        import time
        def application(environ, start_response):
            path = environ['PATH_INFO']
            def empty():
                if path.endswith('late'):
                    start_response('200 OK', [('Content-Type', 'text/plain')])
                try:
                    if 'begun' in path:
                        yield b'begun'
                    open('running', 'w')
                    while True:
                        time.sleep(0.001)
                        yield b''
                finally:
                    open('closed', 'a').write('x')
            if not path.endswith('late'):
                write = start_response('200 OK', [('Content-Type', 'text/plain')])
                while path == '/write':
                    open('running', 'w')
                    time.sleep(0.001)
                    write(b'')
            return empty()
        ";
    for (path_info, closes) in
        [("/begun", 1), ("/nothing", 1), ("/begun late", 1), ("/late", 1), ("/write", 0)]
    {
        for (method, through_socket) in [("GET", false), ("HEAD", false), ("GET", true)] {
            let probe =
                Probe::new(app).variable("PATH_INFO", path_info).variable("REQUEST_METHOD", method);
            if method == "HEAD" && path_info.contains("begun") {
                // The first block ends it.
                continue;
            }
            let (client, response): (OwnedFd, OwnedFd) = if through_socket {
                let (client, response) = UnixStream::pair().unwrap();
                (client.into(), response.into())
            } else {
                let (client, response) = std::io::pipe().unwrap();
                (client.into(), response.into())
            };
            let mut command = probe.command(Implementation::Wsgate);
            let running = RunningProcess::start(piped(&mut command).stdout(response));
            drop(command);
            let at_work = probe.directory().join("running");
            eventually("the application is at work", || at_work.exists());
            drop(client);
            let ended = running.end();
            let found = (ended.code(), ended.stderr.as_str(), closed(&probe));
            assert_eq!(found, (Some(1), "", closes), "{path_info} {method} {through_socket}");
        }
    }
}

#[test]
fn c44_a_client_that_disconnects_before_the_response_ends_it_with_no_message() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'nobody reads this']
        ";
    let probe = Probe::new(app);
    let (client, response) = std::io::pipe().unwrap();
    drop(client);
    let mut command = probe.command(Implementation::Wsgate);
    let ended = RunningProcess::start(piped(&mut command).stdout(response)).end();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(1), ""));
}
