//! Attacks: what clients, applications, signals and limits can do to wsgate, in great numbers, and
//! what it costs the others.
//!
//! `make test` runs a short form of each attack, `make test-attack` the long one (the variable
//! `WSGATE_TEST_ATTACK` is `long`), which writes its counts as a row of `docs/reliability.md`.
//! Seeds are printed; `WSGATE_TEST_SEED` brings one back.

mod control_group;
mod fuzz;
mod hostile;
mod limits;
mod load;
mod operations;
mod outcome;
mod reloads;
mod report;
mod signals;
mod slow;
mod target;

use std::{sync::MutexGuard, time::Duration};

use crate::pool::load::turn;

/// The limit for a response, and for replacing lost processes: far more than an idle machine takes.
const BOUND: Duration = Duration::from_secs(20);

/// Returns whether the long form runs (`make test-attack`).
fn is_long() -> bool {
    std::env::var_os("WSGATE_TEST_ATTACK").is_some_and(|form| form == "long")
}

/// How often something is done: in the short form, and in the long one.
fn times(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}

/// Beside other tests, those that keep the whole machine busy run one at a time. In the long form
/// there are no others, and nothing depends on how fast it goes.
fn turn_in_short_form() -> Option<MutexGuard<'static, ()>> {
    (!is_long()).then(turn)
}

/// Answers with its path and its body, and tells its process.
const ECHO: &str = "
    import os
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [environ['PATH_INFO'].encode('latin-1') + b'|' + body]
    ";
