//! wsgate is replaced on disk while a pool runs: the pool goes on with the gateway and the engine
//! that it was started with.

use std::{fs, os::unix::net::UnixListener, process::Command};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    fastcgi_client::Ask,
    install_dir::Place,
    pool::{Pool, Setup, children, signal},
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
fn installed() -> Place {
    let place = Place::new();
    let engine = fs::read(place.path("bin/libwsgate_engine.so")).unwrap();
    place.executable(ENGINE, engine);
    fs::remove_file(place.path("bin/libwsgate_engine.so")).unwrap();
    place
}

#[track_caller]
fn answers(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || {
        let mut wire = pool.connect();
        // The worker may have been killed a moment ago.
        let answer = wire.try_send(&Ask::get("/").bytes()).and_then(|()| wire.try_answer());
        matches!(answer, Ok(Some(answer)) if answer.text() == expected)
    });
}

/// What is done to the files of a pool that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Rename,
    MakeInstall,
    WrittenInto,
    EngineRemoved,
    BothRemoved,
}

impl Upgrade {
    fn of(self, place: &Place) {
        let (engine, _) = place.of_another_build(ENGINE);
        let (gateway, _) = place.of_another_build("bin/wsgate");
        let drafts =
            [("new/wsgate", gateway, "bin/wsgate"), ("new/engine.so", engine.clone(), ENGINE)];
        for (draft, content, _) in &drafts {
            place.executable(draft, content);
        }
        match self {
            Self::Rename => {
                drafts.iter().for_each(|(draft, _, path)| {
                    fs::rename(place.path(draft), place.path(path)).unwrap()
                });
            }
            Self::MakeInstall => {
                let mut make = Command::new("make");
                make.arg("install").current_dir(source("")).env("DESTDIR", "");
                make.arg(format!("PREFIX={}", place.path("").display()));
                make.arg(format!("GATEWAY={}", place.path("new/wsgate").display()));
                make.arg(format!("ENGINE={}", place.path("new/engine.so").display()));
                let made = make.output().unwrap();
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            }
            // The kernel lets nobody write into a program that runs.
            Self::WrittenInto => {
                fs::write(place.path(ENGINE), &engine[..engine.len() / 2]).unwrap()
            }
            Self::EngineRemoved => fs::remove_file(place.path(ENGINE)).unwrap(),
            Self::BothRemoved => {
                [ENGINE, "bin/wsgate"]
                    .iter()
                    .for_each(|path| fs::remove_file(place.path(path)).unwrap());
            }
        }
    }

    fn is_told(self) -> bool {
        !matches!(self, Self::EngineRemoved | Self::BothRemoved)
    }
}

/// A pool rests, reloads and loses its template after `upgrade`, and serves.
#[track_caller]
fn survives(upgrade: Upgrade) {
    let place = installed();
    let setup = Setup::new(&release(1)).dynamic(&["--max", "2", "--idle", "1"]);
    let mut pool = setup.program(place.wsgate()).start();
    answers(&pool, 1);
    upgrade.of(&place);
    // Processes that have loaded it go on, too.
    answers(&pool, 1);
    pool.await_log("W0716");
    eventually("the pool rests", || children(pool.pid()).is_empty());
    answers(&pool, 1);
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    answers(&pool, 2);
    eventually("one template is left", || children(pool.pid()).len() == 1);
    signal(pool.template(), Signal::KILL);
    pool.await_log("W0703");
    answers(&pool, 2);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0703"], "{upgrade:?}: {log}");
    assert_eq!(log.contains("W0713"), upgrade.is_told(), "{upgrade:?}: {log}");
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
    let place = installed();
    let mut pool = Setup::new(&release(1)).program(place.wsgate()).start();
    answers(&pool, 1);
    Upgrade::Rename.of(&place);
    let listens = "
        import socket
        left = socket.create_server(('127.0.0.1', 0), reuse_port=True)
    ";
    pool.setup().release(&format!("{listens}{}", release(2)));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    answers(&pool, 2);
    let log = pool.stop();
    assert!(log.contains("W0309") && codes(&log).is_empty(), "{log}");
}

#[test]
fn no_process_of_a_pool_has_the_descriptor_of_the_engine_but_the_supervisor() {
    let pool = Setup::new(&release(1)).words(&["--workers", "2"]).start();
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
        let place = installed();
        let setup = Setup::new(&release(1));
        let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
        let pool = setup.program(place.wsgate()).start_on(listener);
        answers(&pool, 1);
        upgrade.of(&place);
        answers(&pool, 1);
        assert_eq!(codes(&pool.stop()), [""; 0]);
    }
}
