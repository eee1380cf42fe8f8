//! The output on standard output and standard error.

use std::io::Read as _;

use crate::{
    call::Shell,
    support::{
        child_process::{
            RunningProcess, piped, {self},
        },
        probe::full_disk,
    },
};

#[test]
fn include_prints_status_and_headers_as_http_writes_them() {
    let shell = Shell::new();
    for word in ["-i", "--include"] {
        let text = shell.run(&["status.wsgi", word, "/?404"]).text();
        let expected = "HTTP/1.1 404 Odd\r\nContent-Type: text/plain\r\nX-A: b\r\nContent-Length: \
            4\r\n\r\nbody";
        assert_eq!(text, expected);
    }
    assert_eq!(
        shell.run(&["status.wsgi", "-i", "/?204"]).text().lines().next(),
        Some("HTTP/1.1 204 Odd")
    );
}

#[test]
fn a_response_to_head_is_printed_as_its_headers_alone() {
    let shell = Shell::new();
    let ended = shell.run(&["status.wsgi", "-i", "-X", "HEAD"]);
    assert!(
        ended.text().starts_with("HTTP/1.1 200 Odd\r\n") && ended.text().ends_with("\r\n\r\n"),
        "{}",
        ended.text()
    );
    assert_eq!(
        (shell.run(&["status.wsgi", "-X", "HEAD"]).text().as_str(), ended.code()),
        ("", Some(0))
    );
}

#[test]
fn verbose_shows_the_variables_on_standard_error() {
    let shell = Shell::new();
    for word in ["-v", "--verbose"] {
        let ended = shell.run(&["status.wsgi", word, "/a?200", "-H", "X-Y: z", "-X", "PUT"]);
        assert_eq!(ended.text(), "body");
        for line in [
            "> REQUEST_METHOD=PUT",
            "> PATH_INFO=/a",
            "> QUERY_STRING=200",
            "> HTTP_X_Y=z",
            "> SERVER_PORT=80",
        ] {
            assert!(
                ended.stderr.lines().any(|found| found == line),
                "no `{line}` in {}",
                ended.stderr
            );
        }
    }
}

#[test]
fn messages_go_to_standard_error_and_only_the_body_to_standard_output() {
    let shell = Shell::new();
    shell.file(
        "raises.wsgi",
        "def application(environ, start_response):\n    raise RuntimeError('secret')\n",
    );
    let ended = shell.run(&["raises.wsgi"]);
    assert!(
        ended.text().starts_with("<!DOCTYPE html>") && !ended.text().contains("secret"),
        "{}",
        ended.text()
    );
    assert!(
        ended.stderr.starts_with("wsgate: error[W0501]: ") && ended.stderr.contains("secret"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    let ended = shell.run(&["raises.wsgi", "--debug"]);
    assert!(ended.text().contains("RuntimeError: secret"), "{}", ended.text());
}

#[test]
fn an_output_that_is_closed_early_is_no_error() {
    // A closed pipe, as with `| head`.
    let shell = Shell::new();
    shell.file(
        "endless.wsgi",
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            while True:
                yield b'line\\n' * 1000
        ",
    );
    for args in [&["endless.wsgi"][..], &["endless.wsgi", "-i"]] {
        let (mut output, ours) = std::io::pipe().unwrap();
        let mut command = shell.call(args);
        let running = RunningProcess::start(piped(&mut command).stdout(ours));
        drop(command);
        output.read_exact(&mut [0; 10]).unwrap();
        drop(output);
        let ended = running.end();
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn an_output_that_is_closed_before_the_response_is_no_error() {
    let shell = Shell::new();
    for args in [
        &["call", "status.wsgi"][..],
        &["--help"],
        &["man"],
        &["completions", "bash"],
        &["check", "status.wsgi"],
    ] {
        let (output, ours) = std::io::pipe().unwrap();
        drop(output);
        let mut command = shell.command(&shell.dir.wsgate(), args);
        let ended = RunningProcess::start(piped(&mut command).stdout(ours)).end();
        assert!(
            matches!(ended.code(), Some(0 | 1)) && !ended.stderr.contains("panicked"),
            "{args:?}: {ended:?}"
        );
    }
}

#[test]
fn an_output_that_is_full_is_reported_as_a_failure() {
    let shell = Shell::new();
    let mut command = shell.call(&["status.wsgi"]);
    let ended = RunningProcess::start(piped(&mut command).stdout(full_disk())).end();
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.stderr.starts_with("wsgate: error[W0510]: ")
            && ended.stderr.contains("No space left"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_closed_standard_error_hides_messages_and_nothing_else() {
    let shell = Shell::new();
    shell.file(
        "raises.wsgi",
        "def application(environ, start_response):\n    raise RuntimeError('secret')\n",
    );
    let mut command = shell.command("sh".as_ref(), &["-c", "exec \"$@\" 2>&-", "sh"]);
    command.arg(shell.dir.wsgate()).args(["call", "-v", "raises.wsgi"]);
    let ended = child_process::run(&mut command, "");
    assert!(ended.text().starts_with("<!DOCTYPE html>"), "{}", ended.text());
    assert_eq!(ended.code(), Some(1));
}
