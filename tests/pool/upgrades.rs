//! wsgate is replaced on disk while a pool runs: the pool goes on with the gateway and the engine
//! that it was started with.

use std::{fs, os::unix::net::UnixListener, process::Command};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    fastcgi_client::FastcgiRequest,
    install_dir::InstallDir,
    pool::{Pool, PoolSetup, children, signal},
    web_servers::{eventually, source},
};

/// Where `make install` puts the engine.
const ENGINE: &str = "lib/wsgate/libwsgate_engine.so";

fn release(number: u32) -> String {
    format!(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'release {number}']
        "
    )
}

/// A place laid out by `make install`. Its files are its own, so that they may be written into.
fn installed() -> InstallDir {
    let dir = InstallDir::new();
    let engine = fs::read(dir.path("bin/libwsgate_engine.so")).unwrap();
    dir.executable(ENGINE, engine);
    fs::remove_file(dir.path("bin/libwsgate_engine.so")).unwrap();
    dir
}

#[track_caller]
fn responses(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || {
        let mut connection = pool.connect();
        // The worker may have been killed a moment ago.
        let response = connection
            .try_send(&FastcgiRequest::get("/").bytes())
            .and_then(|()| connection.try_response());
        matches!(response, Ok(Some(response)) if response.text() == expected)
    });
}

/// The change to the files of a running pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Rename,
    MakeInstall,
    WrittenInto,
    EngineRemoved,
    BothRemoved,
}

impl Upgrade {
    fn of(self, dir: &InstallDir) {
        let (engine, _) = dir.of_another_build(ENGINE);
        let (gateway, _) = dir.of_another_build("bin/wsgate");
        let drafts =
            [("new/wsgate", gateway, "bin/wsgate"), ("new/engine.so", engine.clone(), ENGINE)];
        for (draft, content, _) in &drafts {
            dir.executable(draft, content);
        }
        match self {
            Self::Rename => {
                drafts.iter().for_each(|(draft, _, path)| {
                    fs::rename(dir.path(draft), dir.path(path)).unwrap()
                });
            }
            Self::MakeInstall => {
                let mut make = Command::new("make");
                make.arg("install").current_dir(source("")).env("DESTDIR", "");
                make.arg(format!("PREFIX={}", dir.path("").display()));
                make.arg(format!("GATEWAY={}", dir.path("new/wsgate").display()));
                make.arg(format!("ENGINE={}", dir.path("new/engine.so").display()));
                let made = make.output().unwrap();
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            }
            // The kernel lets nobody write into a program that runs.
            Self::WrittenInto => fs::write(dir.path(ENGINE), &engine[..engine.len() / 2]).unwrap(),
            Self::EngineRemoved => fs::remove_file(dir.path(ENGINE)).unwrap(),
            Self::BothRemoved => {
                [ENGINE, "bin/wsgate"]
                    .iter()
                    .for_each(|path| fs::remove_file(dir.path(path)).unwrap());
            }
        }
    }

    fn is_logged(self) -> bool {
        !matches!(self, Self::EngineRemoved | Self::BothRemoved)
    }
}

/// A pool rests, reloads and loses its template after `upgrade`, and serves.
#[track_caller]
fn survives(upgrade: Upgrade) {
    let dir = installed();
    let setup = PoolSetup::new(&release(1)).dynamic(&["--max", "2", "--idle", "1"]);
    let mut pool = setup.program(dir.wsgate()).start();
    responses(&pool, 1);
    upgrade.of(&dir);
    // Processes that have loaded it go on, too.
    responses(&pool, 1);
    pool.await_log("W0716");
    eventually("the pool rests", || children(pool.pid()).is_empty());
    responses(&pool, 1);
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    responses(&pool, 2);
    eventually("one template is left", || children(pool.pid()).len() == 1);
    signal(pool.template(), Signal::KILL);
    pool.await_log("W0703");
    responses(&pool, 2);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0703"], "{upgrade:?}: {log}");
    assert_eq!(log.contains("W0713"), upgrade.is_logged(), "{upgrade:?}: {log}");
}

#[test]
fn a_pool_survives_an_upgrade_by_rename() {
    survives(Upgrade::Rename);
}

#[test]
fn a_pool_survives_an_upgrade_by_make_install() {
    survives(Upgrade::MakeInstall);
}

#[test]
fn a_pool_survives_a_write_into_its_engine() {
    survives(Upgrade::WrittenInto);
}

#[test]
fn a_pool_survives_the_removal_of_its_engine() {
    survives(Upgrade::EngineRemoved);
}

#[test]
fn a_pool_survives_the_removal_of_all_of_wsgate() {
    survives(Upgrade::BothRemoved);
}

#[test]
fn the_templates_of_the_import_audit_load_the_engine_of_the_pool() {
    let dir = installed();
    let mut pool = PoolSetup::new(&release(1)).program(dir.wsgate()).start();
    responses(&pool, 1);
    Upgrade::Rename.of(&dir);
    let listens = "
        import socket
        left = socket.create_server(('127.0.0.1', 0), reuse_port=True)
    ";
    pool.setup().release(&format!("{listens}{}", release(2)));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    responses(&pool, 2);
    let log = pool.stop();
    assert!(log.contains("W0309") && codes(&log).is_empty(), "{log}");
}

#[test]
fn no_process_of_a_pool_has_the_descriptor_of_the_engine_but_the_supervisor() {
    let pool = PoolSetup::new(&release(1)).args(&["--workers", "2"]).start();
    let holds = |pid: &i32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut targets = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.any(|target| target.to_string_lossy().contains("wsgate-engine"))
    };
    assert!(holds(&pool.pid()));
    let others = [vec![pool.template()], pool.workers(2)].concat();
    assert_eq!(others.iter().filter(|pid| holds(pid)).count(), 0);
    pool.stop();
}

#[test]
fn a_lone_worker_survives_an_upgrade() {
    for upgrade in [Upgrade::Rename, Upgrade::MakeInstall, Upgrade::BothRemoved] {
        let dir = installed();
        let setup = PoolSetup::new(&release(1));
        let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
        let pool = setup.program(dir.wsgate()).start_on(listener);
        responses(&pool, 1);
        upgrade.of(&dir);
        responses(&pool, 1);
        assert_eq!(codes(&pool.stop()), [""; 0]);
    }
}
