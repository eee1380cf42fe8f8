//! `wsgate status`, `wsgate reload`, `wsgate stop`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use clap::Args;
use link::entry::{Code, Entry};

use super::control::{self, PoolStatus, Question};
use crate::exit::{Complaint, Exit};

/// Which pools are asked for their status.
#[derive(Args, Clone, Debug)]
pub(crate) struct Status {
    /// The pool; without it all of this user's
    #[arg(value_name = "POOL")]
    pool: Option<String>,

    /// One JSON object a line for each pool
    #[arg(long)]
    json: bool,
}

/// Which pool is told something.
#[derive(Args, Clone, Debug)]
pub(crate) struct Told {
    /// The pool
    #[arg(value_name = "POOL")]
    pool: String,
}

/// Prints how pools are.
///
/// # Errors
/// If the pool that is named does not run or does not answer.
pub(crate) fn status(words: &Status) -> Result<Exit, Complaint> {
    let names = match &words.pool {
        Some(name) => vec![name.clone()],
        None => control::names().map_err(unknown)?,
    };
    let mut text = String::new();
    for name in names {
        let answer = control::ask(&name, Question::Status).map_err(unknown)?;
        if words.json {
            let _ = writeln!(text, "{}", answer.trim_end());
        } else {
            let status = serde_json::from_str(&answer).map_err(|error| unknown(error.into()))?;
            text.push_str(&table(&status));
        }
    }
    // If standard output is closed there is nobody to tell.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(Exit::Done)
}

/// Makes a pool change to new code, and waits until it has or cannot.
///
/// # Errors
/// If the pool does not run, or the new code cannot be loaded.
pub(crate) fn reload(words: &Told) -> Result<Exit, Complaint> {
    match control::ask(&words.pool, Question::Reload).map_err(unknown)?.as_str() {
        "done\n" => Ok(Exit::Done),
        _ => Err(Complaint::failed(
            Entry::error(Code::ReloadFailed, "the new code could not be loaded")
                .hint("the pool goes on with the code it has; its log says why"),
        )),
    }
}

/// Ends a pool, and waits until it has ended.
///
/// # Errors
/// If the pool does not run.
pub(crate) fn stop(words: &Told) -> Result<Exit, Complaint> {
    control::ask(&words.pool, Question::Stop).map_err(unknown)?;
    Ok(Exit::Done)
}

fn unknown(error: anyhow::Error) -> Complaint {
    Complaint::failed(
        Entry::error(Code::NoPool, format!("{error:#}")).hint("`wsgate status` lists the pools that this user runs"),
    )
}

/// What is to be said of the pool as a whole.
fn state(status: &PoolStatus) -> &'static str {
    match status {
        PoolStatus { ending: true, .. } => ", ending",
        PoolStatus { reloading: true, .. } => ", reloading",
        PoolStatus { loading: true, .. } => ", loading",
        PoolStatus { resting: true, .. } => ", no process of Python: the next connection starts one",
        _ => "",
    }
}

/// The status for people.
fn table(status: &PoolStatus) -> String {
    let busy = status.workers.iter().filter(|worker| worker.busy).count();
    let workers = if status.min == status.max {
        format!("{} workers", status.max)
    } else {
        format!("{} to {} workers", status.min, status.max)
    };
    let abandoned = match status.abandoned {
        0 => String::new(),
        number => format!(", {number} requests abandoned by their clients"),
    };
    let mut text = format!(
        "{} {} pid {} at {}: {workers}, {busy} of {} busy, preload {}{abandoned}{}\n",
        status.name,
        status.app,
        status.pid,
        status.listen.join(", "),
        status.workers.len(),
        status.preload,
        state(status)
    );
    if status.workers.is_empty() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {:>8} {:<5} {:>10} {:>9} request", "pid", "state", "for", "served");
    for worker in &status.workers {
        let state = match (worker.busy, worker.leaving) {
            (true, _) => "busy",
            (false, true) => "ends",
            (false, false) => "idle",
        };
        let seconds = format!("{}.{} s", worker.milliseconds / 1000, worker.milliseconds % 1000 / 100);
        let _ = writeln!(text, "  {:>8} {state:<5} {seconds:>10} {:>9} {}", worker.pid, worker.served, worker.request);
    }
    text
}
