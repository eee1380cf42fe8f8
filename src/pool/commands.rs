//! `wsgate status`, `wsgate reload`, `wsgate stop`.

use std::{
    fmt::Write as _,
    io::{
        Write as _, {self},
    },
};

use diagnostics::{
    error_log,
    escape::{
        Escaped, {self},
    },
    message::{Code, LogMessage},
};

use crate::{
    exit::{CommandError, Exit},
    pool::{
        args::{PoolName, StatusArgs},
        control::{PoolMode, PoolStatus, Question, WorkerStatus},
        control_client,
    },
};

/// Where else a pool may be.
const ELSEWHERE: &str = "another user's pools are asked as that user (`sudo -u USER wsgate \
    status`), and those that have a directory of their own with WSGATE_RUNTIME_DIR set to it";

/// Prints how pools are.
///
/// # Errors
/// If the pool that is named does not run or does not answer.
pub(crate) fn status(args: &StatusArgs) -> Result<Exit, CommandError> {
    let (statuses, troubles) = match &args.pool {
        Some(name) => (control_client::named(name).map_err(unknown)?, Vec::new()),
        None => control_client::all().map_err(unusable)?,
    };
    let mut text = String::new();
    for status in &statuses {
        if args.json {
            // Written again, since another user's pool may say anything.
            let status = serde_json::to_string(status).map_err(|error| unknown(error.into()))?;
            text.push_str(&escape::json(format!("{status}\n")));
        } else {
            text.push_str(&table(status));
        }
    }
    if text.is_empty() && troubles.is_empty() {
        let entry = LogMessage::notice(Code::NoPool, control_client::no_pools()).hint(ELSEWHERE);
        error_log::write(entry.for_client().as_bytes(), &"wsgate");
    }
    // If standard output is closed there is nobody to tell.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    let mut complaints = troubles.into_iter().map(unknown);
    let Some(last) = complaints.next_back() else { return Ok(Exit::Success) };
    for complaint in complaints {
        error_log::write(complaint.message.for_client().as_bytes(), &"wsgate");
    }
    Err(last)
}

/// Makes a pool change to new code, and waits until it has or cannot.
///
/// # Errors
/// If the pool does not run, or the new code cannot be loaded.
pub(crate) fn reload(pool: &PoolName) -> Result<Exit, CommandError> {
    match control_client::tell(&pool.name, Question::Reload).map_err(unknown)?.as_str() {
        "done\n" => Ok(Exit::Success),
        "" => Err(CommandError::failed(
            LogMessage::error(
                Code::NoPool,
                "the pool has not said whether the new code could be loaded",
            )
            .hint(
                "it has ended, or too many commands wait for that at once; its log says how the \
                 reload went",
            ),
        )),
        _ => Err(CommandError::failed(
            LogMessage::error(Code::ReloadFailed, "the new code could not be loaded")
                .hint("the pool goes on with the code it has; its log says why"),
        )),
    }
}

/// Ends a pool, and waits until it has ended.
///
/// # Errors
/// If the pool does not run.
pub(crate) fn stop(pool: &PoolName) -> Result<Exit, CommandError> {
    control_client::tell(&pool.name, Question::Stop).map_err(unknown)?;
    Ok(Exit::Success)
}

fn unusable(error: anyhow::Error) -> CommandError {
    CommandError::failed(LogMessage::error(Code::NoPool, format!("{error:#}")).hint(
        "a directory that others can enter is not used: `chmod 700` it, or name another in \
         WSGATE_RUNTIME_DIR",
    ))
}

fn unknown(error: anyhow::Error) -> CommandError {
    CommandError::failed(
        LogMessage::error(Code::NoPool, format!("{error:#}"))
            .hint(format!("`wsgate status` lists the pools that this user runs; {ELSEWHERE}")),
    )
}

/// What is to be said of the pool as a whole.
fn state(status: &PoolStatus) -> &'static str {
    match status {
        PoolStatus { ending: true, .. } => ", ending",
        PoolStatus { reloading: true, .. } => ", reloading",
        PoolStatus { loading: true, .. } => ", loading",
        PoolStatus { resting: true, .. } => {
            ", no process of Python: the next connection starts one"
        }
        _ => "",
    }
}

/// What is to be said of the processes.
fn census(status: &PoolStatus) -> String {
    let busy = status.workers.iter().filter(|worker| worker.busy).count();
    let waiting = status.workers.iter().filter(|worker| !worker.busy && !worker.leaving).count();
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
    let (served, age) = (status.served, age(status.seconds));
    format!(
        "{mode}, {busy} serving, {waiting} waiting, {} at most, {served} requests in {age}",
        status.max
    )
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The status for people. Another user's pool may say anything, and root's terminal shows it.
fn table(status: &PoolStatus) -> String {
    let abandoned = match status.abandoned {
        0 => String::new(),
        number => format!(", {number} requests abandoned by their clients"),
    };
    let mut text = format!(
        "{} {} pid {} at {}: {}, preload {}{abandoned}{}\n",
        Escaped(&status.name),
        Escaped(&status.app),
        status.pid,
        Escaped(&status.listen.join(", ")),
        census(status),
        Escaped(&status.preload),
        state(status)
    );
    // Of processes that each serve one request, those that wait have nothing to tell.
    let is_told =
        |worker: &&WorkerStatus| status.mode != PoolMode::Warm || worker.busy || worker.leaving;
    let mut told = status.workers.iter().filter(is_told).peekable();
    if told.peek().is_none() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {:>8} {:<5} {:>10} {:>9} request", "pid", "state", "for", "served");
    for worker in told {
        let state = match (worker.busy, worker.leaving) {
            (true, _) => "busy",
            (false, true) => "ends",
            (false, false) => "idle",
        };
        let seconds =
            format!("{}.{} s", worker.milliseconds / 1000, worker.milliseconds % 1000 / 100);
        let request = Escaped(&worker.request);
        let _ = writeln!(
            text,
            "  {:>8} {state:<5} {seconds:>10} {:>9} {request}",
            worker.pid, worker.served
        );
    }
    text
}
