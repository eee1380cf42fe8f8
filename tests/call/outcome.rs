//! Exit codes: 0 for a response, 1 for one that says or is a failure, 2 for wrong words, 78 for
//! wrong settings.

use rustix::process::Signal;

use crate::{
    call::Shell,
    guard::nothing_is_left_of,
    support::{
        assertions::only_log_message,
        child_process::{RunningProcess, piped},
    },
};

#[test]
fn a_response_below_400_is_a_success_and_any_other_a_failure() {
    let shell = Shell::new();
    for (status, code) in [
        ("200", 0),
        ("201", 0),
        ("204", 0),
        ("301", 0),
        ("304", 0),
        ("399", 0),
        ("400", 1),
        ("404", 1),
        ("500", 1),
        ("503", 1),
        ("999", 1),
    ] {
        let ended = shell.run(&["status.wsgi", &format!("/?{status}")]);
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(code), ""), "{status}");
    }
}

#[test]
fn an_application_that_fails_is_a_failure() {
    let shell = Shell::new();
    for (code, message) in [
        ("raise RuntimeError()", "W0301"),
        ("import nowhere", "W0302"),
        ("", "W0303"),
        ("def application(environ, start_response): raise RuntimeError()", "W0501"),
        ("def application(environ, start_response): return 'text'", "W0503"),
        ("import os; os._exit(0)", "W0601"),
        ("import os; os.abort()", "W0603"),
    ] {
        shell.file("fails.wsgi", code);
        let ended = shell.run(&["fails.wsgi"]);
        assert_eq!(ended.code(), Some(1), "{code}: {ended:?}");
        assert_eq!(crate::support::assertions::codes(&ended.stderr), [message], "{code}");
    }
}

#[test]
fn a_response_that_is_cut_is_a_failure() {
    let shell = Shell::new();
    shell.file(
        "cut.wsgi",
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            raise RuntimeError()
        ",
    );
    let ended = shell.run(&["cut.wsgi"]);
    assert_eq!((ended.text().as_str(), ended.code()), ("begun", Some(1)));
}

#[test]
fn a_request_that_takes_too_long_is_a_failure() {
    let shell = Shell::new();
    shell.file("hangs.wsgi", "import signal\nsignal.pause()\n");
    let ended = shell.run(&["hangs.wsgi", "--timeout", "1", "-i"]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.text().starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{}", ended.text());
}

#[test]
fn an_interrupt_from_the_keyboard_stops_the_command() {
    let shell = Shell::new();
    shell.file("hangs.wsgi", "import signal\nprint('works')\nsignal.pause()\n");
    let mut running = RunningProcess::start(piped(&mut shell.call(&["hangs.wsgi"])));
    running.await_log("works\n");
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code(), Some(130));
    assert!(
        only_log_message(&ended.stderr, "W0606").contains("interrupted (SIGINT"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("web server"), "{}", ended.stderr);
}

#[test]
fn the_exit_of_the_shell_kills_a_process_that_does_not_return_from_close() {
    let code = "
        import os, signal, time
        class Body:
            def __iter__(self):
                yield b'all'
            def close(self):
                if 'DEAF' in os.environ:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                print('closing')
                time.sleep(1000)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '3')])
            return Body()
        ";
    let shell = Shell::new();
    shell.file("closes.wsgi", code);
    for (signal, deaf) in
        [(Signal::INT, false), (Signal::HUP, false), (Signal::TERM, false), (Signal::INT, true)]
    {
        let mark = format!("{signal:?} {deaf} {}", shell.dir.path("").display());
        let mut command = shell.call(&["closes.wsgi"]);
        command.env("MARK", &mark).envs(deaf.then_some(("DEAF", "1")));
        let mut running = RunningProcess::start(piped(&mut command));
        running.await_log("closing\n");
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.text(), "all");
        if signal == Signal::INT {
            assert_eq!(ended.code(), Some(130), "{}", ended.stderr);
        }
        let message = only_log_message(&ended.stderr, "W0606");
        assert!(message.contains("`close()` of its response has not returned"), "{message}");
        nothing_is_left_of(&format!("MARK={mark}"));
    }
}

#[test]
fn wrong_arguments_are_an_error_with_exit_code_2() {
    let shell = Shell::new();
    for (args, said) in [
        (&[][..], "<APP>"),
        (&["status.wsgi", "--bogus"], "--bogus"),
        (&["status.wsgi", "/", "more"], "more"),
        (&["status.wsgi", "-H", "no colon"], "`no colon` is not a header"),
        (&["status.wsgi", "-H", "sp ace: x"], "is not a header"),
        (&["status.wsgi", "-H", ": x"], "is not a header"),
        (&["status.wsgi", "-H", "X: a\nb"], "X"),
        (&["status.wsgi", "path"], "`path` is not a target"),
        (&["status.wsgi", "ftp://h/"], "is not a target"),
        (&["status.wsgi", "/a%00"], "its path has a NUL byte (`%00`)"),
        (&["status.wsgi", "--host", ""], "is not a host"),
        (&["status.wsgi", "--host", "a b"], "is not a host"),
        (&["status.wsgi", "--host", "a/b"], "is not a host"),
        (&["status.wsgi", "http:///a"], "is not a host"),
        (&["status.wsgi", "--host", "::1"], "an IPv6 address in brackets"),
        (&["status.wsgi", "--host", "a:b"], "is not a host"),
        (&["status.wsgi", "--host", "a:99999"], "`99999` is not a port, in `a:99999`"),
        (&["status.wsgi", "--host", "[::1]:0"], "`0` is not a port"),
        (&["status.wsgi", "http://a:99999/"], "`99999` is not a port"),
        (&["status.wsgi", "--script-name", "shop"], "such as `/shop`"),
        (&["status.wsgi", "--script-name", "/shop/"], "does not end with one"),
        (&["status.wsgi", "--env", "novalue"], "novalue"),
        (&["status.wsgi", "--env", "=x"], "=x"),
        (&["status.wsgi", "--timeout", "soon"], "soon"),
        (&["status.wsgi", "--timeout", "-1"], "invalid value '-1' for '--timeout <SECONDS>'"),
        (&["status.wsgi", "--mode", "lukewarm"], "it is for CGI, `wsgate check`, `wsgate init`"),
        (&["status.wsgi", "--user", "ada"], "--user has no colon: write USER:PASSWORD"),
        (&["status.wsgi", "-X", "GE T"], "GE T"),
        (&["status.wsgi", "-X", ""], "method"),
        (&["status.wsgi:1x"], "1x"),
        (&[""], "does not name an application"),
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
fn wrong_settings_are_an_error_with_exit_code_78() {
    let shell = Shell::new();
    let lined = shell.file("lined.wsgi", "#!/usr/local/bin/wsgate --bogus\n");
    std::fs::create_dir(shell.path("d.wsgi")).unwrap();
    std::os::unix::fs::symlink("nowhere", shell.path("link.wsgi")).unwrap();
    for (args, code) in [
        (&["./absent.wsgi"][..], "W0102"),
        (&["../site"], "W0102"),
        (&["d.wsgi"], "W0102"),
        (&["link.wsgi"], "W0102"),
        (&["/dev/null"], "W0102"),
        (&["status.wsgi", "--venv", "absent"], "W0201"),
        (&["status.wsgi", "--python", "/absent"], "W0202"),
        (&["status.wsgi", "--python", "no-such-python"], "W0202"),
        (&["status.wsgi", "--chdir", "absent"], "W0105"),
        (&[lined.to_str().unwrap()], "W0103"),
    ] {
        let ended = shell.run(args);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(78), ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert_eq!(crate::support::assertions::codes(&ended.stderr), [code], "{}", ended.stderr);
        assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    }
}
