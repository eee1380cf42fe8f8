//! The first request, which reports what a real one would.

use std::time::{Duration, Instant};

use crate::{
    check::{CheckSite, HELLO, line, only_problem},
    support::{assertions::codes, child_process, probe::dedent},
};

#[test]
fn the_first_request_reports_what_a_real_one_would() {
    let site = CheckSite::new();
    for (body, code, said) in [
        ("raise RuntimeError('why')", "W0501", "RuntimeError: why"),
        ("return 'text'", "W0503", "encode the text and put it into a list"),
        ("pass", "W0503", "return [] for an empty body"),
        ("return [b'x']", "W0503", "start_response"),
        ("import PIL_is_absent", "W0501", "the distribution may have another name"),
    ] {
        let ended =
            site.check_code(&format!("def application(environ, start_response):\n    {body}\n"));
        only_problem(&ended, code);
        let text = ended.text();
        assert!(text.contains(said) && !text.contains("AssertionError"), "{text}");
        assert!(line(&text, "callable ").starts_with("application"), "{text}");
        assert!(text.ends_with("\n1 problem was found\n"), "{text}");
    }
}

#[test]
fn what_only_the_validator_refuses_is_a_warning() {
    let site = CheckSite::new();
    for (body, said) in [
        (
            "start_response('204 No Content', [('Content-Type', 'text/plain')]); return []",
            "Content-Type header found in a 204 response",
        ),
        (
            "start_response('200 OK', [('Content-Type', 'text/plain'), ('X-', 'y')]); return []",
            "Names may not end in",
        ),
    ] {
        let ended =
            site.check_code(&format!("def application(environ, start_response):\n    {body}\n"));
        let text = ended.text();
        assert_eq!(ended.code(), Some(0), "{text}{}", ended.stderr);
        let warning = line(&text, "warning ");
        assert!(warning.starts_with("wsgiref.validate: "), "{text}");
        assert!(warning.to_lowercase().contains(&said.to_lowercase()), "{text}");
        assert!(text.ends_with("\nno problem was found; 1 warning\n"), "{text}");
    }
}

#[test]
fn a_first_request_that_is_answered_with_500_is_a_problem() {
    let site = CheckSite::new();
    for (status, code) in [("200 OK", 0), ("404 Not Found", 0), ("500 Oh", 1), ("503 Later", 1)] {
        let ended = site.check_code(&HELLO.replace("200 OK", status));
        assert_eq!(ended.code(), Some(code), "{}", ended.text());
        if code == 1 {
            only_problem(&ended, &format!("GET / returned {status}"));
        }
        let has_note = ended.text().contains("the application has no page at /");
        assert_eq!(has_note, status.starts_with("404"), "{}", ended.text());
    }
}

#[test]
fn target_and_mount_are_those_of_the_first_request() {
    let site = CheckSite::new();
    let code = "
        def application(environ, start_response):
            names = ('wsgi.url_scheme', 'HTTP_HOST', 'SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING')
            print('|'.join(environ[name] for name in names))
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'hello']
        ";
    site.dir.script("site/app.wsgi", "#!WSGATE", code);
    for (args, line, seen) in [
        (&[][..], "GET / ", "http|localhost||/|"),
        (&["/a%20b?c=d"], "GET /a%20b?c=d ", "http|localhost||/a b|c=d"),
        (&["--script-name", "/shop"], "GET /shop/ ", "http|localhost|/shop|/|"),
        (&["--script-name", "/shop", "/cart"], "GET /shop/cart ", "http|localhost|/shop|/cart|"),
        (
            &["--script-name", "/shop", "https://x.example:8443/shop/cart?a"],
            "GET /shop/cart?a ",
            "https|x.example:8443|/shop|/cart|a",
        ),
    ] {
        let ended = site.check(&[&["app.wsgi"], args].concat());
        assert_eq!(ended.code(), Some(0), "{args:?}: {}{}", ended.text(), ended.stderr);
        assert!(
            ended.text().contains(&format!("\nfirst request  {line}returned 200 OK in ")),
            "{}",
            ended.text()
        );
        // The second request is that of the validator.
        assert_eq!(ended.stderr, format!("{seen}\n{seen}\n"), "{args:?}");
    }
}

#[test]
fn nothing_that_is_checked_has_no_time_limit() {
    let site = CheckSite::new();
    let served = "
        from wsgiref.simple_server import make_server
        def application(environ, start_response): return []
        make_server('127.0.0.1', 0, application).serve_forever()
        ";
    let request = "
        import time
        def application(environ, start_response): time.sleep(600)
        ";
    let child = "import subprocess\nsubprocess.run(['sleep', '600'])\n";
    for (code, said) in [(served, "W0305"), (request, "W0604"), (child, "W0305")] {
        // The line sets no limit for requests, which a check has all the same.
        site.dir.script("site/app.wsgi", "#!WSGATE --timeout 0", code);
        let begin = Instant::now();
        let ended = site.check(&["--timeout", "1", "app.wsgi"]);
        assert!(begin.elapsed() < Duration::from_secs(60));
        assert_eq!(ended.code(), Some(1), "{}", ended.text());
        let all = format!("{}{}", ended.text(), ended.stderr);
        assert!(all.contains(said), "{all}");
    }
}

#[test]
fn a_damaged_engine_is_a_problem_with_its_log_message() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    let engine = std::fs::read(site.dir.path("bin/libwsgate_engine.so")).unwrap();
    for content in [&engine[..10_000], b"", b"text"] {
        let damaged = site.dir.path("damaged.so");
        std::fs::write(&damaged, content).unwrap();
        let mut command = site.command(&["app.wsgi"]);
        let ended = child_process::run(command.env("WSGATE_ENGINE", &damaged), "");
        only_problem(&ended, "python exited before it could report more");
        assert_eq!(codes(&ended.stderr), ["W0206"], "{}", ended.stderr);
        assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    }
}

#[test]
fn a_virtualenv_that_is_not_used_is_named() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    let venv = site.dir.path("site/venv");
    std::fs::create_dir(&venv).unwrap();
    let ended = site.check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    let warning = format!("`{}` is not used: it has no pyvenv.cfg", venv.display());
    assert!(line(&ended.text(), "warning ").starts_with(&warning), "{}", ended.text());

    // Any user could have made it.
    std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
    std::os::unix::fs::chown(&venv, Some(54321), None).unwrap();
    let ended = site.check(&["app.wsgi"]);
    let warning = format!("`{}` is not used: it belongs to user 54321", venv.display());
    assert!(line(&ended.text(), "warning ").starts_with(&warning), "{}", ended.text());

    site.dir.script("site/app.wsgi", "#!WSGATE", &format!("import nowhere\n{}", dedent(HELLO)));
    let ended = site.check(&["app.wsgi"]);
    assert!(ended.text().contains("hint: "), "{}", ended.text());
    let hint = ended.text();
    let (_, hint) = hint.rsplit_once("hint: ").unwrap();
    assert!(hint.contains("is not used: it belongs to user 54321"), "{hint}");
    assert!(!hint.contains("no virtualenv is in use"), "{hint}");
}
