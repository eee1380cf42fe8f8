//! `wsgate status`, `wsgate reload`, `wsgate stop`.

use std::time::{SystemTime, UNIX_EPOCH};

use control::{all_pools, client, pool_error::PoolError, protocol::ReloadResult};
use diagnostics::{
    error_log,
    escape::{self, Escaped},
    message::{Code, LogMessage, Subject},
};
use rustix::{stdio::stdout, termios::tcgetwinsize};

use crate::{
    exit::{
        CommandError, Exit, {self},
    },
    pool::{
        args::{PoolName, ReloadArgs, StatusArgs},
        status_text,
    },
    system::runtime_directory::RuntimeDirectoryError,
};

/// Prints the status of running pools.
///
/// # Errors
/// If the named pool is not running, or a pool does not respond.
pub(crate) fn status(args: &StatusArgs) -> Result<Exit, CommandError> {
    let (statuses, failures) = match &args.pool {
        Some(name) => (client::named(name).map_err(unknown)?, Vec::new()),
        None => all_pools::all().map_err(unknown)?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    // The whole lines, if standard output is no terminal.
    let width = tcgetwinsize(stdout()).map_or(0, |size| usize::from(size.ws_col));
    let width = if width > 0 { width } else { usize::MAX };
    let mut text = String::new();
    for status in &statuses {
        if args.json {
            // The status is serialized again, because another user's pool may send anything.
            let status = serde_json::to_string(status).map_err(|error| unknown(error.into()))?;
            text.push_str(&escape::json(format!("{status}\n")));
        } else {
            text.push_str(&status_text::of_pool(status, now, width));
        }
    }
    if text.is_empty() && failures.is_empty() {
        let message = LogMessage::new(Code::NoPools, client::no_pools_message())
            .hint(client::OTHER_POOLS_HINT);
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
                    "the pool goes on with its own build; its error log says more. Fix the cause \
                     and try again, or restart the pool",
                )
            } else {
                let hint = if reason.is_empty() {
                    "the pool goes on as before; look for the reason in its error log"
                } else {
                    "the pool goes on as before; fix this cause, about which its error log says \
                     more, and reload again"
                };
                LogMessage::new(Code::ReloadFailed, "the reload failed").hint(hint)
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
    if let Some(unusable) = error.downcast_ref::<RuntimeDirectoryError>() {
        return CommandError::settings(message.hint(unusable.hint()));
    }
    let hint = error.downcast_ref::<PoolError>().map(PoolError::hint);
    CommandError::failed(message.hint(hint.unwrap_or("`wsgate status` lists the pools")))
}
