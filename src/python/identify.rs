//! Finds out whether a program is a Python interpreter that can start, after it has failed to work
//! as one.

use std::{
    fs::File,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process_group},
};

/// How long a program may take to print its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes a program may print as its version.
const MAX_VERSION_BYTES: usize = 1024;

/// The log message about `program`, which `how` ("exited with status 2"), if the program has too
/// little memory to start, or is not a Python interpreter: it does not print its version as one.
pub(crate) fn not_python(program: &Path, how: &str) -> Option<LogMessage> {
    let output = version(program).ok().filter(|output| !output.starts_with("Python "))?;
    let shown = program.display();
    // Below its limit of memory, the kernel kills a program before it can print.
    let too_little = limit_hints::of_text(&output).or_else(|| {
        limit_hints::address_space().filter(|_| output.is_empty()).map(|_| limit_hints::memory())
    });
    if let Some(hint) = too_little {
        let message = LogMessage::new(Code::PythonEnded, format!("`{shown}` {how}"));
        return Some(message.detail(output.trim()).hint(hint));
    }
    let message = LogMessage::new(
        Code::BadPython,
        format!("`{shown}` is not a Python interpreter: it {how}"),
    );
    Some(message.hint(format!(
        "`{shown} --version` does not print the version of a Python; use another with --python \
         EXE, or a virtualenv with --venv DIR"
    )))
}

/// The beginning of what `program --version` prints. CPython and PyPy print `Python` first; Python
/// 2 prints it to standard error.
fn version(program: &Path) -> std::io::Result<String> {
    let (output, programs_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(programs_end.try_clone()?)
        .stderr(programs_end)
        .process_group(0)
        .spawn()?;
    let mut output = File::from(output);
    let deadline = Instant::now() + VERSION_TIMEOUT;
    let mut text = Vec::new();
    while text.len() < MAX_VERSION_BYTES && !text.starts_with(b"Python ") {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let is_ready =
            poll(&mut [PollFd::new(&output, PollFlags::IN)], timeout.as_ref()).unwrap_or(0) > 0;
        let mut bytes = [0; 64];
        let count = if is_ready { output.read(&mut bytes).unwrap_or(0) } else { 0 };
        if count == 0 {
            break;
        }
        text.extend_from_slice(&bytes[..count]);
    }
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The program may have exited already.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
