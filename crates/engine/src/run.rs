//! The life of one python process: launch, preparation, work and exit.

use std::{
    mem::ManuallyDrop,
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use diagnostics::{
    log_style::{self, LogFormat, LogStyle, Prefix},
    message::{Code, LogMessage},
    request_id,
};
use pyo3::{
    exceptions::{PyImportError, PyRuntimeError},
    prelude::*,
    sync::MutexExt as _,
};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use wire::{
    connection_queue::ConnectionQueue,
    launch::{EXIT_TIMEOUT_SECONDS, Launch, LogSettings, RequestFds, Service, Work},
    message::{
        DecodeError, {self},
    },
    report::{EXIT_DESCRIPTORS_LOST, Report},
};

use crate::{
    loading::interpreter::{self, SigtermSender},
    log::{Log, files},
    pool::{serving::Sockets, worker_status::StatusDescriptors},
    process,
    process::{
        forks::{
            Descriptor, {self},
        },
        title,
    },
    reporter::Reporter,
    wsgi::end_lines,
};

/// A launch message and the descriptors that it names.
struct Launched {
    launch: Launch,
    /// The socket for reports to the gateway.
    report_socket: Descriptor,
    /// The pipe that ties this process to its gateway.
    gateway_pipe: Option<Descriptor>,
    task: Task,
}

/// The work of this process, with the descriptors for it.
enum Task {
    Cgi {
        body: Descriptor,
        response: Descriptor,
        is_first: bool,
    },
    Check {
        response: Descriptor,
        target: Option<String>,
    },
    Trace {
        response: Descriptor,
    },
    Template {
        service: Service,
        sockets: Sockets,
        status: StatusDescriptors,
        stacks: Option<Descriptor>,
    },
    Worker {
        service: Service,
        sockets: Sockets,
        status: StatusDescriptors,
    },
}

/// A process that has read its launch message and not started its work.
#[pyclass(frozen, module = "wsgate")]
pub(crate) struct Prepared {
    launched: Mutex<Option<Launched>>,
}

/// Reads the launch message from the descriptor `launch` and takes over the descriptors that the
/// frame names.
#[pyfunction]
pub(crate) fn prepare(py: Python<'_>, launch: i32) -> PyResult<Prepared> {
    forks::watch(py)?;
    // If decoding fails, the bootstrap reads the header, so the file stays open.
    let file = ManuallyDrop::new(take_over(launch)?);
    let launch: Launch = message::decode(&message::read_file(&*file)?).map_err(import_error)?;
    let report_socket = take_over(launch.report_fd)?;
    let gateway_pipe = launch.gateway_pipe_fd.map(take_over).transpose()?;
    let task = Task::take_over(&launch.work)?;
    take_over_logs(&launch.work, &task)?;
    log_style::set(style(&launch.log));
    request_id::set_sent(launch.log.sends_request_id);
    drop(ManuallyDrop::into_inner(file));
    match &launch.work {
        Work::Cgi(_) | Work::FirstCgi(_) => title::show_cgi(&launch.request.line),
        Work::Check(..) | Work::Trace(_) => title::show_check(),
        Work::Template(_) => title::show_template(),
        Work::Worker(_) => title::show_loading_worker(),
    }
    let launched = Launched { launch, report_socket, gateway_pipe, task };
    Ok(Prepared { launched: Mutex::new(Some(launched)) })
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

/// Takes over the descriptor `number`, which the launch message or the command line names.
fn take_over(number: i32) -> PyResult<Descriptor> {
    // An application that starts `sys.orig_argv` again, as reloaders do, passes numbers that are
    // not open in the new process.
    Descriptor::take_over(number).map_err(|error| {
        PyRuntimeError::new_err(format!(
            "descriptor {number}: {error}; this process was not started by wsgate"
        ))
    })
}

impl Task {
    /// Takes over the descriptors that `work` names.
    fn take_over(work: &Work) -> PyResult<Self> {
        Ok(match work {
            Work::Cgi(ends) | Work::FirstCgi(ends) => Self::Cgi {
                body: take_over(ends.body_fd)?,
                response: take_over(ends.response_fd)?,
                is_first: matches!(work, Work::FirstCgi(_)),
            },
            Work::Check(ends, target) => {
                Self::Check { response: take_over_response(ends)?, target: target.clone() }
            }
            Work::Trace(ends) => Self::Trace { response: take_over_response(ends)? },
            Work::Template(service) => Self::Template {
                sockets: take_over_sockets(service)?,
                status: take_over_status(service)?,
                stacks: service.stacks_fd.map(take_over).transpose()?,
                service: service.clone(),
            },
            Work::Worker(service) => Self::Worker {
                sockets: take_over_sockets(service)?,
                status: take_over_status(service)?,
                service: service.clone(),
            },
        })
    }
}

/// Takes over the response descriptor of work without a request, and closes the empty body.
fn take_over_response(ends: &RequestFds) -> PyResult<Descriptor> {
    drop(take_over(ends.body_fd)?);
    take_over(ends.response_fd)
}

fn take_over_sockets(service: &Service) -> PyResult<Sockets> {
    let listeners = service.listeners.iter().map(|&number| take_over(number));
    let queue = service.connection_queue.map(|ends| {
        Ok::<_, PyErr>(ConnectionQueue::from_ends(
            take_over(ends.push_fd)?,
            take_over(ends.pop_fd)?,
        ))
    });
    Ok(Sockets { listeners: listeners.collect::<PyResult<_>>()?, queue: queue.transpose()? })
}

fn take_over_status(service: &Service) -> PyResult<StatusDescriptors> {
    Ok(StatusDescriptors {
        scoreboard: take_over(service.scoreboard_fd)?,
        bell: service.bell_fd.map(take_over).transpose()?,
    })
}

fn style(settings: &LogSettings) -> LogStyle {
    LogStyle {
        format: if settings.is_json { LogFormat::Json } else { LogFormat::Text },
        pool: settings.pool.clone(),
        prefix: match settings {
            LogSettings { has_priority: true, .. } => Prefix::Priority,
            LogSettings { has_time: true, .. } => Prefix::Time,
            LogSettings { .. } => Prefix::Nothing,
        },
    }
}

/// Takes over the logs of a pool.
fn take_over_logs(work: &Work, task: &Task) -> PyResult<()> {
    let (Work::Template(service) | Work::Worker(service)) = work else {
        return Ok(());
    };
    let (Task::Template { status, .. } | Task::Worker { status, .. }) = task else {
        return Ok(());
    };
    let access =
        service.logs.access.as_ref().and_then(|access| access.file.as_ref()).map(|file| file.fd);
    let descriptors = files::LogDescriptors {
        access: access.map(take_over).transpose()?,
        bell: service.logs.bell_fd.map(take_over).transpose()?,
    };
    Ok(files::take_over(&service.logs, descriptors, status.scoreboard.as_fd())?)
}

#[pymethods]
impl Prepared {
    /// Does the work and exits.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let launched =
            self.launched.lock_py_attached(py).ok().and_then(|mut launched| launched.take());
        let launched =
            launched.ok_or_else(|| PyRuntimeError::new_err("this work was begun before"))?;
        let Launched { launch, report_socket, gateway_pipe, task } = launched;
        forks::save_log();
        interpreter::prepare(py, &launch)?;
        let limit = exit_limit(&launch);
        let mut ownership = process::FinalisationScope::All;
        let status = match task {
            Task::Cgi { body, response, is_first } => {
                let gateway_pipe = gateway_pipe.map(Arc::new);
                end_with_gateway(launch.gateway_pid, gateway_pipe.as_deref())?;
                let reporter = Reporter::new(report_socket);
                let interruptible =
                    interpreter::raise_on_sigterm(py, &reporter, SigtermSender::Anybody)?;
                reporter.send(&Report::Ready);
                crate::cgi::run(
                    py,
                    &launch,
                    (body, response),
                    reporter,
                    interruptible,
                    (is_first, gateway_pipe.clone()),
                )?;
                if process::rejoin_gateway(launch.gateway_pid) {
                    // The application may have closed the pipe. This process exits in any case.
                    drop(end_with_gateway(launch.gateway_pid, gateway_pipe.as_deref()));
                }
                if forks::take_unreported_loss() { EXIT_DESCRIPTORS_LOST } else { 0 }
            }
            Task::Check { response, target } => {
                end_with_gateway(launch.gateway_pid, gateway_pipe.as_ref())?;
                let reporter = Reporter::new(report_socket);
                let interruptible =
                    interpreter::raise_on_sigterm(py, &reporter, SigtermSender::Anybody)?;
                reporter.send(&Report::Ready);
                crate::check::run(
                    py,
                    &launch,
                    target.as_deref(),
                    response,
                    &reporter,
                    interruptible,
                )?;
                0
            }
            Task::Trace { response } => {
                end_with_gateway(launch.gateway_pid, gateway_pipe.as_ref())?;
                let reporter = Reporter::new(report_socket);
                interpreter::raise_on_sigterm(py, &reporter, SigtermSender::Anybody)?;
                reporter.send(&Report::Ready);
                crate::check::trace(py, &launch, response, &reporter)?;
                0
            }
            Task::Template { service, sockets, status, stacks } => {
                end_with_gateway(launch.gateway_pid, gateway_pipe.as_ref())?;
                stacks.iter().try_for_each(|file| forks::answer_stack_requests(py, file))?;
                let ended = crate::pool::template::run(
                    py,
                    &launch,
                    &service,
                    sockets,
                    status,
                    report_socket,
                )?;
                ownership = ended.ownership;
                ended.status
            }
            Task::Worker { service, sockets, status } => {
                crate::pool::serving::run_alone(py, &launch, &service, sockets, status)?
            }
        };
        // Threads that have exited may have left unfinished lines.
        end_lines();
        crate::log::finish();
        process::exit(py, status, limit, ownership)
    }
}

/// How long the exit of this process may take. The supervisor limits the exit of a template.
fn exit_limit(launch: &Launch) -> Option<process::ExitLimit> {
    if matches!(launch.work, Work::Template(_)) {
        return None;
    }
    let seconds = if launch.request.timeout_seconds > 0 {
        launch.request.timeout_seconds
    } else {
        EXIT_TIMEOUT_SECONDS
    };
    let message = LogMessage::new(
        Code::ExitTimedOut,
        format!("the process has not exited {seconds} s after its last request, and was ended"),
    )
    .hint(
        "a thread, an exit handler, `__del__` or an extension module does not return; data may not \
         be written",
    );
    let message = Log::new(&launch.request.id, &launch.request.line).text(&message);
    // Threads that run after the response have no limit of their own.
    let counts_threads = launch.request.timeout_seconds > 0;
    Some(process::ExitLimit { time: Duration::from_secs(seconds), message, counts_threads })
}

/// Makes this process exit with the gateway: SIGTERM is sent only to the gateway.
fn end_with_gateway(gateway: i32, gateway_pipe: Option<&Descriptor>) -> PyResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if getppid() == Pid::from_raw(gateway) {
        // The pipe is for applications that change their user. If the kernel or a sandbox refuses
        // the pipe, the parent death signal above has to suffice.
        gateway_pipe
            .iter()
            .for_each(|pipe| drop(crate::process::gateway_pipe::kill_when_closed(pipe)));
        Ok(())
    } else {
        // The gateway exited before the kernel watched it.
        Err(PyRuntimeError::new_err("the gateway has exited"))
    }
}
