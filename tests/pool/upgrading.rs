//! `wsgate reload --binary`: a pool changes to the installed build of wsgate, or keeps its own if
//! that cannot serve.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
};

use rustix::process::Signal;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        install_dir::InstallDir,
        pool::{Pool, PoolSetup, children},
        web_servers::eventually,
    },
};

const ENGINE: &str = "bin/libwsgate_engine.so";

const HELLO: &str = "
    import os
    def application(environ, start_response):
        environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
";

/// A build of wsgate that can be installed.
pub(crate) struct Build {
    gateway: Vec<u8>,
    engine: Vec<u8>,
    name: String,
}

impl Build {
    /// Installs this build as a package does: new files take the names of the old ones.
    pub(crate) fn install(&self, dir: &InstallDir) {
        for (draft, content, path) in
            [("new/engine.so", &self.engine, ENGINE), ("new/wsgate", &self.gateway, "bin/wsgate")]
        {
            dir.executable(draft, content);
            fs::rename(dir.path(draft), dir.path(path)).unwrap();
        }
    }
}

/// A directory with wsgate, and the build in it and another one.
pub(crate) fn two_builds() -> (InstallDir, [Build; 2]) {
    let dir = InstallDir::new();
    let (gateway, name) = dir.of_another_build("bin/wsgate");
    let (engine, _) = dir.of_another_build(ENGINE);
    let other = Build { gateway, engine, name };
    let read = |path| fs::read(dir.path(path)).unwrap();
    let first = Build { gateway: read("bin/wsgate"), engine: read(ENGINE), name: dir.build() };
    (dir, [first, other])
}

/// Waits until `build` has taken over the pool so many times.
#[track_caller]
pub(crate) fn await_upgraded(pool: &mut Pool, build: &Build, times: usize) {
    pool.await_times(&format!("wsgate {} has taken over the pool", build.name), times);
}

#[track_caller]
fn says_hello(pool: &Pool) {
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "hello");
}

/// The value of a field of the status.
fn status(pool: &Pool, field: &str) -> serde_json::Value {
    let printed = pool.run_wsgate(&["status", "--json"]).text();
    serde_json::from_str::<serde_json::Value>(&printed).unwrap()[field].clone()
}

#[test]
fn a_pool_changes_to_the_installed_build_and_stays_the_same_process() {
    let (dir, builds) = two_builds();
    let setup = PoolSetup::new(HELLO).args(&["--workers", "2", "--slow", "9"]);
    let [access_log, slow_log] =
        ["access.log", "slow.log"].map(|name| setup.path(name).display().to_string());
    let args = ["--access-log", &access_log, "--slow-log", &slow_log];
    let mut pool = setup.args(&args).program(dir.wsgate()).start();
    let inode = fs::metadata(pool.socket()).unwrap().ino();
    says_hello(&pool);
    assert_eq!(status(&pool, "build"), builds[0].name.as_str());
    builds[1].install(&dir);
    pool.signal(Signal::USR2);
    await_upgraded(&mut pool, &builds[1], 1);
    pool.await_log("W0711");
    eventually("the old workers have ended", || children(pool.pid()).len() == 1);
    says_hello(&pool);
    assert_eq!(status(&pool, "build"), builds[1].name.as_str());
    assert_eq!(status(&pool, "pid"), pool.pid());
    assert_eq!(status(&pool, "generation"), 2);
    assert_eq!(status(&pool, "requests"), 2, "requests of both builds");
    assert_eq!(fs::metadata(pool.socket()).unwrap().ino(), inode, "it is the same socket");
    assert_eq!(fs::read_to_string(access_log).unwrap().lines().count(), 2);
    let files = fs::read_dir(format!("/proc/{}/fd", pool.pid())).unwrap().flatten();
    let files = files.filter_map(|file| fs::read_link(file.path()).ok());
    assert_eq!(files.filter(|file| file.ends_with("slow.log")).count(), 1);
    let socket = pool.socket();
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
    assert!(!socket.exists(), "the pool that stops removes its socket");
}

#[test]
fn a_request_that_runs_during_an_upgrade_is_completed() {
    let (dir, builds) = two_builds();
    let mut pool = PoolSetup::new(GATED).gated().program(dir.wsgate()).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    builds[1].install(&dir);
    let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
    assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
    assert_eq!(pool.ask(&FastcgiRequest::get("/fast")).text(), "/fast|");
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

/// The pool is upgraded to what `install` has installed, which fails for `reason`.
#[track_caller]
fn refuses(install: impl FnOnce(&InstallDir, &PoolSetup), expected: &[&str], reason: &str) {
    let dir = InstallDir::new();
    let pool = PoolSetup::new(HELLO).program(dir.wsgate()).start();
    let workers = pool.workers(1);
    install(&dir, pool.setup());
    let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
    assert_eq!(reported.code(), Some(1), "{}", reported.stderr);
    assert!(
        reported.stderr.contains("error[W0728]") && reported.stderr.contains(reason),
        "{}",
        reported.stderr
    );
    let program = format!("`{}`: ", dir.wsgate().display());
    assert!(reported.stderr.contains(&program), "{program}: {}", reported.stderr);
    says_hello(&pool);
    assert_eq!(pool.workers(1), workers, "nothing has happened to them");
    let shown = status(&pool, "failed_upgrade")["reason"].as_str().unwrap().to_owned();
    assert!(shown.contains(reason), "{shown}");
    assert_eq!(children(pool.pid()).len(), 1, "the trial has ended");
    let log = pool.stop();
    assert_eq!(codes(&log), expected, "{log}");
}

fn replace(dir: &InstallDir, path: &str, content: impl AsRef<[u8]>) {
    dir.executable("draft", content);
    fs::rename(dir.path("draft"), dir.path(path)).unwrap();
}

#[test]
fn a_program_that_is_no_program_leaves_the_pool_serving() {
    refuses(
        |dir, _| replace(dir, "bin/wsgate", "\x7fELF and no more"),
        &["W0728"],
        "Exec format error",
    );
}

#[test]
fn a_truncated_program_leaves_the_pool_serving() {
    let truncate = |dir: &InstallDir, _: &PoolSetup| {
        let whole = fs::read(dir.wsgate()).unwrap();
        replace(dir, "bin/wsgate", &whole[..whole.len() / 3]);
    };
    refuses(truncate, &["W0728"], "the program");
}

#[test]
fn a_program_that_exits_at_once_leaves_the_pool_serving() {
    for status in ["0", "3"] {
        let script = format!("#!/bin/sh\nexit {status}\n");
        let reason = format!("exited with status {status} without having loaded the application");
        refuses(|dir, _| replace(dir, "bin/wsgate", script), &["W0728"], &reason);
    }
}

#[test]
fn a_program_that_is_missing_leaves_the_pool_serving() {
    let remove = |dir: &InstallDir, _: &PoolSetup| fs::remove_file(dir.wsgate()).unwrap();
    refuses(remove, &["W0728"], "No such file or directory");
}

#[test]
fn a_program_without_its_engine_leaves_the_pool_serving() {
    let remove = |dir: &InstallDir, _: &PoolSetup| fs::remove_file(dir.path(ENGINE)).unwrap();
    refuses(remove, &["W0203", "W0728"], "the engine was not found");
}

#[test]
fn a_program_with_the_engine_of_another_build_leaves_the_pool_serving() {
    let mix = |dir: &InstallDir, _: &PoolSetup| {
        let (engine, _) = dir.of_another_build(ENGINE);
        replace(dir, ENGINE, engine);
    };
    refuses(mix, &["W0206", "W0728"], "W0206");
}

#[test]
fn code_that_cannot_be_loaded_leaves_the_pool_serving() {
    let break_code = |_: &InstallDir, setup: &PoolSetup| setup.release("import no_such_module");
    refuses(break_code, &["W0302", "W0728"], "W0302");
}

#[test]
fn a_pool_of_sockets_that_were_passed_to_it_is_upgraded() {
    let (dir, builds) = two_builds();
    let setup = PoolSetup::new(HELLO).args(&["--workers", "2"]);
    let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
    let mut pool = setup.program(dir.wsgate()).start_on(OwnedFd::from(listener));
    pool.await_log("W0710");
    for build in [&builds[1], &builds[0]] {
        build.install(&dir);
        let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
        assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
        await_upgraded(&mut pool, build, 1);
        says_hello(&pool);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_resting_pool_is_upgraded() {
    let (dir, builds) = two_builds();
    let setup = PoolSetup::new(HELLO).dynamic(&["--max", "2", "--idle", "1"]);
    let mut pool = setup.program(dir.wsgate()).start();
    pool.await_log("W0716");
    builds[1].install(&dir);
    let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
    assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
    says_hello(&pool);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn requests_that_wait_with_a_limit_are_handed_over() {
    let (dir, builds) = two_builds();
    let args = ["--queue", "60", "--drain", "60"];
    let mut pool = PoolSetup::new(GATED).gated().args(&args).program(dir.wsgate()).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let connection = pool.connect();
            connection.send(&FastcgiRequest::get("/fast").bytes());
            connection
        })
        .collect();
    builds[1].install(&dir);
    let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
    assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
    for mut connection in waiting {
        assert_eq!(connection.response().text(), "/fast|");
    }
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_pool_that_was_started_by_root_for_a_user_is_upgraded_as_that_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, builds) = two_builds();
    let setup = PoolSetup::new(HELLO).args(&["--user", "nobody", "--group", "nogroup"]);
    fs::set_permissions(setup.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let mut pool = setup.program(dir.wsgate()).start();
    builds[1].install(&dir);
    let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
    assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
    await_upgraded(&mut pool, &builds[1], 1);
    says_hello(&pool);
    let status = fs::read_to_string(format!("/proc/{}/status", pool.pid())).unwrap();
    assert!(!status.contains("Uid:\t0"), "{status}");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
