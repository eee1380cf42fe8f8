//! The life of one python process: taken over from the gateway, made ready, put to its work, left.

mod check;
mod cold;
mod interpreter;

use std::{
    io::Read as _,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Mutex,
};

use link::{
    launch::{Launch, Work},
    report::Report,
};
use pyo3::{
    exceptions::{PyImportError, PyRuntimeError},
    prelude::*,
    sync::MutexExt as _,
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};

use crate::{reporter::Reporter, wsgi::Interruptible};

/// What the gateway handed over.
pub(crate) struct Handed {
    launch: Launch,
    body: OwnedFd,
    reply: OwnedFd,
    reporter: Reporter,
    interruptible: Interruptible,
}

/// A process that has everything it needs and has not begun.
#[pyclass(frozen, module = "wsgate")]
pub(crate) struct Prepared {
    handed: Mutex<Option<Handed>>,
}

/// Reads the launch frame from the descriptor `launch` and takes over the descriptors that it names.
#[pyfunction]
pub(crate) fn prepare(launch: i32) -> PyResult<Prepared> {
    // SAFETY: the gateway opened this descriptor for this process alone and passed its number to this call.
    let mut file = std::fs::File::from(unsafe { own(launch) }?);
    let mut frame = Vec::new();
    file.read_to_end(&mut frame)?;
    let launch = Launch::decode(&frame).map_err(|bad| PyImportError::new_err(bad.to_string()))?;
    // SAFETY: as above; the frame names three different descriptors, each once.
    let (body, reply, report) = unsafe { (own(launch.body_fd)?, own(launch.reply_fd)?, own(launch.report_fd)?) };
    Ok(Prepared {
        handed: Mutex::new(Some(Handed {
            launch,
            body,
            reply,
            reporter: Reporter::new(report),
            interruptible: Interruptible::yes(),
        })),
    })
}

#[pymethods]
impl Prepared {
    /// Does the work and ends the process.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let handed = self.handed.lock_py_attached(py).ok().and_then(|mut handed| handed.take());
        let handed = handed.ok_or_else(|| PyRuntimeError::new_err("this work was begun before"))?;
        stay_with(handed.launch.gateway_pid)?;
        handed.reporter.send(&Report::Ready);
        interpreter::settle(py, &handed)?;
        match handed.launch.work {
            Work::Cgi => cold::run(py, handed),
            Work::Check => check::run(py, handed)?,
        }
        interpreter::leave(py)
    }
}

/// Takes over the descriptor with the number `number`; programs that the application starts do not get it.
///
/// # Safety
/// The descriptor must be open, and nothing else in this process may own it.
unsafe fn own(number: i32) -> PyResult<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC)
        .map_err(|error| PyRuntimeError::new_err(format!("descriptor {}: {error}", descriptor.as_raw_fd())))?;
    Ok(descriptor)
}

/// Makes sure that this process does not outlive the gateway, which alone can be told to end.
fn stay_with(gateway: i32) -> PyResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if getppid() == Pid::from_raw(gateway) {
        Ok(())
    } else {
        // It ended before the kernel was asked to watch it.
        Err(PyRuntimeError::new_err("the gateway has gone"))
    }
}
