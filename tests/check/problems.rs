//! Problems of an application.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, process::Command};

use crate::{
    check::{CheckSite, HELLO, line, only_problem},
    support::{child_process, probe::python},
};

#[test]
fn an_application_that_cannot_be_loaded_is_a_problem_with_its_log_message() {
    let site = CheckSite::new();
    for (code, args) in [
        ("import nowhere", "needs the module `nowhere`, which was not found"),
        ("raise RuntimeError('why')", "RuntimeError: why"),
        ("def broken(:", "SyntaxError"),
        ("", "found there: nothing that can be called"),
        ("def page(environ, start_response): pass", "found there: `page`"),
        ("", "there is no `application` or `app`"),
        ("application = 'text'", "which cannot be called"),
        ("import sys; sys.exit(1)", "called `sys.exit` while it was loaded"),
    ] {
        let ended = site.check_code(code);
        let text = ended.text();
        only_problem(&ended, args);
        assert!(text.contains("hint: "), "{text}");
        assert!(
            line(&text, "python ").starts_with("3."),
            "earlier findings are reported, too: {text}"
        );
    }
}

#[test]
fn an_application_that_crashes_python_is_a_problem_with_its_log_message() {
    let site = CheckSite::new();
    for (code, message) in [
        (
            "import os; \
        os._exit(3)",
            "W0601",
        ),
        (
            "import os; \
        os.abort()",
            "W0603",
        ),
    ] {
        let ended = site.check_code(code);
        only_problem(&ended, "python exited before it could report more");
        assert_eq!(crate::support::assertions::codes(&ended.stderr), [message], "{}", ended.stderr);
    }
}

#[test]
fn an_application_that_does_not_finish_is_killed() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE --timeout 1", "import time\ntime.sleep(1000)\n");
    let ended = site.check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(1), "{}", ended.text());
    assert!(
        format!("{}{}", ended.text(), ended.stderr).contains("W0305"),
        "{}{}",
        ended.text(),
        ended.stderr
    );
}

#[test]
fn a_script_that_is_not_executable_is_a_problem_and_a_module_is_none() {
    let site = CheckSite::new();
    let script = site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "is not executable");
    assert!(ended.text().contains("hint: chmod +x"), "{}", ended.text());
}

#[test]
fn wrong_options_on_the_first_line_are_an_error_with_exit_code_78() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE --bogus", HELLO);
    let ended = site.check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(78));
    assert!(ended.stderr.contains("W0103") && ended.stderr.contains("--bogus"), "{}", ended.stderr);
}

#[test]
fn unusable_settings_are_an_error_with_exit_code_78() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    for (args, code) in [
        (&["./absent.wsgi"][..], "W0102"),
        (&["../site"], "W0102"),
        (&["app.wsgi", "--venv", "absent"], "W0201"),
        (&["app.wsgi", "--python", "/absent"], "W0202"),
        (&["app.wsgi", "--chdir", "absent"], "W0105"),
    ] {
        let ended = site.check(args);
        assert_eq!(ended.code(), Some(78), "{args:?}: {}", ended.text());
        assert_eq!(crate::support::assertions::codes(&ended.stderr), [code], "{args:?}");
        assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    }
    let ended = child_process::run(site.command(&["app.wsgi"]).env("WSGATE_ENGINE", "/absent"), "");
    assert_eq!(ended.code(), Some(78));
    assert_eq!(crate::support::assertions::codes(&ended.stderr), ["W0203"]);
}

#[test]
fn what_is_no_factory_is_recognised_when_it_is_called() {
    let site = CheckSite::new();
    let remove = "looks like the application itself: remove `()`, as in `/";
    for (code, said) in [
        ("def made(environ, start_response): pass", remove),
        ("class Site:\n    def __call__(self, e, s): pass\nmade = Site()\n", remove),
        ("def made(config, *, debug): pass", "without arguments that calls this one"),
        ("made = 5", "without arguments that calls this one"),
        // An error of the factory's own code is one of loading.
        ("def made(): return 1 + ''", "W0301"),
    ] {
        site.dir.script("site/app.wsgi", "#!WSGATE", code);
        only_problem(&site.check(&["app.wsgi:made()"]), said);
    }
}

#[test]
fn a_limit_of_open_files_is_named() {
    let site = CheckSite::new();
    site.dir.script("public_html/app.wsgi", "#!WSGATE", HELLO);
    for limit in ["5", "6", "8"] {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", "ulimit -n $0; exec \"$@\"", limit]).arg(site.dir.wsgate());
        command.args(["check", "--user", "daemon", "../public_html/app.wsgi"]);
        command.current_dir(site.dir.path("site"));
        let ended = child_process::run(&mut command, "");
        let said = ended.text() + &ended.stderr;
        assert_eq!(ended.code(), Some(1), "{limit}: {said}");
        // The words before the number are those of the C library.
        assert!(
            said.contains("(os error 24)") && said.contains("raise it (`ulimit -n`"),
            "{limit}: {said}"
        );
        assert!(!said.contains("took longer"), "{limit}: {said}");
    }
}

#[test]
fn a_script_may_have_a_name_that_is_not_utf_8() {
    let site = CheckSite::new();
    let plain = site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    let name = OsStr::from_bytes(b"caf\xe9.wsgi");
    fs::rename(plain, site.dir.path("site").join(name)).unwrap();
    for callable in ["", ":application"] {
        let argument = [name.as_bytes(), callable.as_bytes()].concat();
        let ended = child_process::run(site.command(&[]).arg(OsStr::from_bytes(&argument)), "");
        assert_eq!(ended.code(), Some(0), "{} {}", ended.text(), ended.stderr);
        assert_eq!(line(&ended.text(), "application "), format!("caf\\xe9.wsgi{callable}"));
        let mut call = Command::new(site.dir.wsgate());
        call.arg("call").arg(OsStr::from_bytes(&argument)).current_dir(site.dir.path("site"));
        let called = child_process::run(&mut call, "");
        assert_eq!(called.text(), "hello", "{}", called.stderr);
    }
}

#[test]
fn a_virtualenv_is_reported_with_the_python_version_that_created_it() {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    let venv = site.dir.path("site/venv");
    let made =
        Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap();
    assert!(made.success());
    let ended = site.check(&["app.wsgi"]);
    let text = ended.text();
    assert_eq!(ended.code(), Some(0), "{text}");
    assert!(
        line(&text, "virtualenv ")
            .starts_with(&format!("{}, created by Python 3.", venv.display())),
        "{text}"
    );
    assert!(
        line(&text, "interpreter ").contains("venv/bin/python (found beside the script"),
        "{text}"
    );

    let description = fs::read_to_string(venv.join("pyvenv.cfg")).unwrap();
    let other: String = description
        .lines()
        .map(|line| {
            if line.starts_with("version") {
                "version = 3.1.4\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    fs::write(venv.join("pyvenv.cfg"), other).unwrap();
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "the virtualenv was created by Python 3.1; its python is 3.");
}
