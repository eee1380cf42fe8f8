//! A wsgate in the `bin` of a virtualenv uses that virtualenv.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::{
    interpreter::make_venv,
    support::{
        artefacts,
        assertions::{complete_response, only_log_message},
        child_process::run,
        fastcgi_client::FastcgiRequest,
        install_dir::InstallDir,
        pool::PoolSetup,
        probe::python,
        web_servers::{eventually, venv},
    },
};

/// Needs a module of the virtualenv.
const PREFIX: &str = "
    import sys
    import installed_here
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [sys.prefix.encode()]
    ";

/// Programs that make virtualenvs, with their options.
fn makers() -> Vec<(PathBuf, Vec<&'static str>)> {
    let tool = |name: &str| venv().join("bin").join(name);
    vec![
        (python(), vec!["-m", "venv", "--without-pip"]),
        (python(), vec!["-m", "venv", "--without-pip", "--system-site-packages"]),
        (python(), vec!["-m", "venv", "--without-pip", "--copies"]),
        (tool("virtualenv"), vec!["--quiet", "--no-seed", "--python", "/usr/bin/python3"]),
        (tool("uv"), vec!["venv", "--quiet", "--no-config", "--python", "/usr/bin/python3"]),
    ]
}

fn make(maker: &(PathBuf, Vec<&str>), at: &Path) {
    let mut command = Command::new(&maker.0);
    // uv keeps a cache, which needs no home directory.
    let made = command.args(&maker.1).arg(at).env("UV_NO_CACHE", "1").output().unwrap();
    assert!(made.status.success(), "{maker:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// Installs wsgate and a module into the virtualenv `at`, as pip does.
fn install(dir: &InstallDir, at: &str) {
    dir.install(artefacts::gateway(), &format!("{at}/bin/wsgate"), 0o755);
    dir.install(artefacts::engine(), &format!("{at}/lib/wsgate/libwsgate_engine.so"), 0o755);
    let libraries = fs::read_dir(dir.path(at).join("lib")).unwrap();
    let packages = libraries
        .map(|entry| entry.unwrap().path().join("site-packages"))
        .find(|directory| directory.is_dir())
        .unwrap();
    fs::write(packages.join("installed_here.py"), "").unwrap();
}

/// The prefix of the interpreter that serves `script`, although two other virtualenvs could.
#[track_caller]
fn prefix(dir: &InstallDir, script: &Path) -> String {
    for other in ["elsewhere", "site/venv"] {
        if !dir.path(other).exists() {
            make_venv(&dir.path(other));
        }
    }
    let ended = run(dir.request(script).env("VIRTUAL_ENV", dir.path("elsewhere")), "");
    let response = complete_response(&ended.stdout);
    assert_eq!(response.status, 200, "{}", ended.stderr);
    String::from_utf8(response.body).unwrap()
}

#[test]
fn a_wsgate_in_a_virtualenv_uses_it_whatever_made_it() {
    for maker in makers() {
        let dir = InstallDir::new();
        make(&maker, &dir.path("env"));
        install(&dir, "env");
        let interpreter = dir.path("env/bin/wsgate");
        let script = dir.script("site/app.wsgi", &format!("#!{}", interpreter.display()), PREFIX);
        assert_eq!(prefix(&dir, &script), dir.path("env").to_str().unwrap(), "{maker:?}");
    }
}

#[test]
fn a_virtualenv_that_was_moved_is_used_where_it_is() {
    for maker in makers() {
        let dir = InstallDir::new();
        make(&maker, &dir.path("before"));
        install(&dir, "before");
        fs::rename(dir.path("before"), dir.path("after")).unwrap();
        let interpreter = dir.path("after/bin/wsgate");
        let script = dir.script("site/app.wsgi", &format!("#!{}", interpreter.display()), PREFIX);
        assert_eq!(prefix(&dir, &script), dir.path("after").to_str().unwrap(), "{maker:?}");
    }
}

#[test]
fn links_to_a_wsgate_in_a_virtualenv_lead_to_it_and_its_path_may_have_spaces() {
    for maker in makers() {
        let dir = InstallDir::new();
        make(&maker, &dir.path("my env"));
        install(&dir, "my env");
        fs::create_dir_all(dir.path("home/bin")).unwrap();
        symlink("../../my env/bin/wsgate", dir.path("home/bin/second")).unwrap();
        symlink("second", dir.path("home/bin/wsgate")).unwrap();
        let link = dir.path("home/bin/wsgate");
        let script = dir.script("site/app.wsgi", &format!("#!{}", link.display()), PREFIX);
        assert_eq!(prefix(&dir, &script), dir.path("my env").to_str().unwrap(), "{maker:?}");
    }
}

#[test]
fn options_override_the_virtualenv_of_wsgate() {
    let dir = InstallDir::new();
    for name in ["env", "other"] {
        make_venv(&dir.path(name));
        install(&dir, name);
    }
    let first_line = format!("#!{} --venv ../other", dir.path("env/bin/wsgate").display());
    let script = dir.script("site/app.wsgi", &first_line, PREFIX);
    assert_eq!(prefix(&dir, &script), dir.path("other").to_str().unwrap());
    let first_line = format!(
        "#!{} --python {}",
        dir.path("env/bin/wsgate").display(),
        dir.path("other/bin/python").display()
    );
    let script = dir.script("site/app.wsgi", &first_line, PREFIX);
    assert_eq!(prefix(&dir, &script), dir.path("other").to_str().unwrap());
}

#[test]
fn the_virtualenv_of_wsgate_is_named_with_the_reason_if_its_python_is_missing() {
    let dir = InstallDir::new();
    make_venv(&dir.path("env"));
    install(&dir, "env");
    fs::remove_file(dir.path("env/bin/python")).unwrap();
    symlink("/nowhere/python3.9", dir.path("env/bin/python")).unwrap();
    let interpreter = dir.path("env/bin/wsgate");
    let script = dir.script("site/app.wsgi", &format!("#!{}", interpreter.display()), PREFIX);
    let ended = run(&mut dir.request(&script), "");
    assert_eq!(complete_response(&ended.stdout).status, 500, "{}", ended.stderr);
    let message = only_log_message(&ended.stderr, "W0201");
    assert!(message.contains("(wsgate is installed in it)"), "{message}");
    assert!(message.contains("`/nowhere/python3.9`, which does not exist"), "{message}");
}

/// pipx and `uv tool` give each program a virtualenv of its own, without the application's
/// packages.
#[test]
fn a_virtualenv_of_pipx_or_uv_tool_is_used_only_if_there_is_no_other() {
    for mark in ["pipx_metadata.json", "uv-receipt.toml"] {
        let dir = InstallDir::new();
        make_venv(&dir.path("tool"));
        install(&dir, "tool");
        fs::write(dir.path("tool").join(mark), "").unwrap();
        let first_line = format!("#!{}", dir.path("tool/bin/wsgate").display());
        let script = dir.script("alone/app.wsgi", &first_line, PREFIX);
        let ended = run(&mut dir.request(&script), "");
        assert!(ended.text().ends_with("/tool"), "{ended:?}");
        let script = dir.script("site/app.wsgi", &first_line, PREFIX);
        make_venv(&dir.path("site/venv"));
        install(&dir, "site/venv");
        let ended = run(&mut dir.request(&script), "");
        assert!(ended.text().ends_with("/site/venv"), "{ended:?}");
        let ended = run(dir.request(&script).env("VIRTUAL_ENV", dir.path("tool")), "");
        assert!(ended.text().ends_with("/tool"), "{ended:?}");
    }
}

/// pip moves the files of the old version away before it writes the new ones.
#[test]
fn a_pool_keeps_the_virtualenv_of_wsgate_when_an_upgrade_moves_its_program() {
    let dir = InstallDir::new();
    make_venv(&dir.path("env"));
    install(&dir, "env");
    let setup = PoolSetup::new(PREFIX).program(dir.path("env/bin/wsgate")).own_interpreter();
    let mut pool = setup.start();
    let expected = dir.path("env").to_str().unwrap().to_owned();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), expected);
    fs::create_dir(dir.path("stash")).unwrap();
    fs::rename(dir.path("env/bin/wsgate"), dir.path("stash/wsgate")).unwrap();
    fs::rename(dir.path("env/lib/wsgate"), dir.path("stash/lib")).unwrap();
    install(&dir, "env");
    fs::remove_dir_all(dir.path("stash")).unwrap();
    pool.setup().release(&PREFIX.replace("sys.prefix", "('new ' + sys.prefix)"));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    eventually("the new release serves", || {
        pool.ask(&FastcgiRequest::get("/")).text() == format!("new {expected}")
    });
    pool.stop();
}
