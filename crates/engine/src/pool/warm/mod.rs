//! A worker of a warm pool: forked with the application loaded, before its CGI request arrives.

mod idle_worker;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use diagnostics::{
    log_style::{self, Prefix},
    message::{Code, LogMessage},
};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags, fstat, openat},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{Shutdown, shutdown},
    process::{Pid, PidfdFlags, getpid, pidfd_open, setpgid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use wire::{
    launch::{EXIT_TIMEOUT_SECONDS, Launch, Service},
    report::Report,
};

use crate::{
    loading::{
        interpreter::{self, SigtermHandler, SigtermSender},
        loaded_state::LoadedState,
        prefault::Pages,
        staleness::SourceWatch,
    },
    log::Log,
    pool::{
        serving,
        warm::idle_worker::{AcceptedRequest, IdleWorker},
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::{RequestTimeouts, StatusDescriptors, WorkerStatus},
    },
    process::{
        ApplicationTimers, environment,
        forks::{
            Descriptor, {self},
        },
        gateway_pipe::{
            TemplateLink, {self},
        },
        {self},
    },
    reporter::Reporter,
    transport::cgi::{CgiRequest, ResponseEnding, close_hangs},
    wsgi::{ServerSettings, end_lines},
};

/// How long a gateway may take to exit after its response.
const GATEWAY_EXIT_TIMEOUT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Serves one request, or many in a resident pool, until asked to stop. Returns the exit status of
/// this process.
pub(crate) fn run(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    service: &Service,
    listeners: Vec<Descriptor>,
    (status, block): (StatusDescriptors, u32),
    (state, source_watch, pages, template_link): (
        &LoadedState,
        SourceWatch,
        Option<Pages>,
        Arc<TemplateLink>,
    ),
) -> PyResult<i32> {
    let status_writer = WorkerStatus::new(status, block, 1, RequestTimeouts::default())?;
    let limits = WorkerLimits::new(service)?;
    let mut count = 0;
    let ourselves = getpid();
    let timers = ApplicationTimers::default();
    let mut idle = Some(IdleWorker::new(listeners, source_watch, (launch, &state.mask))?);
    let environment =
        if service.resident { Some(environment::SavedEnvironment::new(py)?) } else { None };
    let sigterm_handler = SigtermHandler::present(py)?;
    // A separate process group, as for any CGI request, so that child processes can be killed with
    // the worker.
    setpgid(None, None).map_err(io::Error::from)?;
    let log = Descriptor::made(|| fcntl_dupfd_cloexec(forks::log(), 3)).map_err(io::Error::from)?;
    forks::save_standard();
    while let Some(worker) = &mut idle {
        let Some(accepted) = py.detach(|| worker.request()) else {
            break;
        };
        // If the process exits after the request, resources of the pool are closed first.
        let kept = idle.take().filter(|_| service.resident);
        let begun = SystemTime::now();
        let served = serve(
            py,
            application,
            launch,
            service,
            &status_writer,
            (state, &sigterm_handler, &timers),
            (&template_link, accepted),
        )?;
        let Some(mut kept) = kept else {
            // The kernel closes the connection and the gateway pipe when the process exits.
            std::mem::forget(served);
            pages.iter().for_each(Pages::record);
            break;
        };
        kept.sigterm.listen_again(&state.mask)?;
        // Pending signals call their handlers now. An exception of a handler goes to the
        // application.
        if let Err(error) = py.check_signals() {
            error.print(py);
        }
        if forks::has_lost() {
            break;
        }
        let asked_to_stop = served.end(&log, state, &template_link)? || kept.sigterm.has_come();
        environment.iter().try_for_each(|kept| kept.restore(py))?;
        if asked_to_stop
            || !template_link.has_template()
            || kept.source_watch.watch_more(py, begun).is_err()
        {
            break;
        }
        status_writer.end_request(py, 0);
        count += 1;
        match limits.after(count) {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => status_writer.report_memory(0, resident),
            LimitAction::Exit(why) => {
                let sentence = format!("replacing worker {}: {why}", ourselves.as_raw_nonzero());
                Log::without_request("worker")
                    .write(&LogMessage::new(Code::WorkerReplaced, sentence));
                break;
            }
        }
        kept.has_served = true;
        idle = Some(kept);
    }
    status_writer.end_request(py, 0);
    status_writer.mark_stopping(0);
    Ok(0)
}

/// A request that was served, with the resources to release.
struct ServedRequest {
    connection: Descriptor,
    gateway_pipe: Arc<Descriptor>,
    asked_to_stop: Arc<AtomicBool>,
}

impl ServedRequest {
    /// Releases the request in a process that continues. Returns whether SIGTERM has arrived
    /// meanwhile.
    fn end(
        self,
        log: &Descriptor,
        state: &LoadedState,
        template_link: &TemplateLink,
    ) -> PyResult<bool> {
        leave_streams(log, state)?;
        // If the response never began, the request was not released.
        template_link.attach_if_template_lives()?;
        gateway_pipe::cancel_signal(&self.gateway_pipe);
        // Closes this end even if the application holds the connection: the gateway waits for the
        // close.
        let _ = shutdown(&self.connection, Shutdown::Both);
        Ok(self.asked_to_stop.load(Ordering::Relaxed))
    }
}

/// Serves one request.
fn serve(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    service: &Service,
    status: &WorkerStatus,
    (state, sigterm_handler, timers): (&LoadedState, &SigtermHandler, &ApplicationTimers),
    (template_link, accepted): (&Arc<TemplateLink>, AcceptedRequest),
) -> PyResult<ServedRequest> {
    let AcceptedRequest {
        connection,
        gateway,
        message,
        process,
        descriptors: [body, output, errors, gateway_pipe],
    } = accepted;
    state.enter(py, &process)?;
    let reporter = Reporter::new(connection.try_clone()?);
    let asked_to_stop = Arc::new(AtomicBool::new(false));
    let sender = SigtermSender::Gateway(asked_to_stop.clone(), sigterm_handler.clone_ref(py));
    let interruptible = interpreter::raise_on_sigterm(py, &reporter, sender)?;
    process::unblock_signals(&state.mask);
    // From here on only the gateway controls the life of the request. If the kernel or a sandbox
    // refuses that, the process still exits with its template.
    if gateway_pipe::kill_when_closed(&gateway_pipe).is_ok() {
        template_link.detach()?;
    }
    redirect_to(&errors, state)?;
    drop(errors);
    let log = Log::new(&message.id, &message.line);
    status.begin_request(0, log.line(), &interruptible);
    reporter.send(&Report::Ready);
    let gateway_pipe = Arc::new(gateway_pipe);
    let (seconds, begun) = match message.timeout_seconds {
        0 => (EXIT_TIMEOUT_SECONDS, None),
        seconds => (seconds, Some(Instant::now())),
    };
    let close_hangs = log.text(&close_hangs(seconds));
    let notify = {
        let (reporter, gateway_pipe, template_link) =
            (reporter.clone(), gateway_pipe.clone(), template_link.clone());
        let interruptible = interruptible.clone();
        move |complete| {
            gateway_pipe::cancel_signal(&gateway_pipe);
            // The gateway no longer enforces the time limit, and `close()` still has to run.
            let _ = template_link.attach_if_template_lives();
            reporter.send(&Report::Released { complete });
            await_exit(gateway, reporter.socket());
            let used = begun.map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
            let seconds = interruptible.own_timeout_seconds().unwrap_or(0).max(seconds);
            let left = Duration::from_secs(seconds).saturating_sub(used);
            process::interrupt_after(left, &close_hangs);
        }
    };
    let request = CgiRequest {
        log: log.clone(),
        variables: state.variables(&process),
        body,
        output,
        reporter,
        interruptible,
        response_format: message.response_format,
        ending: ResponseEnding {
            notify: Box::new(notify),
            is_guarded: false,
            exits: !service.resident,
        },
    };
    let setting = ServerSettings {
        timeout_seconds: message.timeout_seconds,
        response_timeout_seconds: message.response_timeout_seconds,
        ..serving::setting(launch, service)
    };
    let response = request.serve(py, setting, |_| Ok((application.clone(), None)))?;
    status.record_response(0, response);
    process::cancel();
    // The timers of a process that exits after its request vanish with the process.
    if service.resident
        && let Some(message) = timers.after_request().or_else(|| timers.when_idle())
    {
        log.write(&message);
    }
    // The process exits with its template again, as before the request. If the template has exited,
    // the process exits by itself.
    template_link.attach_if_template_lives()?;
    if forks::take_unreported_loss() {
        // The kernel tells the gateway that this process exits, but not why.
        log.write(&LogMessage::descriptors_lost("the gateway cannot hear of the response"));
    }
    Ok(ServedRequest { connection, gateway_pipe, asked_to_stop })
}

/// Waits until the gateway has exited. At the end of a response, Apache's mod_cgid checks whether
/// the program has exited. If not, the next request on a keep-alive connection is delayed by ten
/// milliseconds.
fn await_exit(gateway: Pid, connection: &Descriptor) {
    match Descriptor::made(|| pidfd_open(gateway, PidfdFlags::empty())) {
        Ok(gateway) => {
            let _ = poll(&mut [PollFd::new(&gateway, PollFlags::IN)], Some(&GATEWAY_EXIT_TIMEOUT));
        }
        // The gateway has already exited.
        Err(Errno::SRCH) => {}
        // Before Linux 5.3 only the close of the gateway's connection is visible. The close happens
        // just before the exit.
        Err(_) => {
            let _ =
                poll(&mut [PollFd::new(connection, PollFlags::RDHUP)], Some(&GATEWAY_EXIT_TIMEOUT));
        }
    }
}

/// Restores the standard streams of the pool. Buffers of C libraries belong to the request.
fn leave_streams(log: &Descriptor, state: &LoadedState) -> io::Result<()> {
    end_lines();
    process::flush_c_streams();
    dup2_stdin(openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    redirect_to(log, state)
}

/// Redirects standard output and standard error to `log`, unless loading has redirected them.
fn redirect_to(log: impl AsFd, state: &LoadedState) -> io::Result<()> {
    let [output, errors] = state.is_redirected();
    if !output {
        dup2_stdout(&log)?;
    }
    if !errors {
        dup2_stderr(&log)?;
    }
    // As for a cold request: nobody else adds a time to messages in a file.
    let is_file = FileType::from_raw_mode(fstat(&log)?.st_mode) == FileType::RegularFile;
    log_style::set_prefix(if is_file { Prefix::Time } else { Prefix::Nothing });
    forks::redirect_log(log.as_fd());
    Ok(())
}
