//! Signals to each kind of process, under load.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    attack::{
        BOUND, ECHO,
        load::Load,
        report::Counts,
        target::{Options, Target, lock, pause},
        times, turn_in_short_form,
    },
    each_mode::Mode,
    support::{
        assertions::codes, install_dir::InstallDir, processes::all_children, random::Random,
    },
};

/// All that have a name.
const SIGNALS: [Signal; 31] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::ILL,
    Signal::TRAP,
    Signal::ABORT,
    Signal::BUS,
    Signal::FPE,
    Signal::KILL,
    Signal::USR1,
    Signal::SEGV,
    Signal::USR2,
    Signal::PIPE,
    Signal::ALARM,
    Signal::TERM,
    Signal::STKFLT,
    Signal::CHILD,
    Signal::CONT,
    Signal::STOP,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::URG,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::VTALARM,
    Signal::PROF,
    Signal::WINCH,
    Signal::IO,
    Signal::POWER,
    Signal::SYS,
];

/// Signals that stop a process; it goes on soon afterwards.
const STOPS: [Signal; 4] = [Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// Clients that ask meanwhile.
const CLIENTS: usize = 4;

/// Requests that may be lost when a process ends, at most.
const AT_ONE_END: u64 = 4 * CLIENTS as u64;

/// Sends signals to processes that `victims` chooses.
fn attack(row: &str, mode: Mode, args: &[&str], victims: impl Fn(&Target) -> Vec<i32>) {
    let _turn = turn_in_short_form();
    let mut random = Random::new();
    let dir = Arc::new(InstallDir::new());
    let options = Options { args, ..Options::default() };
    let target = Arc::new(Target::start(&dir, "signals", mode, ECHO, options));
    let load = Load::start(&target, CLIENTS);
    let count = times(12, 600);
    for number in 0..count {
        let began = Instant::now();
        let mut found = victims(&target);
        while found.is_empty() {
            target.revive();
            assert!(
                began.elapsed() < BOUND * 2,
                "signal {number}: there is no such process\n{}",
                target.log()
            );
            pause(Duration::from_millis(2));
            found = victims(&target);
        }
        let victim = Pid::from_raw(found[random.below(found.len())]).unwrap();
        let signal = SIGNALS[random.below(SIGNALS.len())];
        // The process may have exited by itself.
        let _ = kill_process(victim, signal);
        if STOPS.contains(&signal) {
            pause(Duration::from_millis(random.below(30) as u64));
            let _ = kill_process(victim, Signal::CONT);
        }
        if let Err(wrong) = load.await_answers(&target, 2) {
            panic!("signal {number}, {signal:?} to {victim:?}: {wrong}\n{}", tail(&target.log()));
        }
    }
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", tail(&target.log())));
    target.await_good("/good-after");
    let ends = target.ends().len() as u64;
    let log = target.stop().unwrap_or_else(|wrong| panic!("{wrong}\n{}", tail(&target.log())));
    let codes = codes(&log);
    assert!(!codes.contains(&"W0999"), "{}", tail(&log));
    let (lost, how) = (tally.lost(), lock(&tally.how).clone());
    // A process that is killed takes what its clients have begun with it. Of a gateway, a
    // supervisor or a lone worker that is killed its parent knows, and nobody else can log it.
    // While the processes of a pool end, a client may lose more than one request to them.
    let seen_by_parent = if target.is_cgi() { lost } else { ends };
    let accounted = if seen_by_parent == lost {
        lost
    } else {
        (seen_by_parent + codes.len() as u64) * AT_ONE_END
    };
    assert!(
        lost <= accounted,
        "{lost} lost, {} messages, {ends} ends: {how:?}\n{}",
        codes.len(),
        tail(&log)
    );
    Counts {
        tried: format!("{count} signals"),
        answered: tally.answered.load(Ordering::Relaxed),
        lost,
        how: "requests of the process that the signal ended, or refused (503) until another served"
            .to_owned(),
    }
    .report(row);
}

/// The end of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[test]
fn signals_to_the_gateway_cost_its_request_only() {
    attack("Signals to the CGI gateway", Mode::Cold, &[], Target::gateways);
}

#[test]
fn signals_to_a_cold_python_cost_its_request_only() {
    attack("Signals to a cold python", Mode::Cold, &[], |target| {
        target.gateways().into_iter().flat_map(all_children).collect()
    });
}

#[test]
fn signals_to_a_warm_supervisor_cost_no_other_request() {
    attack("Signals to a warm supervisor", Mode::Warm, &[], Target::supervisors);
}

#[test]
fn signals_to_a_warm_template_cost_no_other_request() {
    // A template that dies while it loads keeps requests cold for 30 s, which takes too long here.
    attack("Signals to a warm template", Mode::Warm, &[], |target| {
        target
            .templates()
            .into_iter()
            .filter(|&template| !all_children(template).is_empty())
            .collect()
    });
}

#[test]
fn signals_to_a_warm_process_cost_its_request_only() {
    attack("Signals to a warm process", Mode::Warm, &[], Target::workers);
}

#[test]
fn signals_to_a_resident_process_cost_its_request_only() {
    attack("Signals to a resident process", Mode::Resident, &[], Target::workers);
}

#[test]
fn signals_to_a_supervisor_leave_nothing_behind() {
    attack(
        "Signals to a pool's supervisor",
        Mode::Preloaded(2),
        &["--workers", "2"],
        Target::supervisors,
    );
}

#[test]
fn signals_to_a_template_cost_the_requests_of_its_workers_only() {
    attack(
        "Signals to a pool's template",
        Mode::Preloaded(2),
        &["--workers", "2"],
        Target::templates,
    );
}

#[test]
fn signals_to_workers_cost_their_requests_only() {
    attack("Signals to a pool's workers", Mode::Preloaded(2), &["--workers", "2"], Target::workers);
}

#[test]
fn signals_to_a_lone_worker_cost_its_requests_only() {
    attack("Signals to a lone worker", Mode::Lone, &[], Target::workers);
}
