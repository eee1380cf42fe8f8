//! Whatever becomes of a warm process, the response is a valid one or a cut one.

use std::{fs, io::Read as _, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{
        assertions::{complete_response, parse_response},
        child_process::RunningProcess,
        web_servers::eventually,
    },
    warm::WarmSite,
};

/// Misbehaves as the query says.
const MISBEHAVES: &str = "
    import os, signal, sys, time
    BORN = os.getpid()
    class Body:
        def __init__(self, last):
            self.last = last
        def __iter__(self):
            yield b'first'
            self.last()
            yield b'second'
        def close(self):
            print('closed')
    def application(environ, start_response):
        query = environ['QUERY_STRING']
        if BORN == os.getpid():
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'cold']
        print('serving as %d.' % os.getpid())
        late = query.endswith('late')
        def act():
            if query.startswith('kill'):
                os.kill(os.getpid(), signal.SIGKILL)
            elif query.startswith('exit'):
                os._exit(3)
            elif query.startswith('raise'):
                raise RuntimeError('on purpose')
            elif query.startswith('wait'):
                print('waiting')
                while True:
                    time.sleep(100)
        if not late:
            act()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return Body(act if late else (lambda: None))
    ";

/// A request of this kind that a warm process has taken.
#[track_caller]
fn misbehave(site: &WarmSite, query: &str) -> RunningProcess {
    let mut command = site.request();
    command.env("QUERY_STRING", query);
    let mut running = RunningProcess::start(&mut command);
    running.stdin = None;
    running
}

/// The process that serves the only request of this site.
#[track_caller]
fn serving(site: &WarmSite) -> Pid {
    let mut pid = None;
    eventually(&format!("a process serves: {}", site.log()), || {
        let log = site.log();
        pid = log
            .split_once("serving as ")
            .and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
        pid.is_some()
    });
    Pid::from_raw(pid.unwrap()).unwrap()
}

#[track_caller]
fn await_end(pid: Pid) {
    eventually("the process has ended", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn a_process_that_exits_before_the_response_headers_is_answered_with_an_error_page() {
    for (query, status) in [("kill", 502), ("exit", 502), ("raise", 500)] {
        let site = WarmSite::new(MISBEHAVES);
        site.warm_up();
        let ended = misbehave(&site, query).end();
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (status, Some(0)),
            "{query}: {}",
            site.log()
        );
        let code = if query == "raise" { "W0501" } else { "W0601" };
        assert_eq!(site.log().matches(code).count(), 1, "{query}: {}", site.log());
    }
}

#[test]
fn a_process_that_exits_after_the_response_headers_leaves_a_cut_response() {
    for query in ["kill late", "exit late", "raise late"] {
        let site = WarmSite::new(MISBEHAVES);
        site.warm_up();
        let ended = misbehave(&site, query).end();
        assert_eq!(
            parse_response(&ended.stdout).unwrap().body,
            b"first",
            "{query}: {}",
            site.log()
        );
        assert_eq!(ended.code(), Some(1), "{query}: {}", site.log());
    }
}

#[test]
fn a_request_that_takes_too_long_is_answered_with_504() {
    let site = WarmSite::with("--timeout 1", MISBEHAVES);
    site.warm_up();
    let ended = misbehave(&site, "wait").end();
    assert_eq!(
        (complete_response(&ended.stdout).status, ended.code()),
        (504, Some(0)),
        "{}",
        site.log()
    );
    assert_eq!(site.log().matches("W0604").count(), 1, "{}", site.log());
    assert!(site.log().contains("longer than 1 s"), "{}", site.log());
    await_end(serving(&site));
}

#[test]
fn a_web_server_that_ends_its_request_ends_the_process() {
    for (signal, query) in
        [(Signal::TERM, "wait"), (Signal::TERM, "wait late"), (Signal::KILL, "wait")]
    {
        let site = WarmSite::new(MISBEHAVES);
        site.warm_up();
        let running = misbehave(&site, query);
        let pid = serving(&site);
        eventually("it waits", || site.log().contains("waiting"));
        running.signal(signal);
        let ended = running.end();
        await_end(pid);
        match (signal, query) {
            (Signal::TERM, "wait") => {
                assert_eq!(complete_response(&ended.stdout).status, 503, "{}", site.log())
            }
            (Signal::TERM, _) => {
                assert_eq!(
                    (parse_response(&ended.stdout).unwrap().body, ended.code()),
                    (b"first".to_vec(), Some(1))
                );
                assert!(site.log().contains("closed"), "{}", site.log());
            }
            _ => assert!(ended.stdout.is_empty(), "{:?}", ended.stdout),
        }
    }
}

#[test]
fn a_client_that_disconnects_ends_the_request() {
    let site = WarmSite::new(
        "
        import os
        BORN = os.getpid()
        class Body:
            def __iter__(self):
                while BORN != os.getpid():
                    yield b'x' * 10000
            def close(self):
                print('closed')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return Body()
        ",
    );
    site.warm_up();
    let (mut client, response) = std::io::pipe().unwrap();
    let mut command = site.request();
    command.stdin(Stdio::null()).stdout(response);
    let running = RunningProcess::start(&mut command);
    drop(command);
    client.read_exact(&mut [0; 100_000]).unwrap();
    drop(client);
    assert_eq!(running.end().code(), Some(1), "{}", site.log());
    assert!(site.log().contains("closed"), "{}", site.log());
}

#[test]
fn requests_that_are_being_served_outlive_their_pool() {
    for signal in [Signal::KILL, Signal::TERM] {
        let site = WarmSite::new(
            "
            import os
            BORN = os.getpid()
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                if BORN == os.getpid():
                    return [b'cold']
                print('serving as %d.' % os.getpid())
                return [environ['wsgi.input'].read()]
            ",
        );
        site.warm_up();
        let mut command = site.request();
        command.env("REQUEST_METHOD", "POST").env("CONTENT_LENGTH", "4");
        let mut running = RunningProcess::start(&mut command);
        serving(&site);
        for pid in site.supervisors() {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
        let template_ends = || site.log().contains("W0712") || site.supervisors().is_empty();
        eventually("the pool has taken note", template_ends);
        running.give("body");
        let ended = running.end();
        assert_eq!(complete_response(&ended.stdout).body, b"body", "{signal:?}: {}", site.log());
        eventually("the supervisor has ended", || site.supervisors().is_empty());
    }
}

#[test]
fn threads_at_import_do_no_harm() {
    let site = WarmSite::new(
        "
        import os, threading
        BORN = os.getppid()
        gate = threading.Event()
        thread = threading.Thread(target=gate.wait, daemon=True)
        thread.start()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(thread.is_alive()).encode()]
        ",
    );
    site.warm_up();
    for _ in 0..4 {
        assert_eq!(site.ask().text(), "True", "{}", site.log());
    }
    assert!(site.log().contains("W0309"), "{}", site.log());
}

#[test]
fn a_template_whose_descriptors_the_application_closed_exits() {
    let site = WarmSite::new(
        "
        import os
        if 'REQUEST_METHOD' not in os.environ:
            os.closerange(3, 1000)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'cold']
        ",
    );
    assert_eq!(site.ask().text(), "cold");
    site.await_no_process();
    assert_eq!(site.ask().text(), "cold");
}
