//! `wsgate call`: one request from the shell.

mod applications;
mod bodies;
mod copied;
mod curl;
mod files;
mod outcome;
mod printing;
mod requests;
mod scripts;
mod terminal;
mod via;

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::support::{
    child_process::{
        ExitedProcess, {self},
    },
    install_dir::InstallDir,
    probe::python,
};

/// A directory with some applications and a shell in it.
struct Shell {
    dir: InstallDir,
}

impl Shell {
    fn new() -> Self {
        let dir = InstallDir::new();
        dir.file(
            "site/environ.wsgi",
            "
            import json, os, sys
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'application/json')])
                shown = {name: value for name, value in environ.items() if isinstance(value, str)}
                shown['SET'] = os.environ.get('SET')
                shown['cwd'] = os.getcwd()
                shown['path'] = sys.path
                return [json.dumps(shown).encode()]
            ",
        );
        dir.file(
            "site/echo.wsgi",
            "
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'application/octet-stream')])
                return [environ['wsgi.input'].read()]
            ",
        );
        dir.file(
            "site/status.wsgi",
            "
            def application(environ, start_response):
                status = environ['QUERY_STRING'] or '200'
                start_response(status + ' Odd', [('Content-Type', 'text/plain'), ('X-A', 'b')])
                return [b'body'] if status[0] != '1' and status not in ('204', '304') else []
            ",
        );
        Self { dir }
    }

    /// Adds an application; gives its path.
    fn file(&self, name: &str, code: &str) -> PathBuf {
        self.dir.file(&format!("site/{name}"), code)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path("site").join(name)
    }

    /// The command `wsgate call` with `args`, in the directory of the applications.
    fn call(&self, args: &[&str]) -> Command {
        self.command(&self.dir.wsgate(), &[&["call"], args].concat())
    }

    /// Any program, as from a shell with few variables.
    fn command(&self, program: &std::path::Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", python().parent().unwrap().display());
        command.args(args).env_clear().env("PATH", path).current_dir(self.dir.path("site"));
        command
    }

    /// Calls with `args`; what it gives.
    #[track_caller]
    fn run(&self, args: &[&str]) -> ExitedProcess {
        child_process::run(&mut self.call(args), "")
    }

    /// The environ that an application sees when it is called with `args`.
    #[track_caller]
    fn seen(&self, args: &[&str]) -> Value {
        let ended = self.run(&[&["environ.wsgi"], args].concat());
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{}", ended.text());
        serde_json::from_slice(&ended.stdout).unwrap()
    }
}
