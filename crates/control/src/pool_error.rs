//! Why a pool cannot be asked, with the next step for that cause.

use std::{error::Error, fmt, fs, path::Path};

use crate::process_state::StopCause;

/// Why a pool cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolError {
    sentence: String,
    hint: String,
}

impl PoolError {
    pub(crate) fn new(sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), hint: hint.into() }
    }

    /// The pool `name`, whose supervisor is process `pid`, does not answer.
    pub fn silent(name: &str, pid: Option<i32>) -> Self {
        let Some(pid) = pid else {
            return Self::new(
                format!("the pool `{name}` does not answer; its accept queue is full"),
                "its supervisor may be stopped by a signal: look for state T in `ps -eo \
                 pid,state,args`, and continue the process with `kill -CONT PID`",
            );
        };
        let supervisor =
            format!("the pool `{name}` does not answer: its supervisor, process {pid},");
        match StopCause::of(pid) {
            Some(StopCause::Signal) => Self::new(
                format!("{supervisor} is stopped by a signal"),
                format!("continue the process: kill -CONT {pid}"),
            ),
            Some(StopCause::Debugger) => Self::new(
                format!("{supervisor} is stopped by a debugger"),
                format!("`grep TracerPid /proc/{pid}/status` names the debugger; let it continue"),
            ),
            None if Path::new("/proc").join(pid.to_string()).exists() => Self::new(
                format!("{supervisor} runs, but sends no complete answer in time"),
                format!("ask again; see with `top -p {pid}` what the process does"),
            ),
            None => Self::new(
                format!("the pool `{name}` has ended: process {pid} has exited"),
                "start the pool again; its error log says why it has ended",
            ),
        }
    }

    /// The supervisor of the pool `name` was killed, and has left its control socket at `path`.
    pub fn killed(name: &str, path: &Path) -> Self {
        let path = path.display();
        Self::new(
            format!("the pool `{name}` was killed, and has left its control socket `{path}`"),
            format!("start the pool again, or remove the socket: rm {path}"),
        )
    }

    /// The pool `name` sends what is no answer, for `reason`.
    pub fn invalid(name: &str, reason: &dyn fmt::Display) -> Self {
        Self::new(
            format!("the pool `{name}` does not answer as a pool does: {reason}"),
            "restart the pool if it is of another version of wsgate, or find out which program \
             has opened its control socket",
        )
    }

    /// The next step.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for PoolError {}

/// The process that listens at the control socket of the pool `name` in `directory`, by the
/// kernel's list of sockets; `None` if the list does not show that, such as after a new name of the
/// pool.
pub(crate) fn listener_of(directory: &Path, name: &str) -> Option<i32> {
    let list = fs::read_to_string("/proc/net/unix").ok()?;
    // A pool opens the socket as NAME.PID.new, and renames the file.
    let prefix = format!("{}.", directory.join(name).display());
    list.lines().find_map(|line| line.split_once(&prefix)?.1.strip_suffix(".new")?.parse().ok())
}
