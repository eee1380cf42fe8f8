//! `wsgate stacks`.

use std::fmt::{self, Write as _};

use clap::Args;
use control::{
    client,
    process_stacks::{Frame, ProcessRole, ProcessStacks, StacksOutcome, ThreadStack},
};
use diagnostics::{
    escape::{self, Escaped},
    message::{Code, LogMessage},
};

use crate::{
    exit::{
        CommandError, Exit, {self},
    },
    pool::{args::PoolName, commands::unknown},
};

/// The arguments of `wsgate stacks`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StacksArgs {
    #[command(flatten)]
    pool: PoolName,

    /// Process to show [default: all Python processes of the pool]
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// Print one line of JSON for each process, with the fields that docs/inspect.md lists
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Prints the Python stacks of the processes of a pool.
///
/// # Errors
/// If the pool is not running, or a process does not answer.
pub(crate) fn run(args: &StacksArgs) -> Result<Exit, CommandError> {
    let processes = client::stacks(&args.pool.name, args.pid).map_err(unknown)?;
    let mut text = String::new();
    for process in &processes {
        if args.json {
            let line = serde_json::to_string(process).map_err(|error| unknown(error.into()))?;
            text.push_str(&escape::json(format!("{line}\n")));
        } else {
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a string cannot fail.
            let _ = write!(text, "{gap}{}", Shown(process));
        }
    }
    exit::print(text.as_bytes())?;
    let silent: Vec<_> = processes.iter().filter_map(no_answer).collect();
    if silent.is_empty() {
        return Ok(Exit::Success);
    }
    let message = LogMessage::new(Code::NoStacks, silent.join("; "));
    Err(CommandError::failed(message.hint(
        "a process that SIGSTOP or a debugger has stopped cannot answer (`kill -CONT PID`), nor \
         can one that blocks SIGURG or has its own handler for it; `gdb` and `py-spy` show such a \
         process as root",
    )))
}

/// The sentence about a process that has not answered.
fn no_answer(process: &ProcessStacks) -> Option<String> {
    let pid = process.pid;
    match process.outcome {
        StacksOutcome::Complete => None,
        StacksOutcome::NoAnswer => Some(format!("no answer from process {pid} within 2 s")),
        StacksOutcome::Stopped => Some(format!("no answer from process {pid}, which is stopped")),
        StacksOutcome::NoProcess => Some(format!("process {pid} has exited")),
    }
}

/// The stacks of a process as text. Escapes everything that another user's pool could use against a
/// terminal.
pub(super) struct Shown<'a>(pub(super) &'a ProcessStacks);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(process) = self;
        let role = match process.role {
            ProcessRole::Worker => "worker",
            ProcessRole::Loading => "worker that loads the application",
            ProcessRole::Template => "template process",
        };
        writeln!(f, "Process {}: {role}", process.pid)?;
        if let Some(reason) = no_answer(process) {
            writeln!(f, "  {reason}")?;
        }
        process.threads.iter().try_for_each(|thread| write_thread(f, thread))
    }
}

fn write_thread(f: &mut fmt::Formatter<'_>, thread: &ThreadStack) -> fmt::Result {
    match thread.number {
        Some(number) => write!(f, "Thread {number}")?,
        None => write!(f, "Thread {}", Escaped(&thread.identifier))?,
    }
    if let Some(name) = &thread.name {
        write!(f, " \"{}\"", Escaped(name))?;
    }
    if let Some(status) = &thread.status {
        let state = if status.busy { "busy" } else { "idle" };
        let (seconds, tenths) = (status.milliseconds / 1000, status.milliseconds % 1000 / 100);
        write!(f, " ({state} for {seconds}.{tenths} s)")?;
        if let Some(request) = status.request.as_ref().filter(|_| status.busy) {
            write!(f, ": {}", Escaped(&request.to_string()))?;
        }
    }
    f.write_char('\n')?;
    thread.frames.iter().try_for_each(|frame| write_frame(f, frame))
}

fn write_frame(f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
    write!(f, "    {}", Escaped(&frame.function))?;
    if let Some(file) = &frame.file {
        write!(f, " ({}", Escaped(file))?;
        frame.line.iter().try_for_each(|line| write!(f, ":{line}"))?;
        f.write_char(')')?;
    }
    f.write_char('\n')
}
