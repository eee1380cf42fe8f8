//! Request bodies, and the bytes of both bodies.

use std::fs;

use crate::{call::Shell, support::child_process};

#[test]
fn data_is_the_body_as_it_was_written() {
    let shell = Shell::new();
    for (args, body) in [
        (&["-d", "a=b&c"][..], "a=b&c"),
        (&["--data", "caf\u{e9} \n"], "caf\u{e9} \n"),
        (&["-d", ""], ""),
        (&["-d", "a=1", "-d", "b=2"], "a=1&b=2"),
    ] {
        let ended = shell.run(&[&["echo.wsgi"], args].concat());
        assert_eq!((ended.text().as_str(), ended.code()), (body, Some(0)), "{args:?}");
    }
}

#[test]
fn data_may_come_from_a_file_byte_for_byte() {
    let shell = Shell::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(700_000).collect();
    fs::write(shell.path("body"), &bytes).unwrap();
    let ended = shell.run(&["echo.wsgi", "--data-binary", "@body"]);
    assert!(ended.stdout == bytes, "{} bytes", ended.stdout.len());
    fs::write(shell.path("empty"), "").unwrap();
    assert_eq!(shell.run(&["echo.wsgi", "-d", "@empty"]).text(), "");
    assert_eq!(shell.run(&["echo.wsgi", "-d", "a", "-d", "@empty", "-d", "b"]).text(), "a&&b");
}

#[test]
fn data_may_come_from_standard_input_byte_for_byte() {
    let shell = Shell::new();
    let bytes: Vec<u8> = (0..=255).rev().cycle().take(700_000).collect();
    let ended =
        child_process::run(&mut shell.call(&["echo.wsgi", "--data-binary", "@-"]), bytes.clone());
    assert!(ended.stdout == bytes, "{} bytes", ended.stdout.len());
    assert_eq!(child_process::run(&mut shell.call(&["echo.wsgi", "-d", "@-"]), "").text(), "");
    assert_eq!(
        child_process::run(&mut shell.call(&["echo.wsgi", "-d", "a", "-d", "@-"]), "b").text(),
        "a&b"
    );
}

#[test]
fn data_may_come_from_a_named_pipe() {
    // A pipe, as of `-d @<(command)` in a shell: the length is unknown until the end.
    let shell = Shell::new();
    let pipe = shell.dir.fifo("site/pipe");
    let held = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    std::io::Write::write_all(&mut &held, b"through a pipe").unwrap();
    let mut command = shell.call(&["echo.wsgi", "-d", "@pipe"]);
    let running = child_process::RunningProcess::start(child_process::piped(&mut command));
    // The command must open the pipe before the last writer closes it. Its descriptors show when.
    let pid = running.pid().as_raw_nonzero();
    crate::support::web_servers::eventually("the pipe is open", || {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == pipe))
    });
    drop(held);
    assert_eq!(running.end().text(), "through a pipe");
}

#[test]
fn a_named_pipe_without_a_writer_is_waited_for_until_the_timeout() {
    let shell = Shell::new();
    shell.dir.fifo("site/pipe");
    let mut running =
        child_process::RunningProcess::start(child_process::piped(&mut shell.call(&[
            "echo.wsgi",
            "-d",
            "@pipe",
            "--timeout",
            "1",
        ])));
    running.await_log("no process has written to the named pipe `pipe` for 1 s");
    assert_eq!(running.end().code(), Some(78));
}

#[test]
fn without_data_standard_input_is_left_alone() {
    let shell = Shell::new();
    let ended = child_process::run(&mut shell.call(&["echo.wsgi"]), "not for this program");
    assert_eq!((ended.text().as_str(), ended.code()), ("", Some(0)));
}

#[test]
fn every_byte_of_a_response_arrives_and_nothing_else() {
    let shell = Shell::new();
    shell.file(
        "bytes.wsgi",
        "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            print('printed')
            os.system('echo child')
            for _ in range(100):
                yield bytes(range(256)) * 40
        ",
    );
    let ended = shell.run(&["bytes.wsgi"]);
    let expected: Vec<u8> = (0..=255).cycle().take(256 * 40 * 100).collect();
    assert!(ended.stdout == expected, "{} bytes", ended.stdout.len());
    assert_eq!(ended.stderr, "printed\nchild\n");
}

#[test]
fn data_that_cannot_be_read_is_an_error_and_no_application_is_called() {
    let shell = Shell::new();
    let trace = shell.path("called");
    shell.file("trace.wsgi", "open('called', 'w')");
    for (data, word, code) in
        [("@absent", "absent", 78), ("@.", "directory", 78), ("@", "names no file", 2)]
    {
        let ended = shell.run(&["trace.wsgi", "-d", data]);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(code), ""),
            "{data}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.starts_with("wsgate: error[W0105]: ") && ended.stderr.contains(word),
            "{}",
            ended.stderr
        );
        assert!(!trace.exists());
    }
}

#[test]
fn a_response_is_printed_while_it_is_produced() {
    let shell = Shell::new();
    shell.file(
        "stream.wsgi",
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'first '
            open(environ['GATE']).readline()
            yield b'second'
        ",
    );
    let gate = child_process::Gate::new(&shell.path(""));
    let mut command = shell.call(&["stream.wsgi"]);
    let mut running = child_process::RunningProcess::start(child_process::piped(
        command.env("GATE", gate.path()),
    ));
    running.await_output("first ");
    gate.open();
    assert_eq!(running.end().text(), "first second");
}
