//! Files and sockets that root creates for a pool of another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    pool::privileges::{ANOTHER, USER, WHO, as_user, setup, theirs},
    support::{
        artefacts,
        child_process::{piped, run},
        fastcgi_client::FastcgiRequest,
        probe::python,
        web_servers::eventually,
    },
};

#[test]
fn a_socket_in_a_directory_of_roots_is_replaced_at_the_next_start() {
    for _ in 0..2 {
        let Some(setup) = setup(WHO) else { return };
        let socket = setup.path("app.sock");
        let mut pool = setup.args(&["--user", USER.0, "--socket-owner", "54321"]).start();
        for _ in 0..2 {
            assert_eq!(fs::metadata(&socket).unwrap().uid(), ANOTHER);
            pool.signal(Signal::TERM);
            let (ended, setup) = pool.end_and_leave();
            assert_eq!(ended.code(), Some(0));
            // The user of the pool may not write in that directory.
            assert!(socket.exists());
            pool = setup.start();
        }
        pool.stop();
    }
}

#[test]
fn logs_are_opened_before_and_again_after_a_rotation() {
    for own in [true, false] {
        let Some(setup) = setup(WHO) else { return };
        let logs = setup.path(if own { "theirs" } else { "logs" });
        if !own {
            fs::create_dir(&logs).unwrap();
        }
        let [error, access, slow] =
            ["error.log", "access.log", "slow.log"].map(|name| logs.join(name));
        let paths = [&error, &access, &slow].map(|path| path.to_str().unwrap().to_owned());
        let args = ["--user", USER.0, "--error-log", &paths[0], "--access-log", &paths[1]];
        let setup = setup.args(&["--slow", "9", "--slow-log", &paths[2]]);
        let pool = setup.args(&args).launch();
        let holds =
            |path: &Path, word: &str| fs::read_to_string(path).unwrap_or_default().contains(word);
        eventually("it serves", || holds(&error, "W0710"));
        for path in [&error, &access, &slow] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (USER.1, 0o640), "{}", path.display());
            fs::rename(path, path.with_extension("old")).unwrap();
            if !own {
                // logrotate's `create 640 nobody nogroup` does the same.
                fs::write(path, "").unwrap();
                chown(path, Some(USER.1), Some(USER.1)).unwrap();
            }
        }
        pool.signal(Signal::USR1);
        eventually("both are opened again", || holds(&error, "W0742"));
        assert!(!holds(&error, "W0741") && slow.exists());
        pool.ask(&FastcgiRequest::get("/after"));
        eventually("the request is in the new file", || holds(&access, "/after"));
        pool.stop();
    }
}

#[test]
fn a_log_whose_directory_belongs_to_another_user_now_is_not_reopened_by_root() {
    let Some(setup) = setup(WHO) else { return };
    fs::create_dir(setup.path("logs")).unwrap();
    let log = setup.path("logs/access.log");
    let precious = setup.path("precious");
    let mut pool = setup.args(&["--access-log", log.to_str().unwrap()]).start();
    fs::remove_file(&log).unwrap();
    symlink(&precious, &log).unwrap();
    chown(log.parent().unwrap(), Some(ANOTHER), None).unwrap();
    pool.signal(Signal::USR1);
    pool.await_log("W0741");
    pool.ask(&FastcgiRequest::get("/"));
    assert!(!precious.exists());
    let log = pool.stop();
    assert!(!log.contains("W0742"), "{log}");
}

/// A process of another user that leads each new socket in `directory` to `target` as fast as it
/// can.
struct Racer(Child);

impl Racer {
    fn start(user: u32, directory: &Path, target: &Path) -> Self {
        let code = "
import os, sys
directory, target = sys.argv[1:]
while True:
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            if name.endswith('.new') and not os.path.islink(path):
                os.unlink(path)
                os.symlink(target, path)
        except OSError:
            pass
";
        let mut command = as_user(user, "/usr/bin/python3");
        command.args(["-c", code]).args([directory, target]).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_link_in_the_path_of_a_new_socket_changes_no_file_of_root() {
    let Some(setup) = setup(WHO) else { return };
    let precious = setup.path("precious");
    fs::write(&precious, "").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    let directory = setup.path("theirs");
    let racer = Racer::start(USER.1, &directory, &precious);
    let address = format!("unix:{}", directory.join("app.sock").display());
    let setup = setup.listen(&[&address]).args(&["--user", USER.0, "--socket-owner", "54321"]);
    // The pool finds the missing application after creating the socket.
    fs::remove_file(setup.path("app.wsgi")).unwrap();
    for _ in 0..20 {
        let ended = run(piped(&mut setup.command()), "");
        assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
        let found = fs::metadata(&precious).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o600));
        let _ = fs::remove_file(directory.join("app.sock"));
    }
    // While there is a directory for it.
    drop(racer);
}

#[test]
fn root_makes_no_file_where_others_could_lead_it_elsewhere() {
    let Some(setup) = setup(WHO) else { return };
    theirs(&setup.path("another"), ANOTHER);
    fs::create_dir_all(setup.path("another/way/run")).unwrap();
    fs::create_dir(setup.path("group")).unwrap();
    chown(setup.path("group"), None, Some(ANOTHER)).unwrap();
    fs::set_permissions(setup.path("group"), fs::Permissions::from_mode(0o775)).unwrap();
    fs::create_dir(setup.path("shared")).unwrap();
    fs::set_permissions(setup.path("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(setup.path("another/way/run"), setup.path("link")).unwrap();
    symlink(setup.path("run-of-root"), setup.path("shared/link")).unwrap();
    std::os::unix::fs::lchown(setup.path("shared/link"), Some(ANOTHER), None).unwrap();
    fs::create_dir(setup.path("run-of-root")).unwrap();
    symlink(setup.path("run-of-root"), setup.path("good-link")).unwrap();
    let precious = setup.path("precious");
    fs::write(&precious, "").unwrap();
    symlink(&precious, setup.path("another/precious")).unwrap();
    symlink(&precious, setup.path("theirs/precious")).unwrap();
    symlink(setup.path("run-of-root/real.log"), setup.path("linked.log")).unwrap();
    fs::write(setup.path("shared/planted.log"), "").unwrap();
    chown(setup.path("shared/planted.log"), Some(ANOTHER), None).unwrap();
    let cases = [
        ("another/app", false, "root"),
        ("another/way/run/app", false, "root"),
        ("link/app", false, "root"),
        ("group/app", false, "root"),
        ("shared/link/app", false, "root"),
        ("another/precious", false, "root"),
        ("theirs/app", false, "root"),
        ("another/app", false, USER.0),
        ("theirs/precious", false, USER.0),
        ("shared/planted.log", false, "root"),
        ("shared/app", true, "root"),
        ("shared/app", true, USER.0),
        ("run-of-root/app", true, "root"),
        ("good-link/app", true, "root"),
        ("linked.log", true, "root"),
        ("theirs/app", true, USER.0),
    ];
    for (relative, is_fine, user) in cases {
        let path = setup.path(relative);
        let fine = format!("unix:{}", setup.path("app.sock").display());
        let [there, log] = [format!("unix:{}", path.display()), path.display().to_string()];
        let is_socket = relative.ends_with("app");
        let mut ways = vec![
            vec!["--listen", &fine, "--error-log", &log],
            vec!["--listen", &fine, "--access-log", &log],
        ];
        if is_socket {
            ways.push(vec!["--listen", &there, "--socket-owner", "54321"]);
        }
        for args in ways {
            let mut command = Command::new(artefacts::gateway());
            command.args(["fastcgi", "--python"]).arg(python()).args(["--user", user]).args(&args);
            command.arg(setup.path("no-such.wsgi")).env_clear().env("PATH", "/usr/bin:/bin");
            command.env("WSGATE_RUNTIME_DIR", setup.path("run"));
            let ended = run(piped(&mut command), "");
            let logged = fs::read_to_string(&path).unwrap_or_default() + &ended.stderr;
            // The pool finds the missing script after opening all files.
            let (wanted, unwanted) = if is_fine { ("W0102", "W0724") } else { ("W0724", "W0102") };
            assert!(
                logged.contains(wanted) && !logged.contains(unwanted),
                "{relative} {args:?} as {user}: {logged}"
            );
            // On Ubuntu, a group may write there.
            assert!(!ended.stderr.contains("/var/log"), "{}", ended.stderr);
            assert_eq!(fs::read_to_string(&precious).unwrap(), "");
            assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
            if is_socket {
                let _ = fs::remove_file(&path);
            }
        }
    }
}
