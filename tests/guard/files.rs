//! Scripts that are not there, not files, not readable, or go away.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use crate::{
    guard::{page, page_of},
    support::{
        assertions::complete_response,
        child_process::{
            Gate, RunningProcess, piped, {self},
        },
        install_dir::InstallDir,
        probe::{Implementation, Probe},
    },
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// The request for `script`, made by a user who owns nothing; by the user of the tests if that may
/// not become another.
pub(super) fn as_nobody(dir: &InstallDir, script: &Path) -> Command {
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(dir.wsgate());
        command
    } else {
        Command::new(dir.wsgate())
    };
    dir.describe(&mut command, script);
    // The front hands the file over: the kernel would refuse to execute what this user cannot read.
    command.arg(script).current_dir("/").env("WSGATE_RUNTIME_DIR", dir.path("nowhere/to/write"));
    command
}

#[test]
fn a_script_that_nobody_may_read_is_named() {
    let dir = InstallDir::new();
    let script = dir.file("cgi-bin/app.wsgi", HELLO);
    assert_eq!(
        complete_response(&child_process::run(&mut as_nobody(&dir, &script), "").stdout).body,
        b"hello"
    );
    fs::set_permissions(&script, Permissions::from_mode(0o000)).unwrap();
    let ended = child_process::run(&mut as_nobody(&dir, &script), "");
    assert!(page_of(&ended, 500, "W0102").contains("cgi-bin/app.wsgi"), "{}", ended.stderr);
    // The hint names the file.
    assert!(ended.stderr.contains("read the script: chmod a+r /"), "{}", ended.stderr);
}

#[test]
fn a_script_that_may_be_executed_and_not_read_is_named() {
    // The kernel reads its first line all the same, and starts us.
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    fs::set_permissions(&script, Permissions::from_mode(0o111)).unwrap();
    let is_root = rustix::process::getuid().is_root();
    let mut command = Command::new(if is_root { Path::new("setpriv") } else { &script });
    if is_root {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&script);
    }
    dir.describe(&mut command, &script);
    let ended = child_process::run(&mut command, "");
    assert!(page_of(&ended, 500, "W0102").contains("cgi-bin/app.wsgi"), "{}", ended.stderr);
}

#[test]
fn a_directory_that_nobody_may_enter_is_a_valid_response() {
    let dir = InstallDir::new();
    let script = dir.file("cgi-bin/closed/app.wsgi", HELLO);
    fs::set_permissions(dir.path("cgi-bin/closed"), Permissions::from_mode(0o000)).unwrap();
    let ended = child_process::run(&mut as_nobody(&dir, &script), "");
    fs::set_permissions(dir.path("cgi-bin/closed"), Permissions::from_mode(0o755)).unwrap();
    assert!(page_of(&ended, 500, "W0102").contains("cgi-bin/closed/app.wsgi"), "{}", ended.stderr);
    let hint = format!("enter the directory: chmod a+x {}\n", dir.path("cgi-bin/closed").display());
    assert!(ended.stderr.contains(&hint), "{}", ended.stderr);
}

#[test]
fn a_module_that_nobody_may_read_is_named() {
    let dir = InstallDir::new();
    let script = dir.file("cgi-bin/app.wsgi", "import closed");
    let module = dir.file("cgi-bin/closed.py", "x = 1");
    fs::set_permissions(module, Permissions::from_mode(0o000)).unwrap();
    let ended = child_process::run(&mut as_nobody(&dir, &script), "");
    page_of(&ended, 500, "W0301");
    assert!(ended.stderr.contains("closed.py"), "{}", ended.stderr);
}

#[test]
fn a_directory_instead_of_a_script_is_named() {
    let dir = InstallDir::new();
    let directory = dir.path("cgi-bin/app.wsgi");
    fs::create_dir_all(&directory).unwrap();
    for with_argument in [true, false] {
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, &directory);
        if with_argument {
            command.arg(&directory);
        }
        let ended = child_process::run(&mut command, "");
        assert!(page_of(&ended, 500, "W0102").contains("app.wsgi"), "{}", ended.stderr);
    }
    let mut command = Probe::new("").command(Implementation::Wsgate);
    command.current_dir("/").arg("cgi").env_remove("SCRIPT_FILENAME");
    let mut command = Command::new(dir.wsgate());
    dir.describe(&mut command, Path::new("/bin/sh"));
    let ended = child_process::run(
        command.args(["cgi".as_ref(), directory.as_os_str()]).current_dir("/"),
        "",
    );
    assert!(page_of(&ended, 500, "W0102").contains("is a directory"), "{}", ended.stderr);
}

#[test]
fn what_is_no_file_is_not_read() {
    // Reading a named pipe would wait for ever.
    let dir = InstallDir::new();
    let pipe = dir.fifo("bin/pipe.wsgi");
    for path in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, path);
        let ended = child_process::run(command.arg(path).current_dir("/"), "");
        assert!(page_of(&ended, 500, "W0102").contains(path.to_str().unwrap()), "{}", ended.stderr);
    }
}

#[test]
fn a_missing_script_is_named() {
    let dir = InstallDir::new();
    let absent = dir.path("bin/absent.wsgi");
    for with_argument in [true, false] {
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, &absent);
        if with_argument {
            command.arg(&absent);
        }
        let ended = child_process::run(&mut command, "");
        assert!(page_of(&ended, 500, "W0102").contains("absent.wsgi"), "{}", ended.stderr);
        let hint = format!("`absent.wsgi` in the directory `{}`", dir.path("bin").display());
        assert!(ended.stderr.contains(&hint), "{}", ended.stderr);
    }
}

#[test]
fn a_script_that_is_deleted_during_its_request_serves_it() {
    let app = "
        def application(environ, start_response):
            print('working')
            open(environ['GATE']).readline()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    let probe = Probe::new(app);
    let room = tempfile::TempDir::new().unwrap();
    let gate = Gate::new(room.path());
    let probe = probe.variable("GATE", gate.path());
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.await_log("working\n");
    fs::remove_dir_all(probe.directory()).unwrap();
    gate.open();
    let ended = running.end();
    assert_eq!(
        (complete_response(&ended.stdout).body.as_slice(), ended.code(), ended.stderr.as_str()),
        (&b"done"[..], Some(0), "working\n")
    );
}

#[test]
fn a_script_that_is_deleted_before_python_reads_it_is_named() {
    let dir = InstallDir::new();
    let python = crate::support::probe::python();
    let probe = Probe::new(HELLO);
    let app = probe.directory().join("app.wsgi");
    let content =
        format!("#!/bin/sh\nrm '{}'\nexec '{}' \"$@\"\n", app.display(), python.display());
    let probe = probe.python(dir.executable("python", content));
    let response = probe.run();
    let message = page(&response, 500, "W0102");
    assert!(message.contains("app.wsgi"), "{}", response.log);
}

#[test]
fn a_deleted_working_directory_is_a_valid_response() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    // Started in a directory that is removed at once.
    let mut command = Command::new("sh");
    dir.describe(&mut command, &script);
    fs::create_dir(dir.path("gone")).unwrap();
    command.current_dir(dir.path("gone")).args([
        "-c",
        "rmdir \"$PWD\" && exec \"$0\"",
        script.to_str().unwrap(),
    ]);
    let ended = child_process::run(&mut command, "");
    assert_eq!(
        (complete_response(&ended.stdout).body.as_slice(), ended.code()),
        (&b"hello"[..], Some(0)),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_missing_working_directory_is_named() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE --chdir absent", HELLO);
    let ended = child_process::run(&mut dir.request(&script), "");
    assert!(page_of(&ended, 500, "W0105").contains("cgi-bin/absent"), "{}", ended.stderr);
}

#[test]
fn a_script_with_any_name_and_any_beginning_is_served() {
    let dir = InstallDir::new();
    for (name, beginning) in [
        ("sp ace.wsgi", ""),
        ("caf\u{e9}:x.wsgi", ""),
        ("no_suffix", ""),
        ("-dash.wsgi", ""),
        ("bom.wsgi", "\u{feff}"),
        ("flask.wsgi", "# -*- coding: utf-8 -*-\n"),
        ("back\\slash'quote\".wsgi", ""),
        ("new\nline.wsgi", ""),
    ] {
        let script = dir.file(
            &format!("cgi-bin/{name}"),
            &format!("{beginning}{}", crate::support::probe::dedent(HELLO)),
        );
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, &script);
        let ended = child_process::run(command.arg(&script), "");
        assert_eq!(complete_response(&ended.stdout).body, b"hello", "{name}: {}", ended.stderr);
    }
}
