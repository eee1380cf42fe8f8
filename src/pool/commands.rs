//! `wsgate status`, `wsgate reload`, `wsgate stop`.

use std::fmt::Write as _;

use control::{
    all_pools, client,
    pool_status::{PoolMode, PoolStatus, WorkerStatus},
    protocol::ReloadResult,
};
use diagnostics::{
    error_log,
    escape::{self, Escaped},
    message::{Code, LogMessage, Subject},
};

use crate::{
    exit::{
        CommandError, Exit, {self},
    },
    pool::args::{PoolName, ReloadArgs, StatusArgs},
    system::runtime_directory::RuntimeDirectoryError,
};

/// Hint about pools that were not found.
const OTHER_POOLS_HINT: &str = "run `sudo -u USER wsgate status` for another user's pools; set \
    WSGATE_RUNTIME_DIR for pools in another runtime directory";

/// Prints the status of running pools.
///
/// # Errors
/// If the named pool is not running, or a pool does not respond.
pub(crate) fn status(args: &StatusArgs) -> Result<Exit, CommandError> {
    let (statuses, failures) = match &args.pool {
        Some(name) => (client::named(name).map_err(unknown)?, Vec::new()),
        None => all_pools::all().map_err(unknown)?,
    };
    let mut text = String::new();
    for status in &statuses {
        if args.json {
            // The status is serialized again, because another user's pool may send anything.
            let status = serde_json::to_string(status).map_err(|error| unknown(error.into()))?;
            text.push_str(&escape::json(format!("{status}\n")));
        } else {
            text.push_str(&table(status));
        }
    }
    if text.is_empty() && failures.is_empty() {
        let message =
            LogMessage::new(Code::NoPools, client::no_pools_message()).hint(OTHER_POOLS_HINT);
        error_log::write(
            message.for_client().as_bytes(),
            Subject::new(&Subject::no_request("command")),
        );
    }
    let printed = exit::print(text.as_bytes());
    let mut errors = failures.into_iter().map(unknown).chain(printed.err());
    let Some(last) = errors.next_back() else { return Ok(Exit::Success) };
    for error in errors {
        error_log::write(
            error.message.for_client().as_bytes(),
            Subject::new(&Subject::no_request("command")),
        );
    }
    Err(last)
}

/// Reloads a pool, and waits for the result.
///
/// # Errors
/// If the pool is not running, or the new code cannot be loaded.
pub(crate) fn reload(args: &ReloadArgs) -> Result<Exit, CommandError> {
    match client::reload(&args.pool.name, args.binary).map_err(unknown)? {
        Some(ReloadResult::Done(note)) => {
            if !note.is_empty() {
                let message = LogMessage::new(Code::NeedsRestart, note);
                error_log::write(
                    message.for_client().as_bytes(),
                    Subject::new(&Subject::no_request("command")),
                );
            }
            Ok(Exit::Success)
        }
        None => Err(CommandError::failed(
            LogMessage::new(
                Code::NoPool,
                "the pool closed the connection without the result of the reload",
            )
            .hint(
                "the pool has ended, or too many commands wait at once, or the pool is of a build \
                 without this command; look for the result in its error log",
            ),
        )),
        Some(ReloadResult::Failed(reason)) => {
            let message = if args.binary {
                LogMessage::new(Code::UpgradeFailed, "the pool could not be upgraded").hint(
                    "the pool keeps serving with its own build; its error log says more. Fix the \
                     cause and try again, or restart the pool",
                )
            } else {
                LogMessage::new(Code::ReloadFailed, "the new code could not be loaded").hint(
                    "the pool keeps serving the old code; look for the reason in its error log",
                )
            };
            Err(CommandError::failed(if reason.is_empty() {
                message
            } else {
                message.detail(format!("{}\n", Escaped(&reason)))
            }))
        }
    }
}

/// Stops a pool, and waits for its exit.
///
/// # Errors
/// If the pool is not running.
pub(crate) fn stop(pool: &PoolName) -> Result<Exit, CommandError> {
    client::stop(&pool.name).map_err(unknown)?;
    Ok(Exit::Success)
}

/// The error about a pool that was not found or does not respond, or about the directories in which
/// pools are searched.
pub(super) fn unknown(error: anyhow::Error) -> CommandError {
    let message = LogMessage::new(Code::NoPool, format!("{error:#}"));
    match error.downcast_ref::<RuntimeDirectoryError>() {
        Some(unusable) => CommandError::settings(message.hint(unusable.hint())),
        None => CommandError::failed(
            message.hint(format!("`wsgate status` lists this user's pools; {OTHER_POOLS_HINT}")),
        ),
    }
}

/// Suffix of the first line: the state of the pool.
fn state(status: &PoolStatus) -> &'static str {
    match status {
        PoolStatus { stopping: true, .. } => ", stopping",
        PoolStatus { upgrading: true, .. } => ", upgrading",
        PoolStatus { reloading: true, .. } => ", reloading",
        PoolStatus { loading: true, .. } => ", loading",
        PoolStatus { resting: true, .. } => ", no Python process; the next connection starts one",
        _ => "",
    }
}

/// Summary of the workers.
fn summary(status: &PoolStatus) -> String {
    let busy = status.workers.iter().filter(|worker| worker.busy).count();
    let idle = status.workers.iter().filter(|worker| !worker.busy && !worker.leaving).count();
    let mode = match status.mode {
        PoolMode::Fastcgi if status.min == status.max => {
            return format!("{} workers, {busy} of {} busy", status.max, status.workers.len());
        }
        PoolMode::Fastcgi => {
            let (min, max) = (status.min, status.max);
            return format!("{min} to {max} workers, {busy} of {} busy", status.workers.len());
        }
        PoolMode::Warm => "warm",
        PoolMode::Resident => "resident",
    };
    let (count, age) = (status.requests, age(status.age));
    let requests = if count == 1 { "request" } else { "requests" };
    format!("{mode}, {busy} busy, {idle} idle, {} at most, {count} {requests} in {age}", status.max)
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A line with the totals of the pool, and its user.
fn totals(status: &PoolStatus) -> String {
    let counters = &status.counters;
    let replaced = &counters.replaced;
    let queued: u64 = status.queued
        + status
            .listeners
            .iter()
            .filter_map(|listener| listener.accept_queue)
            .map(u64::from)
            .sum::<u64>();
    let crashes: Vec<String> = counters
        .crashed
        .iter()
        .map(|(cause, count)| format!("{count} crashed ({})", Escaped(cause)))
        .collect();
    let counts = [
        (status.requests, "requests"),
        (status.responses.client_errors, "4xx"),
        (status.responses.server_errors, "5xx"),
        (status.peak_busy, "busy at most"),
        (status.max_reached, "times all busy"),
        (queued, "waiting"),
        (counters.slow, "slow"),
        (counters.timed_out, "timed out"),
        (counters.refused, "refused"),
        (
            replaced.max_requests + replaced.max_age + replaced.max_rss,
            "workers replaced at a limit",
        ),
    ];
    let shown = counts.into_iter().filter(|(count, _)| *count > 0);
    let shown = shown.map(|(count, what)| format!("{count} {what}")).chain(crashes);
    let parts: Vec<String> = [format!("up {}", age(status.age))].into_iter().chain(shown).collect();
    format!("  user {}, {}\n", Escaped(&status.user), parts.join(", "))
}

/// The status as text. Escapes everything that another user's pool could use against a terminal.
fn table(status: &PoolStatus) -> String {
    let aborted = match status.aborted {
        0 => String::new(),
        number => format!(", {number} requests aborted by their clients"),
    };
    let addresses: Vec<&str> =
        status.listeners.iter().map(|listener| listener.address.as_str()).collect();
    let mut text = format!(
        "{} {} pid {} at {}: {}, preload {}{aborted}{}\n",
        Escaped(&status.name),
        Escaped(&status.app),
        status.pid,
        Escaped(&addresses.join(", ")),
        summary(status),
        Escaped(&status.preload),
        state(status)
    );
    if let Some(failed) = &status.failed_load {
        let serving = if status.generation == 0 {
            "no code is loaded, and requests get 503"
        } else {
            "the old code goes on serving"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  loading new code failed {} ago; {serving}: {}",
            age(failed.seconds),
            Escaped(&failed.reason)
        );
    }
    if let Some(failed) = &status.failed_upgrade {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  the upgrade {} ago failed; the pool goes on with its own build: {}",
            age(failed.seconds),
            Escaped(&failed.reason)
        );
    }
    text.push_str(&totals(status));
    // An idle process of a warm pool has served no request.
    let is_shown =
        |worker: &&WorkerStatus| status.mode != PoolMode::Warm || worker.busy || worker.leaving;
    let mut shown = status.workers.iter().filter(is_shown).peekable();
    if shown.peek().is_none() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  {:>8} {:<5} {:>10} {:>9} {:>8} request",
        "pid", "state", "for", "requests", "memory"
    );
    for worker in shown {
        let state = match (worker.busy, worker.leaving) {
            (true, _) => "busy",
            (false, true) => "ends",
            (false, false) => "idle",
        };
        let seconds =
            format!("{}.{} s", worker.milliseconds / 1000, worker.milliseconds % 1000 / 100);
        let memory = format!("{} MB", worker.rss >> 20);
        let request = worker.request.as_ref().map_or_else(String::new, ToString::to_string);
        let request = Escaped(&request);
        let _ = writeln!(
            text,
            "  {:>8} {state:<5} {seconds:>10} {:>9} {memory:>8} {request}",
            worker.pid, worker.requests
        );
    }
    text
}
