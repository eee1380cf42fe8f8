//! Applications that attack their process, in every mode.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    attack::{
        BOUND, is_long,
        outcome::{CgiProcess, Outcome},
        report::Counts,
        target::{Options, Target},
    },
    each_mode::{MODES, Mode},
    support::{assertions::codes, fastcgi_client::FastcgiRequest, install_dir::InstallDir},
};

const CODE: &str = include_str!("hostile.py");

/// Seconds that a request may take. An application that cannot be interrupted has two more, and
/// then some to be seen.
const TIMEOUT: &str = "2";

/// An application of `hostile.py`.
struct Attack {
    name: &'static str,
    /// The cost to others that the attack may have.
    costs: Option<&'static str>,
}

impl Attack {
    fn ends_the_pool(&self) -> bool {
        matches!(self.costs, Some("ends the pool" | "cuts the pool off"))
    }

    /// Returns whether the attack makes no sense in this mode.
    fn is_pointless(&self, mode: Mode) -> bool {
        match self.name {
            // Its own parent is stopped as by SIGSTOP, and what it leads to is a matter of the web
            // server.
            "traces_its_parent" => matches!(mode, Mode::Cold | Mode::Lone),
            // The socket belongs to the process that starts the worker, which also ends one that is
            // stopped or has become another program. One whose parent has exited is what spawn-fcgi
            // leaves behind.
            "removes_the_socket"
            | "shuts_every_socket_down"
            | "stops_itself"
            | "becomes_another_program_that_stays"
            | "lets_itself_be_traced"
            | "kills_its_parent"
            | "sends_sigterm_to_its_parent" => mode == Mode::Lone,
            _ => false,
        }
    }
}

fn attacks() -> Vec<Attack> {
    let mut costs = None;
    let mut attacks = Vec::new();
    for line in CODE.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            costs = Some(comment);
        } else if let Some(name) = line
            .strip_prefix("def ")
            .and_then(|rest| rest.strip_suffix("(environ, start_response):"))
        {
            if name != "application" {
                attacks.push(Attack { name, costs });
            }
            costs = None;
        } else if !line.is_empty() {
            costs = None;
        }
    }
    attacks
}

/// The cost to other requests.
#[derive(Default)]
struct Cost {
    answered: u64,
    lost: u64,
}

/// Lets the application attack, and says what is wrong afterwards.
fn run(dir: &Arc<InstallDir>, mode: Mode, attack: &Attack) -> Result<Cost, String> {
    let args: &[&str] = match mode {
        // A pool whose directory was removed cannot be asked to stop.
        Mode::Warm | Mode::Resident => &["--timeout", TIMEOUT, "--warm-idle", "10"],
        _ => &["--timeout", TIMEOUT],
    };
    let options = Options { args, ..Options::default() };
    // Paths of sockets may not be long.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    let target = Target::start(dir, &name, mode, CODE, options);
    let mut cost = Cost { answered: 1, lost: 0 };
    cost.lost += target.good("/good-before")?;
    let began = Instant::now();
    let outcome = match attack.costs {
        Some("leaves") => leave(&target, attack.name),
        _ => target.ask(&format!("/{}", attack.name), "body", BOUND),
    };
    let took = began.elapsed();
    match &outcome {
        // The attack writes to the descriptor of the response.
        Outcome::Invalid(_) if attack.costs == Some("garbles its own response") => {}
        Outcome::Invalid(_) | Outcome::Hung(_) => {
            return Err(format!("{outcome:?}\n{}", target.log()));
        }
        _ if took > Duration::from_secs(10) => {
            return Err(format!("took {took:?}\n{}", target.log()));
        }
        _ => {}
    }
    if attack.costs == Some("cuts the pool off") && !target.is_cgi() {
        // The service manager stops the pool and starts it again.
        target.terminate();
    }
    for number in 0..3 {
        cost.lost += target.good(&format!("/good-{number}")).map_err(|wrong| {
            let text = format!("{outcome:?}").chars().take(300).collect::<String>();
            format!("{wrong}, after {text}\n{}", target.log())
        })?;
        cost.answered += 1;
    }
    let ends = target.ends();
    if !ends.is_empty() && !attack.ends_the_pool() && mode != Mode::Lone {
        return Err(format!("the supervisor has ended: {ends:?}\n{}", target.log()));
    }
    let log = target.stop().map_err(|wrong| format!("{wrong}\n{}", target.log()))?;
    let codes = codes(&log);
    if codes.contains(&"W0999") {
        return Err(format!("W0999\n{log}"));
    }
    let fails = !matches!(&outcome, Outcome::Whole(response) if response.status < 400);
    let killed = !ends.is_empty() || attack.costs.is_some();
    if fails && codes.is_empty() && !killed {
        return Err(format!("no message for {outcome:?}\n{log}"));
    }
    Ok(cost)
}

/// A client that leaves after the first bytes.
fn leave(target: &Target, name: &str) -> Outcome {
    let path = format!("/{name}");
    let until = Instant::now() + BOUND;
    if !target.is_cgi() {
        let mut connection = target.connect();
        let _ = connection.try_send(&FastcgiRequest::post(&path, "body").bytes());
        let first = connection.try_next();
        return Outcome::Cut(format!(
            "left after {}",
            if first.is_ok() { "a record" } else { "an error" }
        ));
    }
    let Ok(mut program) = CgiProcess::start(&mut target.request(&path, 4), BOUND) else {
        return Outcome::Invalid("not started".to_owned());
    };
    program.give(b"body");
    program.leave(until)
}

fn in_modes(row: &str, modes: &[Mode]) {
    let dir = Arc::new(InstallDir::new());
    let attacks = attacks();
    assert!(attacks.len() >= 47, "{}", attacks.len());
    let only = std::env::var("WSGATE_TEST_ATTACK_ONLY").ok();
    let (mut total, mut tried, mut wrong) = (Cost::default(), 0, Vec::new());
    for (number, attack) in attacks.iter().enumerate() {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|name| name == attack.name)) {
            continue;
        }
        for mode in modes.iter().filter(|mode| !attack.is_pointless(**mode)) {
            // The short form runs each application in one mode.
            if !is_long() && only.is_none() && MODES[number % MODES.len()] != *mode {
                continue;
            }
            tried += 1;
            match catch_unwind(AssertUnwindSafe(|| run(&dir, *mode, attack))) {
                Ok(Ok(cost)) => {
                    total.answered += cost.answered;
                    total.lost += cost.lost;
                }
                Ok(Err(error)) => wrong.push(format!("=== {} {mode:?}: {error}", attack.name)),
                Err(panic) => wrong.push(format!(
                    "=== {} {mode:?}: {:?}",
                    attack.name,
                    panic.downcast_ref::<String>()
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    Counts {
        tried: format!("{tried} pairs of application and mode"),
        answered: total.answered,
        lost: total.lost,
        how: "requests that met a process which was just ending, or took too long".to_owned(),
    }
    .report(row);
}

#[test]
fn hostile_applications_harm_no_cold_request() {
    in_modes("Hostile applications, cold", &[Mode::Cold]);
}

#[test]
fn hostile_applications_harm_no_warm_request() {
    in_modes("Hostile applications, warm", &[Mode::Warm]);
}

#[test]
fn hostile_applications_harm_no_resident_request() {
    in_modes("Hostile applications, resident", &[Mode::Resident]);
}

#[test]
fn hostile_applications_harm_no_request_to_a_pool() {
    in_modes("Hostile applications, pool", &[Mode::Preloaded(1), Mode::Preloaded(3)]);
}

#[test]
fn hostile_applications_harm_no_request_to_a_pool_without_a_preloaded_application() {
    in_modes(
        "Hostile applications, pool with `--preload no`",
        &[Mode::NotPreloaded(1), Mode::NotPreloaded(3)],
    );
}

#[test]
fn hostile_applications_harm_no_request_to_a_lone_worker() {
    in_modes("Hostile applications, lone worker", &[Mode::Lone]);
}
