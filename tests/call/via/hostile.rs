//! Servers that are not there, refuse, die, hang, or speak something else.

use std::{fs, net::TcpListener, os::unix::net::UnixListener};

use crate::{
    call::{
        Shell,
        via::{
            ask,
            server::{Script, ScriptedServer},
        },
    },
    support::{assertions::codes, child_process::Gate},
};

/// Standard output, and the log codes on standard error, after the server has run `script`.
#[track_caller]
fn served(
    shell: &Shell,
    args: &[&str],
    script: impl FnOnce(Script) -> Script + Send + 'static,
) -> (String, String) {
    let server = ScriptedServer::listen(shell, script);
    let ended = ask(shell, args);
    server.asked();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("\nhint: ") && !ended.stderr.contains("panicked"),
        "{}",
        ended.stderr
    );
    assert_eq!(codes(&ended.stderr).len(), 1, "{}", ended.stderr);
    (ended.text(), ended.stderr)
}

#[test]
fn an_address_where_no_server_listens_is_an_error() {
    let shell = Shell::new();
    drop(UnixListener::bind(shell.path("dead.sock")).unwrap());
    fs::write(shell.path("file"), "").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for address in [
        "unix:absent.sock",
        "unix:dead.sock",
        "unix:file",
        &format!("127.0.0.1:{port}"),
        "no..name:1",
    ] {
        let ended = shell.run(&["--via", address, "/path"]);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(1), ""),
            "{address}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.starts_with(&format!("wsgate: error[W0901]: `{address}` cannot")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    }
}

#[test]
fn wrong_arguments_are_an_error_with_exit_code_2() {
    let shell = Shell::new();
    for (args, said) in [
        (&["--via", "unix:"][..], "give unix:PATH"),
        (&["--via", &format!("unix:{}", "x".repeat(200))], "is not the path of a socket"),
        (&["--via", "app.sock"], "give unix:PATH or HOST:PORT"),
        (&["--via", "localhost"], "give unix:PATH"),
        (&["--via", ":9000"], "give unix:PATH"),
        (&["--via", "localhost:70000"], "from 0 to 65535"),
        (&["--via", "unix:a", "app.wsgi"], "`app.wsgi` is not a target"),
        (&["--via", "unix:a", "/", "/"], "one argument too many"),
        (&["--via", "unix:a", "--venv", "v"], "--venv"),
        (&["--via", "unix:a", "--env", "A=b"], "--env"),
        (&["--via", "unix:a", "--debug"], "--debug"),
        (&["status.wsgi", "--script-filename", "/x"], "--via"),
        (&["--via", "unix:a", "-X", ""], "method"),
    ] {
        let ended = shell.run(args);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn a_refusal_by_the_server_is_reported_with_its_reason() {
    let shell = Shell::new();
    for (status, name) in [
        (1, "`FCGI_CANT_MPX_CONN`"),
        (2, "`FCGI_OVERLOADED`"),
        (3, "`FCGI_UNKNOWN_ROLE`"),
        (77, "`status 77`"),
    ] {
        let (text, log) = served(&shell, &["-i"], move |script| script.end(0, status));
        assert_eq!(text, "");
        assert!(log.starts_with("wsgate: error[W0902]: ") && log.contains(name), "{log}");
        // After a response, too.
        let (text, log) = served(&shell, &[], move |script| {
            script.stdout("Status: 200 OK\r\n\r\nx").end(0, status)
        });
        assert_eq!(text, "x");
        assert!(log.starts_with("wsgate: error[W0902]: ") && log.contains(name), "{log}");
    }
}

#[test]
fn an_application_that_reports_a_failure_is_one() {
    let shell = Shell::new();
    let (text, log) =
        served(&shell, &[], |script| script.stdout("Status: 200 OK\r\n\r\nx").end(938, 0));
    assert_eq!(text, "x");
    assert!(log.starts_with("wsgate: error[W0903]: ") && log.contains("`938`"), "{log}");
}

#[test]
fn a_connection_that_closes_before_the_request_ends_is_a_failure_and_its_output_is_printed() {
    let shell = Shell::new();
    let cut = |args: &[&str], script: fn(Script) -> Script| {
        let (text, log) = served(&shell, args, script);
        assert!(
            log.contains("wsgate: error[W0903]: ") && log.contains("FCGI_END_REQUEST"),
            "{log}"
        );
        (text, log)
    };
    assert_eq!(cut(&[], |script| script).0, "");
    let (text, log) = cut(&[], |script| script.stdout("Status: 200 OK\r\nX-Half"));
    assert_eq!(text, "");
    assert!(log.contains("  Status: 200 OK\n  X-Half\n"), "{log}");
    assert_eq!(cut(&[], |script| script.stdout("Status: 200 OK\r\n\r\nhalf")).0, "half");
    assert_eq!(
        cut(&["-i"], |script| script.stdout("Status: 200 OK\r\n\r\n")).0,
        "HTTP/1.1 200 OK\r\n\r\n"
    );
    // Even if the response was whole.
    assert_eq!(
        cut(&[], |script| script.stdout("X: y\r\n\r\nall").bytes([1, 6, 0, 1, 0, 0, 0, 0])).0,
        "all"
    );
    // Within a record, within a header, within the last record.
    assert_eq!(cut(&[], |script| script.bytes(*b"\x01\x06\0\x01\0\x09\0\0X: y\n\nab")).0, "ab");
    assert_eq!(cut(&[], |script| script.stdout("X: y\n\nab").bytes([1, 3, 0])).0, "ab");
    assert_eq!(
        cut(&[], |script| script.stdout("X: y\n\nab").bytes([1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0])).0,
        "ab"
    );
    let (_, log) = cut(&[], |script| script.stderr("last words"));
    assert!(log.starts_with("last words\nwsgate: error["), "{log}");
}

#[test]
fn bytes_that_are_not_fastcgi_are_reported() {
    let shell = Shell::new();
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x01\x03\0\x01\0\x07\0\0\0\0\0\0\0\0\0",
        b"\x01\x03\0\x02\0\x08\0\0\0\0\0\0\0\0\0\0",
        b"\x01\x06\0\x07\0\x01\0\0x",
        b"\x01\x07\0\x07\0\0\0\0",
        &[0xff; 1000],
    ] {
        let (text, log) = served(&shell, &["-i"], move |script| script.bytes(bytes));
        assert_eq!(text, "");
        assert!(log.starts_with("wsgate: error[W0904]: the response is not FastCGI: "), "{log}");
        let (text, log) =
            served(&shell, &[], move |script| script.stdout("X: y\n\nresponse").bytes(bytes));
        assert_eq!(text, "response");
        assert!(log.starts_with("wsgate: error[W0904]: the response is not FastCGI: "), "{log}");
    }
}

#[test]
fn records_that_are_not_for_a_client_are_ignored() {
    let shell = Shell::new();
    let server = ScriptedServer::listen(&shell, |script| {
        script
            .bytes(*b"\x01\x0b\0\0\0\x08\0\0\x63\0\0\0\0\0\0\0")
            .bytes(*b"\x01\x0a\0\0\0\0\0\0")
            .bytes(*b"\x01\x63\0\x01\0\x03\x05\0abcpaddi")
            .stdout("X: y\r\n\r\nbody")
            .bytes([1, 7, 0, 1, 0, 0, 0, 0])
            .end(0, 0)
            .bytes(*b"and whatever follows")
    });
    let ended = ask(&shell, &[]);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str(), ended.code()), ("body", "", Some(0)));
    server.asked();
}

#[test]
fn invalid_response_headers_are_shown_in_the_log_message() {
    let shell = Shell::new();
    let long = "Y".repeat(2 << 20);
    for (response, shown) in [
        ("", ""),
        ("Hello\n\nworld", "  Hello\n"),
        ("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", "  HTTP/1.1 200 OK\n"),
        (": y\r\n\r\n", "  : y\n"),
        ("X: y\r\n", "  X: y\n"),
        ("\x1b[31m", "  \\u{1b}[31m\n"),
        (&long, "  YYYY"),
    ] {
        let text = response.to_owned();
        let (text, log) = served(&shell, &["-i"], move |script| script.stdout(&text).end(0, 0));
        assert_eq!(text, "", "{response:.20?}");
        assert!(
            log.starts_with("wsgate: error[W0904]: the response has no headers")
                && log.contains(shown),
            "{log}"
        );
        assert!(log.len() < 2000, "{}", log.len());
    }
}

#[test]
fn a_response_without_reading_the_body_is_understood() {
    let shell = Shell::new();
    fs::File::create(shell.path("large")).unwrap().set_len(100 << 20).unwrap();
    let server = ScriptedServer::listen(&shell, |script| {
        script.without_reading().stdout("Status: 413 Too Large\r\n\r\nno").end(0, 0)
    });
    let ended = ask(&shell, &["--data-binary", "@large"]);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str(), ended.code()), ("no", "", Some(1)));
    server.asked();
    let (text, log) = served(&shell, &["--data-binary", "@large"], Script::without_reading);
    assert!(text.is_empty() && log.starts_with("wsgate: error[W0903]: "), "{log}");
}

#[test]
fn a_server_that_sends_nothing_times_out() {
    let shell = Shell::new();
    let gate = Gate::new(&shell.path(""));
    for said in ["", "Status: 200 OK\r\n\r\nhalf"] {
        let path = gate.path().to_owned();
        let server = ScriptedServer::listen(&shell, move |script| {
            let script = if said.is_empty() { script } else { script.stdout(said) };
            script.then(move || {
                drop(std::io::Read::read_exact(&mut fs::File::open(path).unwrap(), &mut [0]))
            })
        });
        let ended = ask(&shell, &["--timeout", "1"]);
        gate.open();
        server.asked();
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(1), said.rsplit('\n').next().unwrap())
        );
        assert!(
            ended.stderr.starts_with("wsgate: error[W0604]: the request took longer than 1 s\n"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_server_that_accepts_no_connection_times_out() {
    let shell = Shell::new();
    let listener = UnixListener::bind(shell.path("app.sock")).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // Fills the queue.
    let _waiting = std::os::unix::net::UnixStream::connect(shell.path("app.sock")).unwrap();
    let ended = ask(&shell, &["--timeout", "1"]);
    assert_eq!((ended.code(), ended.text().as_str()), (Some(1), ""));
    assert!(
        ended.stderr.starts_with("wsgate: error[W0901]: ") && ended.stderr.contains("\nhint: "),
        "{}",
        ended.stderr
    );
}
