//! A pool that root starts: which user it serves as, and which files root makes for it.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Signal, geteuid};

use crate::{
    pool::only_log_message,
    support::{
        artefacts,
        child_process::{RunningProcess, piped, run},
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, children},
        probe::python,
        processes::user_and_group_ids,
    },
};

/// The user that pools of these tests serve as, and a user that is neither that nor root.
pub(super) const USER: (&str, u32) = ("nobody", 65534);
pub(super) const ANOTHER: u32 = 54321;

/// Says as whom it was loaded, and as whom it serves.
pub(super) const WHO: &str = "
    import os
    def who():
        try:
            os.setuid(0)
            regained = True
        except PermissionError:
            regained = False
        groups = sorted(set(os.getgroups()))
        return os.getresuid(), os.getresgid(), groups, regained
    LOADED = who()
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        variables = [os.environ.get(name) for name in ('HOME', 'USER', 'LOGNAME')]
        return [repr((LOADED == who(), who(), variables)).encode()]
    ";

/// A pool in a directory that everybody may enter, with a directory `theirs` of the user's own;
/// none if this is not root.
pub(super) fn setup(code: &str) -> Option<PoolSetup> {
    if !geteuid().is_root() {
        return None;
    }
    let setup = PoolSetup::new(code);
    fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    theirs(&setup.path("theirs"), USER.1);
    Some(setup)
}

/// Makes a directory of another user's.
pub(super) fn theirs(path: &Path, user: u32) {
    fs::create_dir(path).unwrap();
    chown(path, Some(user), Some(user)).unwrap();
}

/// A command of root's that is run as another user.
pub(super) fn as_user(user: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

#[test]
fn a_pool_serves_as_the_named_user_and_cannot_become_root_again() {
    for preload in ["yes", "no"] {
        let Some(setup) = setup(WHO) else { return };
        let setup = setup.args(&["--user", USER.0, "--preload", preload]).variable("HOME", "/root");
        // Root's own groups are not the user's.
        let mut pool = setup.launch_by(&["setpriv", "--groups=0,4,24", "--"]);
        pool.await_log("W0710");
        let groups = run(Command::new("id").args(["-G", USER.0]), "").text();
        let user = USER.1;
        let ids = format!("({user}, {user}, {user})");
        let home = run(Command::new("getent").args(["passwd", USER.0]), "").text();
        let home = home.split(':').nth(5).unwrap();
        let expected = format!(
            "(True, ({ids}, {ids}, [{}], False), ['{home}', '{1}', '{1}'])",
            groups.trim(),
            USER.0
        );
        assert_eq!(pool.connect().ask(&FastcgiRequest::get("/")).text(), expected);
        let templates = children(pool.pid());
        let workers = templates.iter().copied().flat_map(children);
        for pid in workers.chain(templates.clone()).chain([pool.pid()]) {
            assert_eq!(user_and_group_ids(pid), vec![user.to_string(); 8], "{pid}");
        }
        let socket = fs::metadata(pool.socket()).unwrap();
        assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o777), (user, user, 0o660));
        pool.stop();
    }
}

#[test]
fn a_number_with_a_group_is_enough_and_env_overrides_the_variables_of_the_user() {
    let Some(setup) = setup(WHO) else { return };
    let number = ANOTHER.to_string();
    let pool =
        setup.args(&["--user", &number, "--group", "4242", "--env", "HOME=/elsewhere"]).start();
    let ids = format!("({ANOTHER}, {ANOTHER}, {ANOTHER})");
    let expected = format!(
        "(True, ({ids}, (4242, 4242, 4242), [4242], False), \
         ['/elsewhere', '{ANOTHER}', '{ANOTHER}'])"
    );
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), expected);
    pool.stop();
}

#[test]
fn root_and_the_user_control_the_pool_and_its_socket_is_removed_at_its_exit() {
    let Some(setup) = setup(WHO) else { return };
    let socket = setup.path("theirs/app.sock");
    let address = format!("unix:{}", socket.display());
    let pool = setup.listen(&[&address]).args(&["--user", USER.0]).start();
    assert!(!pool.log().contains("W0730"), "{}", pool.log());
    let run_directory = pool.setup().path("run");
    for args in [["status", "app"], ["reload", "app"]] {
        assert_eq!(pool.run_wsgate(&args).code(), Some(0), "{args:?}");
        let mut command = as_user(USER.1, artefacts::gateway());
        command.args(args).env_clear().env("WSGATE_RUNTIME_DIR", &run_directory);
        let ended = run(&mut command, "");
        assert_eq!(ended.code(), Some(0), "{args:?} {}", ended.stderr);
    }
    // Nobody else is answered.
    let mut command = as_user(ANOTHER, artefacts::gateway());
    command.args(["stop", "app"]).env_clear().env("WSGATE_RUNTIME_DIR", &run_directory);
    assert_eq!(run(&mut command, "").code(), Some(78));
    assert!(socket.exists());
    assert_eq!(pool.run_wsgate(&["stop", "app"]).code(), Some(0));
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(!socket.exists() && !setup.path("run/app.pool").exists());
}

#[test]
fn root_sends_nothing_to_sockets_that_another_user_links_to() {
    let Some(setup) = setup(WHO) else { return };
    let lure = setup.path("another");
    theirs(&lure, ANOTHER);
    fs::set_permissions(&lure, fs::Permissions::from_mode(0o700)).unwrap();
    let pool = setup.start();
    symlink(pool.setup().path("run/app.pool"), lure.join("app.pool")).unwrap();
    for args in [["stop", "app"], ["status", "app"]] {
        let mut command = Command::new(artefacts::gateway());
        let ended = run(command.args(args).env_clear().env("WSGATE_RUNTIME_DIR", &lure), "");
        assert!(ended.code() == Some(1) && ended.stderr.contains("W0905"), "{ended:?}");
    }
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
    pool.stop();
}

#[test]
fn without_a_named_directory_root_finds_the_pools_that_it_has_started() {
    let Some(setup) = setup(WHO) else { return };
    let name = format!("of-root-{}", std::process::id());
    let setup = setup.args(&["--user", &ANOTHER.to_string(), "--group", "4242", "--name", &name]);
    let mut command = setup.command();
    command.env_remove("WSGATE_RUNTIME_DIR");
    let pool = setup.launch_as(&mut command);
    assert!(!pool.log().contains("W0730"), "{}", pool.log());
    for user in [0, ANOTHER] {
        let ended = run(as_user(user, artefacts::gateway()).arg("status").env_clear(), "");
        assert!(ended.text().contains(&name), "{user}: {ended:?}");
    }
    let ended = run(Command::new(artefacts::gateway()).args(["stop", &name]).env_clear(), "");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    pool.end();
    fs::remove_dir_all(format!("/run/wsgate/user-{ANOTHER}")).unwrap();
    // Unless it is the machine's.
    let _ = fs::remove_dir("/run/wsgate");
}

#[test]
fn a_command_of_roots_names_the_user_of_a_pool_if_two_users_have_its_name() {
    let name = format!("twice-{}", std::process::id());
    let users = [ANOTHER + 1, ANOTHER + 2].map(|user| user.to_string());
    let mut pools = Vec::new();
    for user in &users {
        let Some(setup) = setup(WHO) else { return };
        let setup = setup.args(&["--user", user, "--group", "4242", "--name", &name]);
        let mut command = setup.command();
        command.env_remove("WSGATE_RUNTIME_DIR");
        pools.push(setup.launch_as(&mut command));
    }
    let ask = |args: &[&str]| run(Command::new(artefacts::gateway()).args(args).env_clear(), "");
    let named = users.each_ref().map(|user| format!("{user}/{name}"));
    for word in ["stop", "reload", "stacks"] {
        let ended = ask(&[word, &name]);
        assert!(
            ended.code() == Some(1) && ended.stderr.contains("more than one pool"),
            "{ended:?}"
        );
        assert!(named.iter().all(|named| ended.stderr.contains(named)), "{}", ended.stderr);
    }
    assert_eq!(ask(&["status", &name]).text().matches(&name).count(), 2);
    let ended = ask(&["stop", &format!("nobody/{name}")]);
    assert!(ended.code() == Some(1) && ended.stderr.contains("of the user `nobody`"), "{ended:?}");
    assert_eq!(ask(&["stop", "no/user/app"]).code(), Some(2));
    for ((pool, user), named) in pools.into_iter().zip(users).zip(named) {
        assert_eq!(ask(&["reload", &named]).code(), Some(0), "{}", pool.log());
        assert!(ask(&["status", &named]).text().contains(&format!("pid {} ", pool.pid())));
        assert!(ask(&["stacks", &named]).text().starts_with("Process "));
        assert!(ask(&["top", &named]).text().starts_with("1 pool, "));
        assert_eq!(ask(&["stop", &named]).code(), Some(0), "{}", pool.log());
        pool.end();
        fs::remove_dir_all(format!("/run/wsgate/user-{user}")).unwrap();
    }
    // Unless it is the machine's.
    let _ = fs::remove_dir("/run/wsgate");
}

#[test]
fn the_root_of_a_user_namespace_of_one_user_is_that_user() {
    let Some(setup) = setup(WHO) else { return };
    let within = ["unshare", "--user", "--map-root-user", "--"];
    let as_another = [format!("--reuid={ANOTHER}"), format!("--regid={ANOTHER}")];
    let as_another: Vec<&str> = as_another.iter().map(String::as_str).collect();
    let args = [&["setpriv"], as_another.as_slice(), &["--clear-groups", "--"], &within].concat();
    // Some machines allow no user namespaces.
    if !Command::new(args[0]).args(&args[1..]).arg("true").status().unwrap().success() {
        return;
    }
    fs::create_dir_all(setup.path("run")).unwrap();
    let mut owned = vec![setup.path(""), setup.path("run")];
    owned.extend(fs::read_dir(setup.path("")).unwrap().map(|entry| entry.unwrap().path()));
    owned.iter().for_each(|path| chown(path, Some(ANOTHER), Some(ANOTHER)).unwrap());
    fs::set_permissions(setup.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let log = setup.path("access.log").display().to_string();
    let mut pool = setup.args(&["--access-log", &log]).launch_by(&args);
    pool.await_log("W0710");
    assert!(pool.ask(&FastcgiRequest::get("/")).text().contains("(True, ((0, 0, 0), (0, 0, 0), "));
    let log = pool.stop();
    for code in ["W0723", "W0724", "W0730"] {
        assert!(!log.contains(code), "{code}: {log}");
    }
}

#[test]
fn a_machine_without_programs_that_list_users_has_them_in_files() {
    let Some(setup) = setup(WHO) else { return };
    let args = ["--user", USER.0, "--socket-owner", "daemon:daemon", "--error-log", "/dev/stderr"];
    let pool = setup.args(&args).variable("PATH", "/nowhere").start();
    assert!(pool.connect().ask(&FastcgiRequest::get("/")).text().starts_with("(True, "));
    assert_eq!(user_and_group_ids(pool.pid())[0], USER.1.to_string());
    let socket = fs::metadata(pool.socket()).unwrap();
    assert_eq!((socket.uid(), socket.gid()), (1, 1));
    pool.stop();
}

#[test]
fn without_root_only_ones_own_user_can_be_named_and_unknown_names_are_refused() {
    let Some(setup) = setup(WHO) else { return };
    for (user, args, is_fine) in [
        (USER.1, vec!["--user", USER.0], true),
        (USER.1, vec!["--user", "root"], false),
        (USER.1, vec!["--user", "54321", "--group", "4242"], false),
        (0, vec!["--user", "no-such-user"], false),
        (0, vec!["--user", " 1"], false),
        (0, vec!["--user", "+1"], false),
        (0, vec!["--user", USER.0, "--group", "no-such-group"], false),
        (0, vec!["--user", "54321"], false),
    ] {
        let socket = setup.path("theirs/app.sock");
        let mut command = as_user(user, artefacts::gateway());
        command.args(["fastcgi", "--python"]).arg(python()).args(&args);
        command.arg(format!("--listen=unix:{}", socket.display())).arg(setup.path("app.wsgi"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("WSGATE_RUNTIME_DIR", setup.path("theirs/run"));
        let mut running = RunningProcess::start(piped(&mut command));
        if is_fine {
            running.await_log("W0710");
            running.signal(Signal::TERM);
        }
        let ended = running.end();
        assert_eq!(ended.code(), Some(if is_fine { 0 } else { 78 }), "{args:?} {}", ended.stderr);
        assert_eq!(
            ended.stderr.contains("error[W0722]") && ended.stderr.contains("hint: "),
            !is_fine,
            "{args:?}"
        );
        assert!(!socket.exists(), "{args:?}");
    }
}

#[test]
fn an_unknown_socket_owner_is_refused_with_a_hint() {
    let Some(setup) = setup(WHO) else { return };
    for (owner, said) in [
        ("no-such-user", "there is no user `no-such-user`"),
        ("+1", "there is no user `+1`"),
        // The kernel would change nothing.
        ("4294967295", "there is no user `4294967295`"),
        (":no-such-group", "there is no group `no-such-group`"),
    ] {
        let mut command = as_user(0, artefacts::gateway());
        command.args(["fastcgi", "--python"]).arg(python()).args(["--user", USER.0]);
        command.arg(format!("--socket-owner={owner}"));
        command
            .arg(format!("--listen=unix:{}", setup.path("theirs/app.sock").display()))
            .arg(setup.path("app.wsgi"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("WSGATE_RUNTIME_DIR", setup.path("theirs/run"));
        let ended = RunningProcess::start(piped(&mut command)).end();
        assert_eq!(ended.code(), Some(78), "{owner} {}", ended.stderr);
        for text in ["error[W0722]", said, "getent "] {
            assert!(ended.stderr.contains(text), "{owner}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_pool_of_roots_warns_unless_root_is_meant() {
    let Some(setup) = setup(WHO) else { return };
    let unmeant = |mut command: Command| {
        // Removes the option that the harness has added.
        let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let at = args.iter().position(|word| word == "--user").unwrap();
        let mut bare = Command::new(command.get_program());
        bare.args(&args[..at]).args(&args[at + 2..]).env_clear();
        bare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = bare;
        piped(&mut command);
        command
    };
    let mut command = unmeant(setup.command());
    let pool = setup.launch_as(&mut command);
    only_log_message(&pool.stop(), "W0723");
    // A lone worker, too.
    let setup = crate::pool::privileges::setup(WHO).unwrap();
    let path = setup.path("lone.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let setup = setup.listen(&[]);
    let mut command = unmeant(setup.command());
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let mut running = RunningProcess::start(&mut command);
    running.await_log("W0723");
    running.signal(Signal::TERM);
    running.end();
}
