//! `wsgate call --via`: one request to a FastCGI server that runs, as a web server makes it.

mod hostile;
mod others;
mod server;

use std::{fs, io::Read as _};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    call::{
        Shell,
        via::server::{Script, ScriptedServer},
    },
    support::child_process::{
        ExitedProcess, Gate, RunningProcess, piped, {self},
    },
};

/// A pool that serves an application of the shell's, and listens at `app.sock` beside it.
struct PoolProcess(RunningProcess);

impl PoolProcess {
    fn start(shell: &Shell, app: &str, variables: &[(&str, &str)]) -> Self {
        let args = ["fastcgi", app, "--listen", "unix:app.sock", "--workers", "1"];
        let mut command = shell.command(&shell.dir.wsgate(), &args);
        let mut pool = RunningProcess::start(piped(&mut command).envs(variables.iter().copied()));
        pool.await_log("W0710");
        Self(pool)
    }

    /// Ends it; what it has logged.
    #[track_caller]
    fn end(self) -> String {
        self.0.signal(Signal::TERM);
        self.0.end().stderr
    }
}

/// Sends a request to the server at `app.sock`.
#[track_caller]
fn ask(shell: &Shell, args: &[&str]) -> ExitedProcess {
    shell.run(&[&["--via", "unix:app.sock"], args].concat())
}

#[test]
fn a_pool_gets_the_variables_that_the_application_alone_gets() {
    let shell = Shell::new();
    let pool = PoolProcess::start(&shell, "environ.wsgi", &[]);
    for args in [
        &[][..],
        &["/a%20b?c=d"],
        &["https://example.org:8443/x", "--script-name", "/shop"],
        &["-X", "PUT", "-H", "X-Y: z", "-H", "X-Y: more", "-H", "Cookie: a", "-H", "Cookie: b"],
        &["-d", "a=1", "-d", "b=2", "-H", "Content-Type: text/plain"],
        &[
            "/p",
            "--https",
            "--host",
            "www.example.org",
            "--user",
            "me:secret",
            "--remote-user",
            "me",
        ],
    ] {
        let alone = shell.seen(args);
        let ended = ask(&shell, args);
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{args:?}");
        let via: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let names = [
            "REQUEST_METHOD",
            "REQUEST_URI",
            "SCRIPT_NAME",
            "PATH_INFO",
            "QUERY_STRING",
            "SERVER_NAME",
            "SERVER_PORT",
            "SERVER_PROTOCOL",
            "SERVER_SOFTWARE",
            "GATEWAY_INTERFACE",
            "REMOTE_ADDR",
            "REMOTE_USER",
            "AUTH_TYPE",
            "HTTPS",
            "CONTENT_TYPE",
            "CONTENT_LENGTH",
            "wsgi.url_scheme",
        ];
        let headers = alone
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with("HTTP_"));
        for name in headers.chain(names) {
            assert_eq!(via[name], alone[name], "{args:?}: {name}");
        }
    }
    pool.end();
}

#[test]
fn status_headers_and_body_are_handled_as_for_an_application() {
    let shell = Shell::new();
    let pool = PoolProcess::start(&shell, "status.wsgi", &[]);
    for status in ["200", "204", "399", "400", "500"] {
        for args in [&["-i"][..], &[], &["-X", "HEAD", "-i"]] {
            let target = format!("/?{status}");
            let via = ask(&shell, &[&[target.as_str()], args].concat());
            let alone = shell.run(&[&["status.wsgi", target.as_str()], args].concat());
            assert_eq!(
                (via.text(), via.code()),
                (alone.text(), alone.code()),
                "{status} {args:?}: {}",
                via.stderr
            );
            assert_eq!(via.stderr, "");
        }
    }
    let verbose = ask(&shell, &["/a?200", "-v", "--script-filename", "/srv/a.php"]);
    for line in ["> PATH_INFO=/a", "> SCRIPT_FILENAME=/srv/a.php"] {
        assert!(
            verbose.stderr.lines().any(|found| found == line),
            "no `{line}` in {}",
            verbose.stderr
        );
    }
    pool.end();
}

#[test]
fn a_pool_at_a_tcp_address_answers_too() {
    let shell = Shell::new();
    let args = ["fastcgi", "status.wsgi", "--listen", "127.0.0.1:0", "--workers", "1"];
    let mut pool = RunningProcess::start(piped(&mut shell.command(&shell.dir.wsgate(), &args)));
    pool.await_log("W0710");
    let log = pool.log();
    let address = log.split('`').find(|word| word.starts_with("127.0.0.1:")).unwrap();
    assert_eq!(shell.run(&["--via", address]).text(), "body", "{log}");
    pool.signal(Signal::TERM);
    pool.end();
}

#[test]
fn hosts_are_looked_up_by_the_machine_s_own_program() {
    let shell = Shell::new();
    let getent =
        "#!/bin/sh\n[ \"$*\" = 'ahosts -- pool.test' ] && echo '127.0.0.1 STREAM pool.test'\n";
    let getent = shell.dir.executable("names/getent", getent);
    let path = format!("{}:/usr/bin:/bin", getent.parent().unwrap().display());
    let args = ["fastcgi", "status.wsgi", "--listen", "pool.test:0", "--workers", "1"];
    let mut pool = shell.command(&shell.dir.wsgate(), &args);
    let mut pool = RunningProcess::start(piped(pool.env("PATH", &path)));
    pool.await_log("W0710");
    let log = pool.log();
    let port = log.split('`').find_map(|word| word.strip_prefix("127.0.0.1:")).unwrap();
    let ended = child_process::run(
        shell.call(&["--via", &format!("pool.test:{port}")]).env("PATH", &path),
        "",
    );
    assert_eq!(ended.text(), "body", "{log}{}", ended.stderr);
    pool.signal(Signal::TERM);
    pool.end();
}

#[test]
fn a_response_that_arrives_while_the_body_is_sent_is_read() {
    let shell = Shell::new();
    shell.file(
        "mirror.wsgi",
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'application/octet-stream')])
            return iter(lambda: environ['wsgi.input'].read(100000), b'')
        ",
    );
    let pool = PoolProcess::start(&shell, "mirror.wsgi", &[]);
    let bytes: Vec<u8> = (0..=255).cycle().take(20_000_001).collect();
    fs::write(shell.path("body"), &bytes).unwrap();
    let ended = ask(&shell, &["--data-binary", "@body"]);
    assert!(ended.stdout == bytes, "{} bytes: {}", ended.stdout.len(), ended.stderr);
    let ended = child_process::run(
        &mut shell.call(&["--via", "unix:app.sock", "--data-binary", "@-"]),
        bytes.clone(),
    );
    assert!(ended.stdout == bytes, "{} bytes: {}", ended.stdout.len(), ended.stderr);
    pool.end();
}

#[test]
fn the_first_block_is_printed_while_the_response_is_produced() {
    let shell = Shell::new();
    shell.file(
        "stream.wsgi",
        "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'first '
            open(os.environ['GATE']).readline()
            yield b'second'
        ",
    );
    let gate = Gate::new(&shell.path(""));
    let pool = PoolProcess::start(&shell, "stream.wsgi", &[("GATE", gate.path())]);
    let mut running = RunningProcess::start(piped(&mut shell.call(&["--via", "unix:app.sock"])));
    running.await_output("first ");
    gate.open();
    assert_eq!(running.end().text(), "first second");
    pool.end();
}

#[test]
fn a_response_that_a_pool_cuts_is_printed_up_to_the_cut_and_is_a_failure() {
    let shell = Shell::new();
    shell.file(
        "cut.wsgi",
        "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            if environ['QUERY_STRING']:
                os._exit(1)
            raise RuntimeError()
        ",
    );
    let pool = PoolProcess::start(&shell, "cut.wsgi", &[]);
    for target in ["/", "/?dies"] {
        let ended = ask(&shell, &[target]);
        assert_eq!((ended.text().as_str(), ended.code()), ("begun", Some(1)), "{target}");
        assert!(ended.stderr.contains("wsgate: error[W0903]: "), "{target}: {}", ended.stderr);
    }
    assert!(pool.end().contains("W0502"));
}

#[test]
fn the_request_is_what_a_web_server_sends() {
    let shell = Shell::new();
    let server = ScriptedServer::listen(&shell, |_| Script::response("Status: 200 OK\r\n\r\nfine"));
    let ended = ask(&shell, &["/path?query", "-d", "body", "--script-filename", "/srv/index.php"]);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str(), ended.code()), ("fine", "", Some(0)));
    let asked = server.asked();
    assert_eq!((asked.id, asked.role, asked.kept), (1, 1, false));
    assert_eq!(asked.body, 4);
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_FILENAME", "/srv/index.php"),
        ("CONTENT_LENGTH", "4"),
        ("REQUEST_URI", "/path?query"),
    ] {
        assert_eq!(asked.params.get(name).map(String::as_str), Some(value), "{name}");
    }
    // No variable of the environment of this process.
    assert!(!asked.params.contains_key("PATH"));
}

#[test]
fn a_large_file_goes_through_little_memory() {
    let shell = Shell::new();
    let size = 1 << 30;
    fs::File::create(shell.path("large")).unwrap().set_len(size).unwrap();
    let gate = Gate::new(&shell.path(""));
    let path = gate.path().to_owned();
    let server = ScriptedServer::listen(&shell, move |script| {
        let wait = move || fs::File::open(path).unwrap().read_exact(&mut [0]).unwrap();
        script.stdout("Content-Type: text/plain\r\n\r\nall").then(wait).end(0, 0)
    });
    let mut running = RunningProcess::start(piped(&mut shell.call(&[
        "--via",
        "unix:app.sock",
        "--data-binary",
        "@large",
    ])));
    running.await_output("all");
    let status =
        fs::read_to_string(format!("/proc/{}/status", running.pid().as_raw_nonzero())).unwrap();
    gate.open();
    assert_eq!(running.end().code(), Some(0));
    assert_eq!(server.asked().body, size);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
}

#[test]
fn response_headers_of_every_line_end_are_understood() {
    let shell = Shell::new();
    for (response, status, code) in [
        ("Content-type: text/html\r\n\r\n", "200 OK", 0),
        ("status:404 Nowhere\nX: y\n\n", "404 Nowhere", 1),
        ("X-Powered-By: PHP/8\r\nSTATUS: 301\r\n\r\n", "301", 0),
        ("Location: /elsewhere\r\n\r\n", "302 Found", 0),
        ("Location: /made\r\nStatus: 201 Created\r\n\r\n", "201 Created", 0),
        ("Status: nonsense\r\n\r\n", "nonsense", 1),
        ("Status: 000\r\n\r\n", "000", 1),
        ("\r\n", "200 OK", 0),
    ] {
        let server = ScriptedServer::listen(&shell, move |_| Script::response(response));
        let ended = ask(&shell, &["-i"]);
        assert_eq!(
            ended.text().lines().next(),
            Some(format!("HTTP/1.1 {status}").as_str()),
            "{response:?}"
        );
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(code), ""), "{response:?}");
        server.asked();
    }
}

#[test]
fn messages_of_the_server_go_to_standard_error() {
    let shell = Shell::new();
    let server = ScriptedServer::listen(&shell, |request| {
        request
            .stderr("PHP message: one")
            .stdout("Status: 200 OK\r\n\r\nbo")
            .stderr("two")
            .stdout("dy")
            .end(0, 0)
    });
    let ended = ask(&shell, &[]);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("body", "PHP message: onetwo\n"));
    assert_eq!(ended.code(), Some(0));
    server.asked();
}

#[test]
fn an_output_that_is_closed_early_aborts_the_request() {
    let shell = Shell::new();
    // An endless response, larger than any socket buffer.
    let server = ScriptedServer::listen(&shell, |request| {
        request.stdout("Status: 200 OK\r\n\r\n").stdout(&"line\n".repeat(1_000_000))
    });
    let (mut output, ours) = std::io::pipe().unwrap();
    let mut command = shell.call(&["--via", "unix:app.sock"]);
    let running = RunningProcess::start(piped(&mut command).stdout(ours));
    drop(command);
    output.read_exact(&mut [0; 10]).unwrap();
    drop(output);
    let ended = running.end();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    server.asked();
}
