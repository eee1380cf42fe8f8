//! Do threads come back in a forked process? Packages such as OpenTelemetry start theirs again by
//! hooks (`os.register_at_fork`). A process is forked to see that.

use std::{
    fs,
    time::{Duration, Instant},
};

use pyo3::{prelude::*, types::PyDict};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Signal, WaitOptions, kill_process, waitpid},
};

use crate::process::{
    exit_at_once,
    fork::{self, ForkSide},
};

/// How long threads may take to appear in the forked process.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the forked process may take for its hooks.
const PROBE_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Do as many as `count` threads run in a forked process, and all threads that Python knows here?
/// An error means no.
pub(crate) fn come_back(py: Python<'_>, count: usize) -> bool {
    probe(py, count).unwrap_or(false)
}

fn probe(py: Python<'_>, count: usize) -> PyResult<bool> {
    let expected = python_threads(py)?;
    let (result, output) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
    match fork::fork(py)? {
        ForkSide::Child => {
            if are_back(py, count, &expected).unwrap_or(false) {
                let _ = write(&output, b"1");
            }
            exit_at_once(0)
        }
        ForkSide::Parent(pid) => {
            drop(output);
            py.detach(|| {
                let mut watched = [PollFd::new(&result, PollFlags::IN)];
                let _ = poll(&mut watched, Some(&PROBE_TIMEOUT));
                // The hooks may hang.
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            });
            let is_readable = {
                let mut watched = [PollFd::new(&result, PollFlags::IN)];
                poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|it| it > 0)
            };
            Ok(is_readable && read(&result, &mut [0; 1]).is_ok_and(|length| length == 1))
        }
    }
}

/// Waits for the threads in the forked process.
fn are_back(py: Python<'_>, count: usize, expected: &[String]) -> PyResult<bool> {
    let due = Instant::now() + START_TIMEOUT;
    loop {
        let running = fs::read_dir("/proc/self/task")?.count().saturating_sub(1);
        let mut found = python_threads(py)?;
        let are_found = expected.iter().all(|name| {
            let position = found.iter().position(|known| known == name);
            position.map(|position| found.swap_remove(position)).is_some()
        });
        if are_found && running >= count {
            return Ok(true);
        }
        if Instant::now() >= due {
            return Ok(false);
        }
        py.detach(|| std::thread::sleep(Duration::from_millis(5)));
    }
}

/// Class and name of each thread that `threading` knows, without numbers, which are others in a
/// forked process.
fn python_threads(py: Python<'_>) -> PyResult<Vec<String>> {
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let Some(threading) = modules.get_item("threading")? else { return Ok(Vec::new()) };
    let main = threading.call_method0("main_thread")?;
    let mut names = Vec::new();
    for thread in threading.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        if !thread.is(&main) {
            let name: String = thread.getattr("name")?.extract()?;
            let name: String = name.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            names.push(format!("{} {name}", thread.get_type().fully_qualified_name()?));
        }
    }
    Ok(names)
}
