//! `wsgate check`: what is found, and what is wrong.

mod audit;
mod budget;
mod config_file;
mod exposed;
mod files;
mod first_line;
mod interpreters;
mod problems;
mod random_state;
mod requests;
mod users;
mod warm;

use std::process::Command;

use crate::support::{
    child_process::{
        ExitedProcess, {self},
    },
    install_dir::InstallDir,
    probe::python,
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// A site that a person has a look at.
struct CheckSite {
    dir: InstallDir,
}

impl CheckSite {
    fn new() -> Self {
        let dir = InstallDir::new();
        std::fs::create_dir(dir.path("site")).unwrap();
        Self { dir }
    }

    /// The command `wsgate check` with `args`, from the site's directory.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.command_without_user();
        // A user that every machine has and that owns nothing.
        command.args(["--user", "daemon"]).args(args);
        command
    }

    /// The command `wsgate check`, from the site's directory.
    fn command_without_user(&self) -> Command {
        let mut command = Command::new(self.dir.wsgate());
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", python().parent().unwrap().display());
        command.arg("check");
        command.env_clear().env("PATH", path).current_dir(self.dir.path("site"));
        command
    }

    #[track_caller]
    fn check(&self, args: &[&str]) -> ExitedProcess {
        child_process::run(&mut self.command(args), "")
    }

    /// Checks a script with this code, which has nothing else to complain of.
    #[track_caller]
    fn check_code(&self, code: &str) -> ExitedProcess {
        self.dir.script("site/app.wsgi", "#!WSGATE", code);
        self.check(&["app.wsgi"])
    }
}

/// The line of the report with the name `name`.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no `{name}` in {text}"));
    line.trim_start()
}

/// A problem is reported that has `args` in it, and nothing else.
#[track_caller]
fn only_problem(ended: &ExitedProcess, args: &str) {
    let text = ended.text();
    assert_eq!(ended.code(), Some(1), "{text}\n{}", ended.stderr);
    let problems = text.lines().filter(|line| line.starts_with("problem ")).count();
    let reported = text.split_once("\nproblem ").map_or("", |(_, problem)| problem);
    assert!(problems == 1 && reported.contains(args), "{text}");
    assert!(text.ends_with("\n1 problem was found\n"), "{text}");
}

#[test]
fn a_good_application_has_no_problem() {
    let site = CheckSite::new();
    let ended = site.check_code(HELLO);
    let text = ended.text();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{text}");
    assert_eq!(line(&text, "application "), "app.wsgi");
    assert!(line(&text, "interpreter ").contains("python"), "{text}");
    assert!(line(&text, "engine ").contains("libwsgate_engine.so, build "), "{text}");
    assert!(line(&text, "python ").starts_with("3."), "{text}");
    assert_eq!(line(&text, "virtualenv "), "none");
    assert_eq!(line(&text, "sys.path "), site.dir.path("site").to_str().unwrap());
    assert!(line(&text, "import ").ends_with(" ms"), "{text}");
    assert_eq!(line(&text, "callable "), "application, a function");
    assert!(line(&text, "first request ").starts_with("GET / returned 200 OK in "), "{text}");
    assert!(line(&text, "readable ").contains("by user daemon"), "{text}");
    assert!(text.ends_with("no problem was found\n"), "{text}");
}

#[test]
fn every_form_of_app_can_be_checked() {
    let site = CheckSite::new();
    site.dir.file(
        "site/plain.py",
        "def app(environ, start_response): start_response('204 No Content', []); return []",
    );
    site.dir.file("site/package/__init__.py", "");
    site.dir.file(
        "site/package/web.py",
        "
        class Site:
            def __call__(self, environ, start_response):
                start_response('204 No Content', [])
                return []
        def make(): return Site()
        site = Site()
        ",
    );
    for (app, callable) in [
        ("plain.py", "app, a function"),
        ("./plain.py:app", "app, a function"),
        ("plain", "app, a function"),
        ("plain:app", "app, a function"),
        ("package.web:make()", "make, a package.web.Site"),
        ("package.web:site", "site, a package.web.Site"),
        ("package/web.py:make()", "make, a web.Site"),
    ] {
        let ended = site.check(&[app]);
        let text = ended.text();
        assert_eq!(ended.code(), Some(0), "{app}: {text}{}", ended.stderr);
        assert_eq!(line(&text, "callable "), callable, "{app}");
        assert_eq!(line(&text, "application "), app);
        assert!(
            line(&text, "first request ").starts_with("GET / returned 204 No Content"),
            "{text}"
        );
    }
}

#[test]
fn options_of_the_scripts_own_line_hold() {
    let site = CheckSite::new();
    site.dir.file("site/lib/below.py", "");
    site.dir.script(
        "site/app.wsgi",
        "#!WSGATE --path lib --env NEEDED=1",
        &format!(
            "import below, os\nos.environ['NEEDED']\n{}",
            crate::support::probe::dedent(HELLO)
        ),
    );
    let ended = site.check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.stderr);
    assert!(ended.text().contains("site/lib\n"), "{}", ended.text());
}

#[test]
fn what_an_application_prints_is_no_part_of_the_report() {
    let site = CheckSite::new();
    let ended = site.check_code(&format!(
        "import os\nprint('printed')\nos.system('echo child')\n{}",
        crate::support::probe::dedent(HELLO)
    ));
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), "printed\nchild\n"));
    assert!(!ended.text().contains("printed"), "{}", ended.text());
}

#[test]
fn threads_that_run_after_the_import_are_reported() {
    let site = CheckSite::new();
    let code = "import threading\nfor _ in range(2): \
        threading.Thread(target=threading.Event().wait, daemon=True).start()\n";
    let ended = site.check_code(&format!("{code}{}", crate::support::probe::dedent(HELLO)));
    assert!(
        line(&ended.text(), "threads ").starts_with("2 besides the main thread"),
        "{}",
        ended.text()
    );
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn wrong_arguments_are_an_error_with_exit_code_2() {
    let site = CheckSite::new();
    for (args, said) in [
        (&["--bogus", "app.wsgi"][..], "--bogus"),
        (&[], "<APP>"),
        (&["app.wsgi:1x"], "1x"),
        (&["app.wsgi", "path"], "path"),
        (&["app.wsgi", "/path", "/other"], "/other"),
    ] {
        let ended = site.check(args);
        assert_eq!((ended.code(), ended.text().as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let mut command = Command::new(site.dir.wsgate());
    let ended =
        child_process::run(command.args(["check", "--user", "no-such-user", "app.wsgi"]), "");
    assert_eq!(ended.code(), Some(78));
    assert!(ended.stderr.contains("`no-such-user`"), "{}", ended.stderr);
}
