//! One engine, every CPython: the same applications on each version that this machine has.
//!
//! `WSGATE_TEST_PYTHONS` names the interpreters, with colons between them; without it, those of
//! pyenv and those named `python3.9` to `python3.13` on the PATH. Where `CI` is `true`, none of the
//! versions may be missing.

mod interpreters;

use std::{fs, process::Command};

use crate::{
    matrix::interpreters::{on_each, pythons},
    pool::titles::{TELLS, assert_unharmed},
    support::{
        artefacts,
        assertions::{complete_response, only_log_message, parse_response},
        probe::Probe,
    },
};

#[test]
fn the_hello_of_the_samples_works() {
    let code =
        fs::read_to_string(crate::support::web_servers::source("cgi-bin/hello.wsgi")).unwrap();
    on_each(
        &code,
        |probe| probe,
        |version, response| {
            assert_eq!(
                (response.status.as_str(), response.log.as_str(), response.exit.code()),
                ("200 OK", "", Some(0)),
                "{version}"
            );
            assert!(
                complete_response(&response.raw).body.starts_with(b"Hello"),
                "{version}: {response:?}"
            );
        },
    );
}

#[test]
fn the_application_runs_in_the_interpreter_that_was_named() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%d.%d' % sys.version_info[:2]).encode()]
        ";
    on_each(code, |probe| probe, |version, response| assert_eq!(response.text(), version));
}

#[test]
fn the_input_can_be_read_in_every_way() {
    let code = "
        def application(environ, start_response):
            stream = environ['wsgi.input']
            read = [stream.read(3), stream.readline(), stream.readline(2), stream.readlines(4), \
            next(stream), list(stream)]
            read += [stream.read(), stream.readline(), stream.readlines()]
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(read).encode()]
        ";
    let expected = "[b'fir', b'st\\n', b'se', [b'cond\\n'], b'third\\n', [b'fourth\\n', b'fifth'], \
        b'', b'', []]";
    on_each(
        code,
        |probe| probe.post("first\nsecond\nthird\nfourth\nfifth"),
        |version, response| {
            assert_eq!(
                (response.text().as_str(), response.log.as_str()),
                (expected, ""),
                "{version}"
            );
        },
    );
}

#[test]
fn a_large_input_arrives_whole() {
    let code = "
        import hashlib
        def application(environ, start_response):
            body = environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(len(body)).encode(), b' ', hashlib.md5(body).hexdigest().encode()]
        ";
    // MD5 of two million times `x`, as md5sum(1) has it.
    let expected = format!("2000000 {}", md5_of_x(2_000_000));
    on_each(
        code,
        |probe| probe.post(vec![b'x'; 2_000_000]),
        |version, response| {
            assert_eq!(response.text(), expected, "{version}");
        },
    );
}

fn md5_of_x(count: usize) -> String {
    let command = format!("head -c {count} /dev/zero | tr '\\0' x | md5sum");
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_generator_is_streamed_and_closed() {
    let code = "
        def application(environ, start_response):
            try:
                start_response('200 OK', [('Content-Type', 'text/plain')])
                for number in range(3):
                    yield b'%d ' % number
            finally:
                print('closed')
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(
                (response.text().as_str(), response.log.as_str()),
                ("0 1 2 ", "closed\n"),
                "{version}"
            );
            assert_eq!(response.header("Content-Length"), None, "{version}");
        },
    );
}

#[test]
fn write_and_file_wrapper_send_bytes() {
    let code = "
        import tempfile
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            write(b'written ')
            file = tempfile.TemporaryFile()
            file.write(b'skipped from a file')
            file.seek(8)
            return environ['wsgi.file_wrapper'](file)
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| assert_eq!(response.text(), "written from a file", "{version}"),
    );
}

#[test]
fn an_error_handler_replaces_a_response_that_has_not_begun() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            try:
                raise ValueError('why')
            except ValueError:
                start_response('503 Sorry', [('Content-Type', 'text/html')], sys.exc_info())
                return [b'sorry']
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(
                (response.status.as_str(), response.text().as_str(), response.log.as_str()),
                ("503 Sorry", "sorry", ""),
                "{version}"
            );
            assert_eq!(response.header("Content-Type"), Some("text/html"), "{version}");
        },
    );
}

#[test]
fn an_error_handler_that_comes_too_late_gets_its_exception_back() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            try:
                raise ValueError('why')
            except ValueError:
                start_response('503 Sorry', [], sys.exc_info())
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(
                (
                    parse_response(&response.raw).unwrap().status,
                    response.text().as_str(),
                    response.exit.code()
                ),
                (200, "begun", Some(1))
            );
            assert!(
                only_log_message(&response.log, "W0502").contains("ValueError: why"),
                "{version}: {}",
                response.log
            );
        },
    );
}

#[test]
fn what_is_printed_goes_to_the_log() {
    let code = "
        import os, subprocess, sys
        def application(environ, start_response):
            print('printed \\u20ac \\udc80')
            environ['wsgi.errors'].write('written\\n')
            subprocess.run(['echo', 'child'])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'body']
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(response.text(), "body", "{version}");
            assert_eq!(response.log, "printed \u{20ac} \\udc80\nwritten\nchild\n", "{version}");
        },
    );
}

#[test]
fn an_exception_is_logged_with_its_traceback() {
    let code = "
        def the_guilty_one():
            raise ValueError('why')
        def application(environ, start_response):
            the_guilty_one()
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(complete_response(&response.raw).status, 500, "{version}");
            only_log_message(&response.log, "W0501");
            assert!(
                response.log.contains("in the_guilty_one")
                    && response.log.contains("ValueError: why"),
                "{version}: {}",
                response.log
            );
        },
    );
}

#[test]
fn a_crash_is_answered_for() {
    let code = "
        import ctypes
        def application(environ, start_response):
            ctypes.string_at(0)
        ";
    on_each(
        code,
        |probe| probe,
        |version, response| {
            assert_eq!(
                (complete_response(&response.raw).status, response.exit.code()),
                (502, Some(0)),
                "{version}"
            );
            only_log_message(&response.log, "W0603");
            assert!(response.log.contains("in application"), "{version}: {}", response.log);
        },
    );
}

#[test]
fn a_request_that_takes_too_long_is_ended() {
    let code = "
        def application(environ, start_response):
            while True: pass
        ";
    on_each(
        code,
        |probe| probe.options(&["--timeout", "3"]),
        |version, response| {
            assert_eq!(
                (complete_response(&response.raw).status, response.exit.code()),
                (504, Some(0)),
                "{version}"
            );
            only_log_message(&response.log, "W0604");
        },
    );
}

#[test]
fn a_virtualenv_sees_its_own_packages() {
    for (version, program) in pythons() {
        let room = tempfile::TempDir::new().unwrap();
        let venv = room.path().join("venv");
        let made = Command::new(program)
            .args(["-m", "venv", "--without-pip"])
            .arg(&venv)
            .status()
            .unwrap();
        assert!(made.success(), "{version}");
        let packages = venv.join(format!("lib/python{version}/site-packages"));
        fs::write(packages.join("only_here.py"), "NAME = b'only here'").unwrap();
        let code = "
            import only_here
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [only_here.NAME]
            ";
        let response = Probe::new(code).python(venv.join("bin/python")).run();
        assert_eq!(
            (response.text().as_str(), response.log.as_str()),
            ("only here", ""),
            "{version}"
        );
    }
}

#[test]
fn check_reports_the_version() {
    for (version, program) in pythons() {
        let room = tempfile::TempDir::new().unwrap();
        fs::write(
            room.path().join("app.py"),
            "def app(environ, start_response): start_response('204 No', []); return []",
        )
        .unwrap();
        let mut command = Command::new(artefacts::gateway());
        let ended = crate::support::child_process::run(
            command
                .args(["check", "app.py", "--python"])
                .arg(program)
                .env_clear()
                .current_dir(&room),
            "",
        );
        let text = ended.text();
        let reported = text.lines().find_map(|line| line.strip_prefix("python ")).unwrap().trim();
        assert!(reported.starts_with(&format!("{version}.")), "{version}: {text}");
        assert!(text.contains("valid under wsgiref.validate"), "{version}: {text}");
    }
}

#[test]
fn the_title_of_a_process_leaves_arguments_and_environment_alone() {
    on_each(
        TELLS,
        |probe| probe.variable("REQUEST_URI", "/title?secret"),
        |version, response| {
            let facts: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
            assert_eq!(facts["title"], "wsgate: cgi GET /title\0", "{version}");
            assert_unharmed(&facts, ("REQUEST_URI", "/title?secret"));
        },
    );
}
