//! Where pools are found, and what stands there that only the user of the request could have made.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use crate::{
    support::{
        assertions::complete_response, child_process::run, probe::CgiResponse,
        web_servers::eventually,
    },
    warm::{TELLS_ITSELF, WarmSite, Who},
};

/// Variables that say where the directory is, by path inside the site.
pub(super) type Variables<'a> = &'a [(&'a str, &'a str)];

fn directory(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The name of the user's directory in the temporary directory.
fn named_by_user(temporary: &str) -> String {
    format!("{temporary}/wsgate-{}", geteuid().as_raw())
}

fn set(site: &WarmSite, command: &mut Command, variables: Variables<'_>) {
    command.env_remove("WSGATE_RUNTIME_DIR");
    for (name, path) in variables {
        command.env(name, site.dir.path(path));
    }
}

#[track_caller]
fn ask_with(site: &WarmSite, variables: Variables<'_>) -> CgiResponse {
    let mut command = site.request();
    set(site, &mut command, variables);
    let response = site.response(&mut command, "");
    assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
    response
}

pub(super) fn wsgate_with(
    site: &WarmSite,
    args: &[&str],
    variables: Variables<'_>,
) -> (Option<i32>, String) {
    let mut command = Command::new(site.dir.wsgate());
    set(site, command.args(args).env_clear(), variables);
    let ended = run(&mut command, "");
    (ended.code(), ended.text() + &ended.stderr)
}

fn sockets_in(site: &WarmSite, path: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(site.dir.path(path)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "sock")).collect()
}

#[test]
fn the_runtime_directory_is_the_named_one_that_of_the_session_or_a_temporary_one() {
    let in_temporary = named_by_user("tmp");
    let cases: [(Variables<'_>, &str); 5] = [
        (
            &[("WSGATE_RUNTIME_DIR", "named"), ("XDG_RUNTIME_DIR", "session"), ("TMPDIR", "tmp")],
            "named",
        ),
        (&[("XDG_RUNTIME_DIR", "session"), ("TMPDIR", "tmp")], "session/wsgate"),
        // The directory of another user: a process that has changed its user may still have the
        // variable.
        (&[("XDG_RUNTIME_DIR", "not_there"), ("TMPDIR", "tmp")], &in_temporary),
        (&[("XDG_RUNTIME_DIR", "open"), ("TMPDIR", "tmp")], &in_temporary),
        (&[("XDG_RUNTIME_DIR", "link"), ("TMPDIR", "tmp")], &in_temporary),
    ];
    for (variables, expected) in cases {
        let site = WarmSite::new(TELLS_ITSELF);
        directory(&site.dir.path("session"), 0o700);
        directory(&site.dir.path("open"), 0o755);
        directory(&site.dir.path("tmp"), 0o1777);
        symlink(site.dir.path("session"), site.dir.path("link")).unwrap();
        assert!(!Who::of(&ask_with(&site, variables)).is_warm());
        eventually(&format!("a pool serves in {expected}: {}", site.log()), || {
            sockets_in(&site, expected).len() == 1
        });
        assert!(Who::of(&ask_with(&site, variables)).is_warm(), "{}", site.log());
        let found = fs::symlink_metadata(site.dir.path(expected)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, geteuid().as_raw()), "{expected}");
        // A command finds the pool by the same variables.
        let socket = sockets_in(&site, expected).remove(0);
        let name = socket.file_stem().unwrap().to_str().unwrap();
        let (code, status) = wsgate_with(&site, &["status", name], variables);
        assert!(code == Some(0) && status.contains(name), "{status}");
        assert_eq!(wsgate_with(&site, &["reload", name], variables).0, Some(0));
        assert_eq!(wsgate_with(&site, &["stop", name], variables).0, Some(0));
        site.await_no_process();
    }
}

#[test]
fn a_shell_with_a_session_finds_the_pools_of_a_web_server_without_one() {
    let site = WarmSite::new(TELLS_ITSELF);
    directory(&site.dir.path("session"), 0o700);
    directory(&site.dir.path("tmp"), 0o1777);
    let of_server: Variables<'_> = &[("XDG_RUNTIME_DIR", "not_there"), ("TMPDIR", "tmp")];
    let of_shell: Variables<'_> = &[("XDG_RUNTIME_DIR", "session"), ("TMPDIR", "tmp")];
    ask_with(&site, of_server);
    eventually("a pool serves", || sockets_in(&site, &named_by_user("tmp")).len() == 1);
    let socket = sockets_in(&site, &named_by_user("tmp")).remove(0);
    let name = socket.file_stem().unwrap().to_str().unwrap();
    let (_, status) = wsgate_with(&site, &["status"], of_shell);
    assert!(status.contains(name), "{status}");
    assert_eq!(wsgate_with(&site, &["stop", name], of_shell).0, Some(0));
    site.await_no_process();
    let (code, message) = wsgate_with(&site, &["stop", name], of_shell);
    assert!(code == Some(1) && message.contains("W0905"), "{message}");
    assert!(!site.dir.path("session/wsgate").exists(), "asking makes nothing");
}

#[test]
fn a_shell_finds_the_pools_of_a_service_that_has_a_temporary_directory_of_its_own() {
    if !geteuid().is_root() {
        // Nobody else can make such a service.
        return;
    }
    // systemd's `PrivateTmp=yes` does the same. The site is below /var/tmp.
    let private = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    let mount = "mount -t tmpfs -o mode=1777 tmpfs /tmp && exec \"$@\"";
    for user in ["0", "54321"] {
        let as_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"];
        let site = WarmSite::new(TELLS_ITSELF);
        let request = || {
            let mut command = Command::new(private[0]);
            command.args(&private[1..]).arg(mount).arg("sh").args(as_user).arg(&site.script);
            let mut described = Command::new("");
            site.dir.describe(&mut described, &site.script);
            command
                .env_clear()
                .envs(described.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.env_remove("WSGATE_RUNTIME_DIR").env("MARK_RUNTIME_DIR", site.dir.path(""));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(site.log_file());
            site.response(&mut command, "")
        };
        assert!(!Who::of(&request()).is_warm());
        let wsgate = |args: &[&str]| {
            let mut command = Command::new(as_user[0]);
            command.args(&as_user[1..]).arg(site.dir.wsgate()).args(args);
            let ended = run(command.env_clear().env("PATH", "/usr/bin:/bin"), "");
            (ended.code(), ended.text(), ended.stderr)
        };
        let script = site.script.display().to_string();
        let line = |text: &str| text.lines().find(|line| line.contains(&script)).map(str::to_owned);
        let mut name = None;
        eventually("it is listed", || {
            name = line(&wsgate(&["status"]).1)
                .and_then(|line| line.split(' ').next().map(str::to_owned));
            name.is_some()
        });
        let name = name.unwrap();
        assert_eq!(wsgate(&["status", &name]).0, Some(0));
        assert_eq!(wsgate(&["reload", &name]).0, Some(0));
        assert_eq!(wsgate(&["stop", &name]).0, Some(0));
        site.await_no_process();
        // Now there is none, and it is said where that was looked for.
        let (code, _, message) = wsgate(&["stop", &name]);
        let dir = format!("`/tmp/wsgate-{user}`");
        assert!(
            code == Some(1) && message.contains("W0905") && message.contains(&dir),
            "{message}"
        );
        if user != "0" {
            let (code, text, message) = wsgate(&["status"]);
            assert!(code == Some(0) && text.is_empty(), "{text}");
            assert!(
                message.contains("no pools are running for user 54321") && message.contains(&dir),
                "{message}"
            );
        }
    }
}

/// Puts something at a path, in place of the user's own directory, and tells how it is called.
type ForeignDirectory = fn(&Path, &Path);

#[test]
fn a_directory_of_another_user_is_not_used_and_the_request_falls_back_to_cold_cgi() {
    let squatters: [(&str, ForeignDirectory); 8] = [
        ("a link to a good directory", |path, good| symlink(good, path).unwrap()),
        ("a link to nothing", |path, good| symlink(good.join("nothing"), path).unwrap()),
        ("a directory that all may use", |path, _| directory(path, 0o777)),
        ("a directory that its group may enter", |path, _| directory(path, 0o710)),
        ("a directory that others may read", |path, _| directory(path, 0o704)),
        ("a file", |path, _| fs::write(path, "x").unwrap()),
        ("a socket", |path, _| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("another user's directory", |path, _| {
            directory(path, 0o700);
            if geteuid().is_root() {
                chown(path, Some(65534), Some(65534)).unwrap();
            } else {
                // Nobody else can be made its owner; what he could have made of it all the same is
                // a directory like this.
                directory(path, 0o707);
            }
        }),
    ];
    let in_temporary = named_by_user("tmp");
    let places: [(&str, Variables<'_>); 3] = [
        ("named", &[("WSGATE_RUNTIME_DIR", "named")]),
        ("session/wsgate", &[("XDG_RUNTIME_DIR", "session")]),
        (&in_temporary, &[("MARK_RUNTIME_DIR", ""), ("TMPDIR", "tmp")]),
    ];
    let site = WarmSite::new(TELLS_ITSELF);
    directory(&site.dir.path("session"), 0o700);
    directory(&site.dir.path("tmp"), 0o1777);
    directory(&site.dir.path("good"), 0o700);
    for (relative, variables) in places {
        for (what, squat) in squatters {
            let path = site.dir.path(relative);
            squat(&path, &site.dir.path("good"));
            let before = site.log().matches("wsgate: ").count();
            let response = ask_with(&site, variables);
            let log = site.log();
            assert!(!Who::of(&response).is_warm(), "{what} at {relative}");
            assert_eq!(log.matches("wsgate: ").count(), before + 1, "{what} at {relative}: {log}");
            let message = &log[log.rfind("wsgate: ").unwrap()..];
            assert!(
                message.starts_with("wsgate: warning[W0801]") && message.contains(relative),
                "{message}"
            );
            assert!(site.supervisors().is_empty(), "{what} at {relative}");
            assert_eq!(
                fs::read_dir(site.dir.path("good")).unwrap().count(),
                0,
                "{what} at {relative}"
            );
            if relative == "named" && what != "another user's directory" {
                let (code, message) = wsgate_with(&site, &["status"], variables);
                let is_there = path.exists() || path.is_symlink();
                assert!(
                    is_there && code == Some(78) && message.contains("W0905"),
                    "{what}: {message}"
                );
            }
            match fs::symlink_metadata(&path).unwrap() {
                found if found.is_dir() => fs::remove_dir(&path).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
        }
    }
}

#[test]
fn a_relative_path_is_refused() {
    let site = WarmSite::new(TELLS_ITSELF);
    let mut command = site.request();
    let response = site.response(command.env("WSGATE_RUNTIME_DIR", "run"), "");
    assert!(!Who::of(&response).is_warm());
    assert!(site.log().contains("is not an absolute path"), "{}", site.log());
    assert!(!site.dir.path("site/run").exists());
}

#[test]
fn root_controls_the_pools_of_another_user_by_naming_the_directory() {
    if !geteuid().is_root() {
        // Nobody else gets an answer, which `control` tests.
        return;
    }
    let site = WarmSite::new(TELLS_ITSELF);
    let run = site.dir.path("run");
    directory(&run, 0o700);
    chown(&run, Some(65534), Some(65534)).unwrap();
    let request = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(site.dir.wsgate());
        site.dir.describe(&mut command, &site.script);
        command
            .arg(&site.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(site.log_file());
        site.response(&mut command, "")
    };
    assert!(!Who::of(&request()).is_warm());
    eventually(&format!("a pool serves: {}", site.log()), || sockets_in(&site, "run").len() == 1);
    assert!(Who::of(&request()).is_warm());
    let socket = sockets_in(&site, "run").remove(0);
    let name = socket.file_stem().unwrap().to_str().unwrap();
    let variables: Variables<'_> = &[("WSGATE_RUNTIME_DIR", "run")];
    let (code, status) = wsgate_with(&site, &["status", name], variables);
    assert!(code == Some(0) && status.contains(name), "{status}");
    assert_eq!(wsgate_with(&site, &["stop", name], variables).0, Some(0));
    site.await_no_process();
    // Root's own requests do not use it.
    assert!(!Who::of(&ask_with(&site, variables)).is_warm());
    assert!(site.log().contains("W0801"), "{}", site.log());
}
