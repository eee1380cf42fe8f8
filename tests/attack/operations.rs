//! What administrators do to a pool, all of it at random, under load.

use std::{
    fs,
    process::{Command, Output},
    sync::{Arc, atomic::Ordering},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    attack::{
        ECHO,
        load::Load,
        report::Counts,
        target::{Options, Target, lock},
        times, turn_in_short_form,
    },
    each_mode::Mode,
    support::{
        artefacts, assertions::codes, install_dir::InstallDir, random::Random,
        web_servers::eventually,
    },
};

/// Workers of the pool, each with one thread.
const WORKERS: usize = 3;

/// Requests that are answered between two operations at least.
const BETWEEN: u64 = 100;

/// Something that an administrator does.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Reload,
    HangUp,
    Upgrade,
    Rotate,
    BreakCode,
    BreakConfiguration,
    KillWorker,
}

const OPERATIONS: [Operation; 7] = [
    Operation::Reload,
    Operation::HangUp,
    Operation::Upgrade,
    Operation::Rotate,
    Operation::BreakCode,
    Operation::BreakConfiguration,
    Operation::KillWorker,
];

impl Operation {
    /// Does it. Waits where the command waits.
    fn carry_out(self, target: &Target, number: usize) {
        let configuration = target.path("pool.toml");
        match self {
            Self::Reload => assert_reload(target, &["reload", "app"], true),
            Self::Upgrade => assert_reload(target, &["reload", "--binary", "app"], true),
            Self::HangUp => signal(target.leader(), Signal::HUP),
            Self::Rotate => {
                fs::rename(target.path("access.log"), target.path(&format!("access.{number}")))
                    .unwrap();
                signal(target.leader(), Signal::USR1);
                eventually("the log is there again", || target.path("access.log").exists());
            }
            Self::BreakCode => {
                let good = fs::read(target.path("app.wsgi")).unwrap();
                fs::write(target.path("app.wsgi"), "#!wsgate\ndef application(:\n").unwrap();
                assert_reload(target, &["reload", "app"], false);
                fs::write(target.path("app.wsgi"), good).unwrap();
            }
            Self::BreakConfiguration => {
                let good = fs::read(&configuration).unwrap();
                fs::write(&configuration, "timeout = \"soon\"\n").unwrap();
                assert_reload(target, &["reload", "app"], false);
                fs::write(&configuration, good).unwrap();
            }
            Self::KillWorker => signal(target.workers().first().copied(), Signal::KILL),
        }
    }
}

fn signal(pid: Option<i32>, signal: Signal) {
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // A worker may have exited meanwhile.
        let _ = kill_process(pid, signal);
    }
}

fn assert_reload(target: &Target, args: &[&str], succeeds: bool) {
    let Output { status, stderr, .. } = Command::new(artefacts::gateway())
        .args(args)
        .env_clear()
        .env("WSGATE_RUNTIME_DIR", target.path("run"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.success(), succeeds, "{args:?}: {stderr}\n{}", target.log());
}

#[test]
fn operations_of_every_kind_lose_only_requests_of_killed_workers() {
    let _turn = turn_in_short_form();
    let mut random = Random::new();
    let dir = Arc::new(InstallDir::new());
    let directory = dir.path("operations");
    fs::create_dir_all(&directory).unwrap();
    let configuration = directory.join("pool.toml");
    fs::write(&configuration, "timeout = 20\n").unwrap();
    let access_log = directory.join("access.log");
    let args = [
        "--config",
        configuration.to_str().unwrap(),
        "--access-log",
        access_log.to_str().unwrap(),
        "--workers",
        "3",
        "--name",
        "app",
    ];
    let options = Options { args: &args, ..Options::default() };
    let target = Arc::new(Target::start(&dir, "operations", Mode::Preloaded(1), ECHO, options));
    let supervisor = target.leader();
    let load = Load::start(&target, 6);
    let (requests, mut kills, mut done) = (times(0, 100_000) as u64, 0, 0);
    while done < times(2, 30) * OPERATIONS.len() || load.answered() < requests {
        // Each kind once, and then any.
        let any = random.below(OPERATIONS.len());
        let operation = *OPERATIONS.get(done).unwrap_or(&OPERATIONS[any]);
        operation.carry_out(&target, done);
        kills += u64::from(matches!(operation, Operation::KillWorker));
        done += 1;
        load.await_answers(&target, BETWEEN)
            .unwrap_or_else(|wrong| panic!("{operation:?}: {wrong}\n{}", target.log()));
    }
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    assert_eq!(target.leader(), supervisor);
    eventually("all workers of the last code serve", || target.workers().len() == WORKERS);
    let counts = Counts {
        tried: format!(
            "{done} reloads, upgrades, rotations, errors in code and configuration, and workers \
             killed ({kills})"
        ),
        answered: tally.answered.load(Ordering::Relaxed),
        lost: tally.lost() + tally.refused.load(Ordering::Relaxed),
        how: "requests of workers that were killed".to_owned(),
    };
    assert!(counts.lost <= kills, "{counts:?} {:?}\n{}", lock(&tally.how), target.log());
    let log = target.stop().unwrap();
    let expected = ["W0701", "W0301", "W0105", "W0715"];
    for code in codes(&log) {
        assert!(expected.contains(&code), "{code}\n{log}");
    }
    counts.report("Operations of every kind");
}
