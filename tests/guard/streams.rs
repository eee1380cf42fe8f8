//! Standard streams that are closed, full, or not what they should be.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use crate::{
    guard::page_of,
    support::{
        assertions::{codes, complete_response, only_log_message},
        child_process::{ExitedProcess, RunningProcess, piped},
        probe::{Implementation, Probe, full_disk},
    },
};

const HELLO: &str = "
    import sys
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        print('printed')
        environ['wsgi.errors'].write('logged\\n')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello ' + body]
    ";

/// The gateway, started by a shell that closes or opens descriptors as `redirections` say.
fn redirected(probe: &Probe, redirections: &str) -> Command {
    let gateway = probe.command(Implementation::Wsgate);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" {redirections}"), "sh"]);
    command.arg(gateway.get_program()).args(gateway.get_args()).env_clear();
    command.envs(gateway.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(gateway.get_current_dir().unwrap());
    piped(&mut command);
    command
}

fn ended(probe: &Probe, redirections: &str) -> ExitedProcess {
    RunningProcess::start(&mut redirected(probe, redirections)).end()
}

#[test]
fn without_standard_input_a_request_without_body_is_served() {
    let ended = ended(&Probe::new(HELLO), "<&-");
    assert_eq!(
        (complete_response(&ended.stdout).body.as_slice(), ended.code()),
        (&b"hello "[..], Some(0))
    );
    assert_eq!(ended.stderr, "printed\nlogged\n");
}

#[test]
fn without_standard_input_a_request_with_body_is_a_valid_error() {
    let ended = ended(&Probe::new(HELLO).post("12345"), "<&-");
    assert!(page_of(&ended, 500, "W0501").contains("after 0 of 5 bytes"), "{}", ended.stderr);
}

#[test]
fn without_standard_output_the_exit_makes_no_message() {
    for app in [HELLO, "raise RuntimeError()"] {
        let ended = ended(&Probe::new(app), ">&-");
        assert!(ended.stdout.is_empty() && ended.code().is_some(), "{ended:?}");
        assert_eq!(codes(&ended.stderr), if app == HELLO { &[][..] } else { &["W0301"] });
    }
}

#[test]
fn without_standard_error_the_response_is_whole() {
    for (app, status) in
        [(HELLO, 200), ("raise RuntimeError()", 500), ("import os; os.abort()", 502)]
    {
        let ended = ended(&Probe::new(app), "2>&-");
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (status, Some(0)),
            "{app}"
        );
    }
}

#[test]
fn without_any_stream_the_exit_makes_no_message() {
    for redirections in ["<&- >&- 2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-"] {
        let ended = ended(&Probe::new(HELLO).post("12345"), redirections);
        assert!(ended.code().is_some(), "{redirections}: {ended:?}");
        if redirections == "<&- 2>&-" {
            assert_eq!(complete_response(&ended.stdout).status, 500);
        }
    }
}

#[test]
fn a_response_that_cannot_be_written_is_a_failure_and_one_log_message() {
    let probe = Probe::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'hello']
        ",
    );
    let ended = RunningProcess::start(
        piped(&mut probe.command(Implementation::Wsgate)).stdout(full_disk()),
    )
    .end();
    assert_eq!(ended.code(), Some(1));
    assert!(only_log_message(&ended.stderr, "W0510").contains("No space left"), "{}", ended.stderr);
}

#[test]
fn an_error_page_that_cannot_be_written_is_a_failure_with_the_log_message_of_its_cause() {
    for (app, code) in [("raise RuntimeError()", "W0301"), ("import os; os._exit(1)", "W0601")] {
        let probe = Probe::new(app);
        let ended = RunningProcess::start(
            piped(&mut probe.command(Implementation::Wsgate)).stdout(full_disk()),
        )
        .end();
        assert_eq!(ended.code(), Some(1), "{app}");
        only_log_message(&ended.stderr, code);
    }
}

#[test]
fn a_log_that_cannot_be_written_fails_no_request() {
    for (app, status) in [
        (HELLO, 200),
        ("raise RuntimeError()", 500),
        ("import os; os.abort()", 502),
        (
            "print('x' * 1000000)\ndef application(environ, start_response): raise RuntimeError()",
            500,
        ),
        ("import os; os.system('echo lost; echo lost >&2'); import nowhere", 500),
        ("import logging; logging.warning('lost'); import warnings; warnings.warn('lost')", 500),
    ] {
        let probe = Probe::new(app);
        let ended = RunningProcess::start(
            piped(&mut probe.command(Implementation::Wsgate)).stderr(full_disk()),
        )
        .end();
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (status, Some(0)),
            "{app}"
        );
    }
}

#[test]
fn a_log_that_nobody_reads_fails_no_request() {
    for (app, status) in
        [(HELLO, 200), ("raise RuntimeError()", 500), ("print('x' * 1000000)", 500)]
    {
        let probe = Probe::new(app);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended =
            RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)).stderr(writer))
                .end();
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (status, Some(0)),
            "{app}"
        );
    }
}

#[test]
fn one_stream_for_response_and_log_keeps_both_in_order() {
    // A shell's `2>&1`: the log is in the response's stream, but never within its head.
    let probe = Probe::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'first\\n'
            print('log')
            yield b'second\\n'
        ",
    );
    let ended = ended(&probe, "2>&1");
    assert_eq!(
        ended.text(),
        "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nfirst\nlog\nsecond\n"
    );
}

#[test]
fn a_response_to_a_file_is_the_whole_response() {
    let probe = Probe::new(HELLO);
    let path = probe.directory().join("response");
    let file = File::create(&path).unwrap();
    let mut command = probe.command(Implementation::Wsgate);
    let ended = RunningProcess::start(piped(&mut command).stdout(file).stdin(Stdio::null())).end();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(complete_response(&std::fs::read(path).unwrap()).body, b"hello ");
}

#[test]
fn a_directory_as_standard_input_is_an_error_that_the_application_sees() {
    let probe = Probe::new(HELLO).post("12345");
    let directory = File::open(probe.directory()).unwrap();
    let mut command = probe.command(Implementation::Wsgate);
    let ended = RunningProcess::start(piped(&mut command).stdin(directory)).end();
    page_of(&ended, 500, "W0501");
}
