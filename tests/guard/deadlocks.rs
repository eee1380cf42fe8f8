//! Web servers write the whole body before they read the response. An application that responds
//! first must not wait for ever, and nothing of the body may be lost.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use crate::support::{
    assertions::complete_response,
    child_process::{RunningProcess, piped},
    probe::{Implementation, Probe},
    waiting::DEADLINE,
};

/// Large for every buffer on the way.
const LARGE: usize = 3_000_000;

/// Sends a long response and reads afterwards, as far as the path says.
const RESPONDS_FIRST: &str = "
    import hashlib
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/octet-stream')])
        what, stream = environ['PATH_INFO'], environ['wsgi.input']
        if what == '/some':
            stream.read(100000)
        for _ in range(30):
            yield b'r' * 100000
        if what == '/all':
            yield hashlib.sha256(stream.read()).hexdigest().encode()
        elif what == '/lines':
            yield hashlib.sha256(b''.join(stream)).hexdigest().encode()
        elif what == '/some':
            yield str(len(stream.read())).encode()
        else:
            yield b'not read'
    ";

fn body() -> Vec<u8> {
    (0..LARGE).map(|index| (index * index / 251 % 256) as u8).collect()
}

/// The last line of the response, after its long part.
fn expected(path_info: &str) -> String {
    match path_info {
        // Of the bytes that `body` makes, computed by Python, which knows nothing of how they
        // travel here.
        "/all" | "/lines" => {
            let program = format!(
                "import hashlib; print(hashlib.sha256(bytes(i * i // 251 % 256 for i in \
                 range({LARGE}))).hexdigest(), end='')"
            );
            String::from_utf8(
                std::process::Command::new(crate::support::probe::python())
                    .args(["-c", &program])
                    .output()
                    .unwrap()
                    .stdout,
            )
            .unwrap()
        }
        "/some" => (LARGE - 100_000).to_string(),
        _ => "not read".to_owned(),
    }
}

#[track_caller]
fn is_as_expected(response: &[u8], path_info: &str) {
    let body = complete_response(response).body;
    assert_eq!(body.len(), LARGE + expected(path_info).len(), "{path_info}");
    assert!(body[..LARGE].iter().all(|&byte| byte == b'r'), "{path_info}");
    assert_eq!(String::from_utf8_lossy(&body[LARGE..]), expected(path_info), "{path_info}");
}

#[test]
fn c21_over_one_socket_a_response_may_come_before_the_body_is_read() {
    // mod_cgid: one socket is standard input and standard output.
    for path_info in ["", "/all", "/lines", "/some"] {
        let probe = Probe::new(RESPONDS_FIRST).post(body()).variable("PATH_INFO", path_info);
        let (mut web_server, gateway) = UnixStream::pair().unwrap();
        web_server.set_write_timeout(Some(DEADLINE)).unwrap();
        web_server.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let (input, output): (OwnedFd, OwnedFd) =
            (gateway.try_clone().unwrap().into(), gateway.into());
        let running = RunningProcess::start(piped(&mut command).stdin(input).stdout(output));
        // The command holds the gateway's end, too.
        drop(command);
        web_server.write_all(&body()).unwrap();
        web_server.shutdown(Shutdown::Write).unwrap();
        let mut response = Vec::new();
        web_server.read_to_end(&mut response).unwrap();
        is_as_expected(&response, path_info);
        let ended = running.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{path_info}");
    }
}

#[test]
fn c21_over_one_socket_that_stays_open_a_response_may_come_before_the_body_is_read() {
    // A front that does not close its half: only CONTENT_LENGTH says where the body ends.
    for path_info in ["", "/all"] {
        let probe = Probe::new(RESPONDS_FIRST).post(body()).variable("PATH_INFO", path_info);
        let (mut web_server, gateway) = UnixStream::pair().unwrap();
        web_server.set_write_timeout(Some(DEADLINE)).unwrap();
        web_server.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let (input, output): (OwnedFd, OwnedFd) =
            (gateway.try_clone().unwrap().into(), gateway.into());
        let running = RunningProcess::start(piped(&mut command).stdin(input).stdout(output));
        drop(command);
        web_server.write_all(&body()).unwrap();
        let mut response = Vec::new();
        web_server.read_to_end(&mut response).unwrap();
        is_as_expected(&response, path_info);
        assert_eq!(running.end().code(), Some(0), "{path_info}");
    }
}

#[test]
fn c21_over_pipes_a_response_may_come_before_the_body_is_read() {
    // mod_cgi: the whole body first, on this thread, and only then the response.
    for path_info in ["", "/all", "/lines", "/some"] {
        let probe = Probe::new(RESPONDS_FIRST).post(body()).variable("PATH_INFO", path_info);
        let (mut response_end, output) = std::io::pipe().unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let mut running = RunningProcess::start(piped(&mut command).stdout(output));
        drop(command);
        let mut stdin = running.stdin.take().unwrap();
        // Bounded by the reader's deadline: when the test gives up, the process is killed and this
        // ends.
        let (done, is_done) = std::sync::mpsc::channel();
        let writer = thread::spawn(move || {
            let written = stdin.write_all(&body());
            drop(stdin);
            done.send(()).unwrap();
            written
        });
        is_done
            .recv_timeout(DEADLINE)
            .expect("the body is never taken while nobody reads the response");
        writer.join().unwrap().unwrap();
        let reader = thread::spawn(move || {
            let mut response = Vec::new();
            response_end.read_to_end(&mut response).map(|_| response)
        });
        let ended = running.end();
        is_as_expected(&reader.join().unwrap().unwrap(), path_info);
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{path_info}");
    }
}

#[test]
fn c21_an_error_page_does_not_wait_for_a_body_that_nobody_reads() {
    for app in ["raise RuntimeError()", "import os; os._exit(1)"] {
        let probe = Probe::new(app).post(body());
        let (mut web_server, gateway) = UnixStream::pair().unwrap();
        web_server.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let (input, output): (OwnedFd, OwnedFd) =
            (gateway.try_clone().unwrap().into(), gateway.into());
        let running = RunningProcess::start(piped(&mut command).stdin(input).stdout(output));
        drop(command);
        let mut sender = web_server.try_clone().unwrap();
        let writer = thread::spawn(move || sender.write_all(&body()));
        let mut response = Vec::new();
        // The web server may learn that the rest is not wanted, and has the page.
        let _ = web_server.read_to_end(&mut response);
        assert_eq!(complete_response(&response).status, 500, "{app}");
        // Refused or taken: it does not wait.
        let _ = writer.join().unwrap();
        drop(web_server);
        running.end();
    }
}

#[test]
fn a_body_and_a_response_may_pass_each_other() {
    // Each block of the response answers a block of the body. The web server buffers little of
    // either.
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'application/octet-stream')])
            for block in iter(lambda: environ['wsgi.input'].read(100000), b''):
                yield block
        ";
    let probe = Probe::new(app).post(body());
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.give(body());
    let ended = running.end();
    assert!(complete_response(&ended.stdout).body == body(), "the body comes back as it went");
}
