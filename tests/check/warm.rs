//! The finding of `wsgate check`: may the application be loaded once and forked, and if not, which
//! module prevents it?

use std::os::unix::net::UnixListener;

use crate::{
    check::{CheckSite, HELLO, line},
    support::probe::dedent,
};

/// The last line about an application that works and cannot be forked.
const NOT_FIT: &str = "the application is not fit for --mode warm and --preload: see `warm` above; \
    no other problem was found\n";

impl CheckSite {
    /// The finding about a script that imports `app.db`, whose code is `module`.
    #[track_caller]
    pub(super) fn fitness(&self, module: &str) -> String {
        self.dir.file("site/app/__init__.py", "");
        self.dir.file("site/app/db.py", module);
        let ended = self.check_code(&format!("import app.db\n{}", dedent(HELLO)));
        let text = ended.text();
        assert_eq!(
            ended.code(),
            Some(0),
            "it is no problem for other modes: {text}{}",
            ended.stderr
        );
        let is_fit = text.contains("\nwarm           fit: ");
        let last = if is_fit { "no problem was found\n" } else { NOT_FIT };
        assert!(text.ends_with(last) && text.contains("no problem was found") == is_fit, "{text}");
        let (_, reported) = text.split_once("\nwarm ").unwrap_or_else(|| panic!("{text}"));
        let mut lines = reported.lines();
        let first = lines.next().unwrap().trim().to_owned();
        let rest = lines.take_while(|line| line.starts_with(' ')).map(str::trim);
        std::iter::once(first.as_str()).chain(rest).collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn an_application_that_leaves_nothing_behind_is_fit() {
    let site = CheckSite::new();
    let closes = "
        import socket, sqlite3, threading
        with open(__file__) as file: file.read()
        socket.socket().close()
        sqlite3.connect(':memory:')
        thread = threading.Thread(target=int)
        thread.start(); thread.join()
        null = open('/dev/null')
        ";
    for module in ["", closes] {
        assert_eq!(site.fitness(module), "fit: nothing is left open or running after import");
    }
}

#[test]
fn files_left_open_and_threads_left_running_are_reported_with_module_and_line() {
    let site = CheckSite::new();
    let path = |name: &str| site.dir.path("site").join(name).display().to_string();
    let listener = UnixListener::bind(site.dir.path("site/db.sock")).unwrap();
    let cases = [
        (
            "import threading\ngo = threading.Event()\nfor _ in range(2): \
                threading.Thread(target=go.wait, daemon=True).start()",
            3,
            "started 2 threads".to_owned(),
        ),
        (
            &format!(
                "import socket\n\nthe = socket.socket(socket.AF_UNIX)\nthe.connect('{}')",
                path("db.sock")
            ),
            3,
            format!("connected to `{}`", path("db.sock")),
        ),
        (
            "import sqlite3\ndef connect():\n  the = sqlite3.connect('db.sqlite')\n  \
                the.execute('create table if not exists t (c)')\n  return the\nthe = connect()",
            3,
            format!("opened the SQLite database `{}`", path("db.sqlite")),
        ),
        (
            "the = open(__file__)",
            1,
            format!("opened the file `{}` to read it, at a position", path("app/db.py")),
        ),
        (
            "import os\nthe, other = os.pipe()\nos.close(other)",
            2,
            "opened one end of a pipe, descriptor ".to_owned(),
        ),
        ("import select\n\n\nthe = select.epoll()", 4, "`anon_inode:[eventpoll]`".to_owned()),
    ];
    for (module, number, what) in cases {
        let reported = site.fitness(module);
        assert!(
            reported.starts_with(&format!("not fit: module `app.db` (line {number}) ")),
            "{reported}"
        );
        assert!(reported.contains(&what), "{what}: {reported}");
        assert!(reported.contains("--mode warm"), "{reported}");
    }
    drop(listener);
}

#[test]
fn several_findings_are_reported_each_with_its_own_module() {
    let site = CheckSite::new();
    site.dir.file(
        "site/jobs.py",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    );
    let reported = site.fitness("import jobs\nthe = open(__file__)");
    assert!(
        reported.contains(
            "module `jobs` (line 2) started 1 thread\nmodule `app.db` (line 2) opened the file "
        ),
        "{reported}"
    );
}

#[test]
fn the_script_itself_is_reported_by_its_file_name() {
    let site = CheckSite::new();
    let ended = site.check_code(&format!("the = open(__file__)\n{}", dedent(HELLO)));
    let text = ended.text();
    assert!(
        line(&text, "warm ").starts_with("not fit: module `app.wsgi` (line 2) opened the file "),
        "{text}"
    );
}

#[test]
fn findings_in_an_installed_package_are_attributed_to_the_code_that_calls_it() {
    let site = CheckSite::new();
    // Its C code opens without telling Python.
    site.dir.file(
        "site/site-packages/driver.py",
        "
        import ctypes
        def connect():
            libc = ctypes.CDLL(None)
            assert libc.socket(1, 1, 0) > 2
        ",
    );
    let reported = site
        .fitness("import sys\nsys.path.append('site-packages')\nimport driver\n\ndriver.connect()");
    assert!(
        reported
            .starts_with("not fit: module `app.db` (line 5), through `driver`, opened a socket, "),
        "{reported}"
    );
}

#[test]
fn a_file_that_is_only_appended_to_does_no_harm() {
    let site = CheckSite::new();
    let reported = site.fitness("import logging\nlogging.basicConfig(filename='app.log')");
    assert!(reported.starts_with("fit: module `app.db` (line 2) opened the file "), "{reported}");
    assert!(reported.contains("app.log` to append to it\n"), "{reported}");
}

#[test]
fn the_last_line_and_the_exit_code_say_that_the_requested_mode_is_not_available() {
    let site = CheckSite::new();
    let threads =
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n";
    let file = "the = open('data', 'w')\n";
    for (mode, module, code) in [
        ("cold", threads, 0),
        ("cold", file, 0),
        ("warm", threads, 1),
        ("warm", file, 1),
        ("resident", threads, 0),
        ("resident", file, 1),
    ] {
        site.dir.script(
            "site/app.wsgi",
            &format!("#!WSGATE --mode {mode}"),
            &format!("{module}{}", dedent(HELLO)),
        );
        let ended = site.check(&["app.wsgi"]);
        let text = ended.text();
        assert_eq!(ended.code(), Some(code), "{mode}: {text}");
        if code == 0 {
            assert!(text.ends_with(NOT_FIT), "{text}");
        } else {
            let problem = line(&text, "problem ");
            let said =
                format!("the application is not fit for its --mode {mode}: see `warm` above");
            assert!(problem.ends_with(&said), "{text}");
            assert!(text.ends_with("\n1 problem was found\n"), "{text}");
        }
    }
}

#[test]
fn what_a_warm_up_request_opens_counts_too() {
    let site = CheckSite::new();
    let code = "
        def application(environ, start_response):
            global the
            if environ['PATH_INFO'] == '/open':
                the = open(__file__)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'hello']
        ";
    site.dir.script("site/app.wsgi", "#!WSGATE --warm-up /open", code);
    let text = site.check(&["app.wsgi"]).text();
    assert!(
        line(&text, "warm ").starts_with("not fit: module `app.wsgi` (line 6) opened the file "),
        "{text}"
    );
}
