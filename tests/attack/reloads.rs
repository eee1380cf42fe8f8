//! More reloads than a pool can complete, under load.

use std::{
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    attack::{
        BOUND, ECHO,
        fuzz::held,
        load::Load,
        outcome::CgiProcess,
        report::Counts,
        target::{Options, Target, pause},
        times, turn_in_short_form,
    },
    each_mode::Mode,
    support::{artefacts, assertions::codes, install_dir::InstallDir, web_servers::eventually},
};

/// The number of reloads in two seconds.
const RELOADS: usize = 200;

/// Between two of them.
const PACE: Duration = Duration::from_millis(10);

/// Asks for a reload at each pace, by `request`.
fn reload(row: &str, what: &str, mut request: impl FnMut(&Target), finish: impl Fn(&Target)) {
    let _turn = turn_in_short_form();
    let dir = Arc::new(InstallDir::new());
    let args = ["--workers", "2", "--name", "app"];
    let options = Options { args: &args, ..Options::default() };
    let target = Arc::new(Target::start(&dir, "reloads", Mode::Preloaded(2), ECHO, options));
    let supervisor = target.leader().unwrap();
    let before = held(supervisor);
    let load = Load::start(&target, 6);
    load.await_answers(&target, 50).unwrap();
    let rounds = times(1, 10);
    for _ in 0..rounds {
        let began = Instant::now();
        for number in 0..RELOADS {
            request(&target);
            pause((PACE * u32::try_from(number + 1).unwrap()).saturating_sub(began.elapsed()));
        }
        finish(&target);
        load.await_answers(&target, 50).unwrap();
    }
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    eventually("old templates and workers have ended", || {
        target.templates().len() == 1 && target.workers().len() == 2
    });
    assert_eq!(target.leader(), Some(supervisor));
    let after = held(supervisor);
    assert!(after.0 <= before.0, "descriptors: {before:?}, then {after:?}");
    assert!(after.1 <= before.1 + 4096, "memory: {before:?}, then {after:?}");
    let counts = Counts {
        tried: format!("{rounds} times {RELOADS} {what} in 2 s"),
        answered: tally.answered.load(Ordering::Relaxed),
        lost: tally.lost() + tally.refused.load(Ordering::Relaxed),
        how: format!("{:?}", tally.how),
    };
    assert_eq!(counts.lost, 0, "{counts:?}\n{}", target.log());
    let log = target.stop().unwrap();
    assert_eq!(codes(&log), [""; 0], "{log}");
    counts.report(row);
}

#[test]
fn two_hundred_sighups_in_two_seconds_fail_no_request() {
    let hang_up = |target: &Target| {
        kill_process(Pid::from_raw(target.leader().unwrap()).unwrap(), Signal::HUP).unwrap();
    };
    reload("Reloads by SIGHUP", "SIGHUP", hang_up, |target| {
        eventually("the last reload is done", || {
            target.log().contains("W0711") && target.templates().len() == 1
        });
    });
}

#[test]
fn two_hundred_reloads_by_command_in_two_seconds_fail_no_request() {
    let asked: std::cell::RefCell<Vec<CgiProcess>> = std::cell::RefCell::default();
    let request = |target: &Target| {
        let mut command = Command::new(artefacts::gateway());
        command.args(["reload", "app"]).env_clear().env("WSGATE_RUNTIME_DIR", target.path("run"));
        command.stderr(Stdio::inherit());
        asked.borrow_mut().push(CgiProcess::start(&mut command, BOUND * 2).unwrap());
    };
    reload("Reloads by `wsgate reload`", "`wsgate reload`", request, |target| {
        for program in asked.borrow_mut().drain(..) {
            // The command prints no response, so that this is none; it has succeeded.
            let outcome = program.outcome();
            assert!(
                matches!(outcome, crate::attack::outcome::Outcome::Invalid(_)),
                "{outcome:?}\n{}",
                target.log()
            );
        }
    });
}
