//! Which variables of the process that starts a pool the application has.

use std::{collections::BTreeMap, fs, process::Stdio};

use rustix::process::geteuid;

use crate::{
    pool::{ECHO, config_file, privileges},
    support::{
        artefacts,
        child_process::run,
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup},
        probe::{dedent, python},
        web_servers::eventually,
    },
};

/// Shows the environment of the process, a variable a line.
const SHOWS: &str = "
    import os
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [''.join(f'{name}={value}\\n' for name, value in os.environ.items()).encode()]
    ";

fn variables(pool: &Pool) -> BTreeMap<String, String> {
    let text = pool.ask(&FastcgiRequest::get("/")).text();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_pool_with_clear_env_has_the_named_variables_and_those_of_its_file_alone() {
    let setup = PoolSetup::new(SHOWS);
    let text = |clear: bool| {
        format!(
            "app = \"app.wsgi\"\nlisten = \"unix:app.sock\"\nworkers = 1\nclear-env = {clear}\n\
             [env]\nOF_FILE = \"1\"\n"
        )
    };
    let mut command = config_file::command(&setup, &text(true), &[]);
    command.env("AWS_SECRET_ACCESS_KEY", "secret").env("SSH_AUTH_SOCK", "/agent");
    command.env("PYTHONSTARTUP", "x").env("LC_TIME", "C").env("LANG", "C.UTF-8").env("TZ", "UTC");
    let pool = setup.launch_as(&mut command);
    let found = variables(&pool);
    for (name, value) in [("OF_FILE", "1"), ("LC_TIME", "C"), ("LANG", "C.UTF-8"), ("TZ", "UTC")] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}: {found:?}");
    }
    assert!(found.contains_key("PATH"), "{found:?}");
    for name in ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "PYTHONSTARTUP", "WSGATE_RUNTIME_DIR"] {
        assert!(!found.contains_key(name), "{name}: {found:?}");
    }
    config_file::command(pool.setup(), &text(false), &[]);
    assert_eq!(pool.run_wsgate(&["reload", "site"]).code(), Some(0));
    eventually("all variables are there", || variables(&pool).contains_key("SSH_AUTH_SOCK"));
    config_file::command(pool.setup(), &text(true), &[]);
    assert_eq!(pool.run_wsgate(&["reload", "site"]).code(), Some(0));
    eventually("few variables are there", || !variables(&pool).contains_key("SSH_AUTH_SOCK"));
    pool.stop();
}

#[test]
fn a_check_of_the_file_has_the_same_variables() {
    let code = dedent(ECHO);
    let code = format!("import os\nprint('secret', 'SECRET' in os.environ)\n{code}");
    let setup = PoolSetup::new(&code);
    for (clear, expected) in [("true", "secret False"), ("false", "secret True")] {
        let file = setup.path("site.toml");
        let python = python();
        let text = format!("app = \"app.wsgi\"\npython = {python:?}\nclear-env = {clear}\n");
        fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(artefacts::gateway());
        command.args(["check", "--config"]).arg(&file).stdin(Stdio::null());
        command.env("SECRET", "1").env("WSGATE_RUNTIME_DIR", setup.path("run"));
        let ended = run(&mut command, "");
        let shown = format!("{}{}", ended.text(), ended.stderr);
        assert!(shown.contains(expected), "{clear}: {shown}");
    }
}

#[test]
fn a_virtualenv_of_the_shell_does_not_serve_a_pool_with_clear_env() {
    let setup = PoolSetup::new(ECHO);
    let file = setup.path("site.toml");
    for (clear, has_problem) in [("true", false), ("false", true)] {
        fs::write(&file, format!("app = \"app.wsgi\"\nclear-env = {clear}\n")).unwrap();
        let mut command = std::process::Command::new(artefacts::gateway());
        command.args(["check", "--config"]).arg(&file).stdin(Stdio::null());
        command.env("VIRTUAL_ENV", "/nonexistent").env("WSGATE_RUNTIME_DIR", setup.path("run"));
        let ended = run(&mut command, "");
        let shown = format!("{}{}", ended.text(), ended.stderr);
        assert_eq!(shown.contains("/nonexistent"), has_problem, "{clear}: {shown}");
    }
}

#[test]
fn an_upgrade_passes_on_no_variable_that_clear_env_drops() {
    let setup = PoolSetup::new(SHOWS).variable("SECRET", "hunter2").args(&["--clear-env"]);
    let pool = setup.start();
    for _ in 0..2 {
        let ended = pool.run_wsgate(&["reload", "--binary", "app"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        // The user of the pool can read this after execve(2), unlike before.
        let environ = fs::read(format!("/proc/{}/environ", pool.pid())).unwrap();
        let environ = String::from_utf8_lossy(&environ);
        assert!(!environ.contains("hunter2"), "{environ}");
        assert!(environ.contains("WSGATE_RUNTIME_DIR="), "{environ}");
        assert!(variables(&pool).contains_key("PATH"));
    }
    pool.stop();
}

#[test]
fn no_variable_of_roots_login_stays_in_a_pool_of_another_user() {
    if !geteuid().is_root() {
        return;
    }
    for clear in [false, true] {
        let Some(setup) = privileges::setup(SHOWS) else { return };
        let names = ["HOME", "USER", "LOGNAME", "SHELL", "MAIL"];
        let setup = names.iter().fold(setup, |setup, name| setup.variable(name, "of-root"));
        let setup = if clear { setup.args(&["--clear-env"]) } else { setup };
        let pool = setup.args(&["--user", privileges::USER.0]).start();
        let found = variables(&pool);
        for name in names {
            assert!(found.get(name).is_some_and(|value| value != "of-root"), "{name}: {found:?}");
        }
        assert_eq!(found["USER"], privileges::USER.0);
        assert_eq!(found["MAIL"], format!("/var/mail/{}", privileges::USER.0));
        pool.stop();
    }
}
