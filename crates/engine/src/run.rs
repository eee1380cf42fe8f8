//! The life of one python process: taken over from the gateway, made ready, put to its work, left.

use std::{
    mem::ManuallyDrop,
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    exceptions::{PyImportError, PyRuntimeError},
    prelude::*,
    sync::MutexExt as _,
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};
use wire::{
    connection_queue::ConnectionQueue,
    launch::{EXIT_TIMEOUT_SECONDS, Launch, Service, Work},
    message::{
        DecodeError, {self},
    },
    report::{EXIT_DESCRIPTORS_LOST, Report},
};

use crate::{
    log::{Log, files},
    pool::{serving::Sockets, worker_status::StatusDescriptors},
    process,
    process::forks::{
        Descriptor, {self},
    },
    reporter::Reporter,
    wsgi::end_lines,
};

/// What the gateway handed over.
struct Handed {
    launch: Launch,
    /// The socket to the gateway.
    channel: Descriptor,
    /// The pipe that ties this process to the gateway.
    lifeline: Option<Descriptor>,
    task: Task,
}

/// What is to be done, with the descriptors for it.
enum Task {
    Cgi { body: Descriptor, response: Descriptor, is_first: bool },
    Check { response: Descriptor },
    Trace { response: Descriptor },
    Template { service: Service, sockets: Sockets, status: StatusDescriptors },
    Worker { service: Service, sockets: Sockets, status: StatusDescriptors },
}

/// A process that has everything it needs and has not begun.
#[pyclass(frozen, module = "wsgate")]
pub(crate) struct Prepared {
    handed: Mutex<Option<Handed>>,
}

/// Reads the launch message from the descriptor `launch` and takes over the descriptors that it
/// names.
#[pyfunction]
pub(crate) fn prepare(py: Python<'_>, launch: i32) -> PyResult<Prepared> {
    forks::watch(py)?;
    // SAFETY: the gateway opened this descriptor for this process alone and passed its number to
    // this call.
    let file = unsafe { own(launch) }?;
    // If this fails, the bootstrap reads the header: the file stays open then.
    let file = ManuallyDrop::new(file);
    let launch: Launch = message::decode(&message::read_file(&*file)?).map_err(import_error)?;
    // SAFETY: as above; the message names different descriptors, each once.
    let channel = unsafe { own(launch.report_fd)? };
    // SAFETY: as above.
    let lifeline = launch.gateway_pipe_fd.map(|number| unsafe { own(number) }).transpose()?;
    // SAFETY: as above.
    let task = unsafe { Task::take_over(&launch.work) }?;
    // SAFETY: as above.
    unsafe { take_over_logs(&launch.work, &task) }?;
    drop(ManuallyDrop::into_inner(file));
    Ok(Prepared { handed: Mutex::new(Some(Handed { launch, channel, lifeline, task })) })
}

/// The reason why a launch message cannot be used.
fn import_error(error: DecodeError) -> PyErr {
    PyImportError::new_err(match error {
        DecodeError::OtherBuild(other) => {
            let build = wire::build();
            format!("the gateway is of build `{other}`, this engine of build `{build}`")
        }
        other => format!("the launch message cannot be read: {other}"),
    })
}

impl Task {
    /// Takes over the descriptors that `work` names.
    ///
    /// # Safety
    /// They must be open, different, and owned by nothing else.
    unsafe fn take_over(work: &Work) -> PyResult<Self> {
        // SAFETY: the caller's promise, for this and all that follow.
        let sockets = |service: &Service| -> PyResult<Sockets> {
            // SAFETY: as above.
            let listeners = service.listeners.iter().map(|&number| unsafe { own(number) });
            let queue = service.connection_queue.map(|ends| {
                // SAFETY: as above.
                unsafe {
                    Ok::<_, PyErr>(ConnectionQueue::from_ends(
                        own(ends.push_fd)?,
                        own(ends.pop_fd)?,
                    ))
                }
            });
            Ok(Sockets {
                listeners: listeners.collect::<PyResult<_>>()?,
                queue: queue.transpose()?,
            })
        };
        let status = |service: &Service| -> PyResult<StatusDescriptors> {
            Ok(StatusDescriptors {
                // SAFETY: as above.
                scoreboard: unsafe { own(service.scoreboard_fd) }?,
                // SAFETY: as above.
                bell: service.bell_fd.map(|number| unsafe { own(number) }).transpose()?,
            })
        };
        Ok(match work {
            // SAFETY: as above.
            Work::Cgi(ends) | Work::FirstCgi(ends) => unsafe {
                let is_first = matches!(work, Work::FirstCgi(_));
                Self::Cgi { body: own(ends.body_fd)?, response: own(ends.response_fd)?, is_first }
            },
            Work::Check(ends) => {
                // SAFETY: as above. There is no request, so no body.
                let (_, response) = unsafe { (own(ends.body_fd)?, own(ends.response_fd)?) };
                Self::Check { response }
            }
            Work::Trace(ends) => {
                // SAFETY: as above.
                let (_, response) = unsafe { (own(ends.body_fd)?, own(ends.response_fd)?) };
                Self::Trace { response }
            }
            Work::Template(service) => Self::Template {
                sockets: sockets(service)?,
                status: status(service)?,
                service: service.clone(),
            },
            Work::Worker(service) => Self::Worker {
                sockets: sockets(service)?,
                status: status(service)?,
                service: service.clone(),
            },
        })
    }
}

/// Takes over the logs of a pool.
///
/// # Safety
/// As for [`Task::take_over`].
unsafe fn take_over_logs(work: &Work, task: &Task) -> PyResult<()> {
    let (Work::Template(service) | Work::Worker(service)) = work else {
        return Ok(());
    };
    let (Task::Template { status, .. } | Task::Worker { status, .. }) = task else {
        return Ok(());
    };
    let access =
        service.logs.access.as_ref().and_then(|access| access.file.as_ref()).map(|file| file.fd);
    // SAFETY: the caller's promise.
    let take = |number: Option<i32>| number.map(|number| unsafe { own(number) }).transpose();
    let handed = files::Handed { access: take(access)?, bell: take(service.logs.bell_fd)? };
    Ok(files::take_over(&service.logs, handed, status.scoreboard.as_fd())?)
}

#[pymethods]
impl Prepared {
    /// Does the work and ends the process.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let handed = self.handed.lock_py_attached(py).ok().and_then(|mut handed| handed.take());
        let handed = handed.ok_or_else(|| PyRuntimeError::new_err("this work was begun before"))?;
        let Handed { launch, channel, lifeline, task } = handed;
        forks::keep_log();
        crate::process::interpreter::settle(py, &launch)?;
        let limit = limit_of_exit(&launch);
        let mut ownership = process::Ownership::All;
        let status = match task {
            Task::Cgi { body, response, is_first } => {
                let lifeline = lifeline.map(Arc::new);
                stay_with(launch.gateway_pid, lifeline.as_deref())?;
                let reporter = Reporter::new(channel);
                let interruptible = crate::process::interpreter::end_by_exception(
                    py,
                    &reporter,
                    crate::process::interpreter::Heeds::Anybody,
                )?;
                reporter.send(&Report::Ready);
                crate::cgi::cold::run(
                    py,
                    &launch,
                    (body, response),
                    reporter,
                    interruptible,
                    (is_first, lifeline.clone()),
                )?;
                if process::rejoin(launch.gateway_pid) {
                    // The application may have closed the pipe. This process ends in any case.
                    drop(stay_with(launch.gateway_pid, lifeline.as_deref()));
                }
                if forks::is_untold() { EXIT_DESCRIPTORS_LOST } else { 0 }
            }
            Task::Check { response } => {
                stay_with(launch.gateway_pid, lifeline.as_ref())?;
                let reporter = Reporter::new(channel);
                let interruptible = crate::process::interpreter::end_by_exception(
                    py,
                    &reporter,
                    crate::process::interpreter::Heeds::Anybody,
                )?;
                reporter.send(&Report::Ready);
                crate::check::run(py, &launch, response, &reporter, interruptible)?;
                0
            }
            Task::Trace { response } => {
                stay_with(launch.gateway_pid, lifeline.as_ref())?;
                let reporter = Reporter::new(channel);
                crate::process::interpreter::end_by_exception(
                    py,
                    &reporter,
                    crate::process::interpreter::Heeds::Anybody,
                )?;
                reporter.send(&Report::Ready);
                crate::check::trace(py, &launch, response, &reporter)?;
                0
            }
            Task::Template { service, sockets, status } => {
                stay_with(launch.gateway_pid, lifeline.as_ref())?;
                let ended =
                    crate::pool::template::run(py, &launch, &service, sockets, status, channel)?;
                ownership = ended.ownership;
                ended.status
            }
            Task::Worker { service, sockets, status } => {
                crate::pool::serving::run_alone(py, &launch, &service, sockets, status)?
            }
        };
        // Of threads that have ended, too.
        end_lines();
        crate::log::finish();
        process::exit(py, status, limit, ownership)
    }
}

/// How long the end of this process may take. Of the processes of a pool the supervisor knows.
fn limit_of_exit(launch: &Launch) -> Option<process::Limit> {
    if matches!(launch.work, Work::Template(_)) {
        return None;
    }
    let seconds = if launch.request.timeout_seconds > 0 {
        launch.request.timeout_seconds
    } else {
        EXIT_TIMEOUT_SECONDS
    };
    let entry = LogMessage::error(
        Code::ExitTimedOut,
        format!("the process has not exited {seconds} s after its last request, and was ended"),
    )
    .hint(
        "a thread, an exit handler, `__del__` or an extension module does not return; data may not \
         be written",
    );
    let message = Log::new(&launch.request.id, &launch.request.line).text(&entry);
    // Work that threads do after the response has no limit by itself.
    let counts_threads = launch.request.timeout_seconds > 0;
    Some(process::Limit { time: Duration::from_secs(seconds), message, counts_threads })
}

/// Takes over the descriptor with the number `number`; programs that the application starts do not
/// get it.
///
/// # Safety
/// The descriptor must be open, and nothing else in this process may own it.
unsafe fn own(number: i32) -> PyResult<Descriptor> {
    // An application that starts `sys.orig_argv` again, as reloaders do, brings numbers that mean
    // nothing there. SAFETY: nothing closes the descriptor meanwhile; where there is none, the
    // kernel says so.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).map_err(|error| {
        PyRuntimeError::new_err(format!(
            "descriptor {number}: {error}; this process was not started by wsgate"
        ))
    })?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

/// Makes sure that this process does not outlive the gateway, which alone can be asked to stop.
fn stay_with(gateway: i32, lifeline: Option<&Descriptor>) -> PyResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if getppid() == Pid::from_raw(gateway) {
        // The pipe is for applications that change their user. Where the kernel or a sandbox
        // refuses it, the signal above has to do.
        lifeline.iter().for_each(|it| drop(crate::process::gateway_pipe::hold_to(it)));
        Ok(())
    } else {
        // It ended before the kernel was asked to watch it.
        Err(PyRuntimeError::new_err("the gateway has gone"))
    }
}
