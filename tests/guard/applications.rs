//! Applications that end otherwise than by returning.

use crate::{
    guard::page,
    support::{
        assertions::{complete_response, only_log_message, parse_response},
        child_process::{self},
        probe::Probe,
    },
};

/// A table of ways to fail: in the application before its response.
const FAILING: [(&str, u16, &str, &str); 22] = [
    ("raise ValueError('secret')", 500, "W0501", "ValueError: secret"),
    ("raise KeyboardInterrupt()", 500, "W0501", "KeyboardInterrupt"),
    ("raise GeneratorExit()", 500, "W0501", "GeneratorExit"),
    ("raise StopIteration()", 500, "W0501", "StopIteration"),
    ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()", 500, "W0501", "Odd"),
    ("raise ValueError('\\ud800\\x00\\n\\u20ac')", 500, "W0501", "ValueError"),
    ("raise ValueError('x' * 10000000)", 500, "W0501", "ValueError"),
    ("(lambda f: f(f))(lambda f: f(f))", 500, "W0501", "RecursionError"),
    ("return [b'x' * (1 << 62)]", 500, "W0501", "MemoryError"),
    ("sys.exit()", 500, "W0501", "sys.exit"),
    ("sys.exit('words')", 500, "W0501", "words"),
    ("sys.exit(0)", 500, "W0501", "sys.exit"),
    ("raise SystemExit(3)", 500, "W0501", "sys.exit"),
    ("os._exit(0)", 500, "W0601", "exited with status 0"),
    ("os._exit(7)", 500, "W0601", "exited with status 7"),
    ("os.abort()", 502, "W0603", "SIGABRT"),
    ("ctypes.string_at(0)", 502, "W0603", "SIGSEGV"),
    ("os.kill(os.getpid(), signal.SIGKILL)", 502, "W0603", "SIGKILL"),
    ("os.kill(os.getpid(), signal.SIGALRM)", 502, "W0603", "SIGALRM"),
    ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(1000)", 503, "W0606", "stopped by SIGTERM"),
    ("return None", 500, "W0503", "None"),
    ("return 'text'", 500, "W0503", "str"),
];

#[test]
fn an_application_that_fails_before_it_responses_is_answered_for() {
    for (statement, status, code, args) in FAILING {
        let app = format!(
            "import ctypes, os, signal, sys, time\n\
             def application(environ, start_response):\n    \
             start_response('200 OK', [('Content-Type', 'text/plain')])\n    {statement}\n"
        );
        let response = Probe::new(&app).run();
        let message = page(&response, status, code);
        assert!(message.contains(args), "{statement}: {message}");
    }
}

#[test]
fn an_application_that_fails_while_it_is_loaded_is_answered_for() {
    for (statement, status, code, args) in FAILING {
        if statement.starts_with("return") {
            continue;
        }
        let response =
            Probe::new(&format!("import ctypes, os, signal, sys, time\n{statement}\n")).run();
        let code = match code {
            "W0501" if args.contains("exit") || args == "words" => "W0304",
            "W0501" => "W0301",
            other => other,
        };
        page(&response, status, code);
    }
}

#[test]
fn a_failure_after_the_response_headers_cuts_the_response_and_sends_no_second_headers() {
    for (statement, _, code, _) in FAILING {
        if statement.starts_with("return") || statement == "raise GeneratorExit()" {
            continue;
        }
        let app = format!(
            "import ctypes, os, signal, sys, time\n\
             def application(environ, start_response):\n    \
             start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', \
             '100')])\n    \
             yield b'begun'\n    {statement}\n"
        );
        let response = Probe::new(&app).run();
        let head = parse_response(&response.raw).unwrap();
        assert_eq!(
            (head.status, head.body.as_slice(), response.exit.code()),
            (200, &b"begun"[..], Some(1)),
            "{statement}"
        );
        let code = match code {
            "W0501" => "W0502",
            "W0601" | "W0603" => "W0602",
            other => other,
        };
        only_log_message(&response.log, code);
    }
}

#[test]
fn a_crash_leaves_the_python_stack_in_the_log() {
    let app = "
        import ctypes
        def the_guilty_one():
            ctypes.string_at(0)
        def application(environ, start_response):
            the_guilty_one()
        ";
    let response = Probe::new(app).run();
    page(&response, 502, "W0603");
    assert!(response.log.contains("in the_guilty_one"), "{}", response.log);
}

#[test]
fn a_failing_import_is_named_with_its_kind() {
    for (app, code, args) in [
        ("import nowhere.at_all", "W0302", "`nowhere`"),
        ("def application(:", "W0301", "SyntaxError"),
        ("\0", "W0301", "raised"),
        ("\u{feff}def broken", "W0301", "SyntaxError"),
        ("application = 1", "W0303", "cannot be called"),
        ("def app1(environ, start_response): pass", "W0303", "there is no `application` or `app`"),
        ("", "W0303", "there is no `application` or `app`"),
        ("from os import nowhere", "W0301", "ImportError"),
        ("# coding: latin-9-and-a-half\n", "W0301", "SyntaxError"),
    ] {
        let response = Probe::new(app).run();
        assert!(page(&response, 500, code).contains(args), "{app:?}: {}", response.log);
    }
}

#[test]
fn with_debug_the_page_shows_the_traceback() {
    for app in [
        "raise ValueError('<secret>')",
        "def application(environ, start_response): raise ValueError('<secret>')",
    ] {
        let response = Probe::new(app).options(&["--debug"]).run();
        let text = String::from_utf8(complete_response(&response.raw).body).unwrap();
        assert!(
            text.contains("Traceback")
                && text.contains("&lt;secret&gt;")
                && !text.contains("<secret>"),
            "{text}"
        );
    }
}

#[test]
fn the_error_page_and_the_log_message_name_the_same_request() {
    for (statement, ..) in [FAILING[0], FAILING[14], FAILING[17]] {
        let app =
            format!("import os, signal\ndef application(environ, start_response): {statement}\n");
        let probe = Probe::new(&app).variable("REQUEST_URI", "/cgi-bin/app.wsgi?q=1");
        let response = probe.run();
        let text = response.text();
        let id = text.split("<code>").nth(1).and_then(|rest| rest.split("</code>").next()).unwrap();
        assert!(
            response.log.contains(&format!("request: {id} GET /cgi-bin/app.wsgi?q=1 pid ")),
            "{id}: {}",
            response.log
        );
        // Apache's mod_unique_id names it in the access log, too.
        let response = probe.variable("UNIQUE_ID", "ZzUnIqUe-0@_Id").run();
        assert!(
            response.text().contains("ZzUnIqUe-0@_Id")
                && response.log.contains("request: ZzUnIqUe-0@_Id GET"),
            "{response:?}"
        );
    }
}

#[test]
fn an_application_that_closes_all_descriptors_gets_a_valid_response() {
    // Code that makes itself a daemon does this.
    let app = "
        import os
        def application(environ, start_response):
            os.closerange(3, 256)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'hello']
        ";
    let response = Probe::new(app).run();
    let page = complete_response(&response.raw);
    assert!([500, 502].contains(&page.status) && response.exit.code() == Some(0), "{response:?}");
    assert!(!response.codes().is_empty());
}

#[test]
fn a_forked_child_that_falls_out_of_the_application_sends_no_second_response() {
    let falling = "
        import os
        def application(environ, start_response):
            child = os.fork()
            if child == 0:
                FALL
            os.waitpid(child, 0)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'the parent']
        ";
    for fall in [
        "raise RuntimeError('in the child')",
        "return []",
        "start_response('404 Not Found', []); return [b'the child']",
    ] {
        let response = Probe::new(&falling.replace("FALL", fall)).run();
        assert_eq!(
            (complete_response(&response.raw).body.as_slice(), response.exit.code()),
            (&b"the parent"[..], Some(0)),
            "{fall}: {response:?}"
        );
    }
}

#[test]
fn a_child_process_that_outlives_the_application_does_not_hold_the_response() {
    let app = "
        import os, subprocess
        def application(environ, start_response):
            subprocess.Popen(['sleep', '1000'], stderr=subprocess.DEVNULL, \
            stdout=subprocess.DEVNULL, close_fds=False)
            os._exit(1)
        ";
    let probe = Probe::new(app);
    let mark = format!("MARK={}", probe.directory().display());
    let mut command = probe.command(crate::support::probe::Implementation::Wsgate);
    let ended = child_process::run(command.env("MARK", probe.directory()), "");
    crate::guard::page_of(&ended, 500, "W0601");
    for pid in crate::guard::marked(&mark) {
        // The child process may keep running. The test must kill it.
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }
}
