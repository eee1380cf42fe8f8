//! A worker of a warm pool: forked with the application loaded, before its CGI request arrives.

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat},
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
    cgi::{
        cold::{
            CgiRequest, {self},
        },
        idle_worker::{AcceptedRequest, IdleWorker},
    },
    loading::{
        interpreter::{self, SigtermHandler, SigtermSender},
        loaded_state::LoadedState,
        prefault::Pages,
        staleness::SourceWatch,
    },
    log::Log,
    pool::{
        serving,
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::{StatusDescriptors, WorkerStatus},
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
    transport::cgi::ResponseEnding,
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
    (status, slot): (StatusDescriptors, u32),
    (state, fresh, pages, tie): (&LoadedState, SourceWatch, Option<Pages>, Arc<TemplateLink>),
) -> PyResult<i32> {
    let watched = WorkerStatus::new(status, slot, 1, 0)?;
    let limits = WorkerLimits::new(service)?;
    let mut count = 0;
    let ourselves = getpid();
    let timers = ApplicationTimers::default();
    let mut spare = Some(IdleWorker::new(listeners, fresh, (launch, &state.mask))?);
    let environment =
        if service.resident { Some(environment::SavedEnvironment::new(py)?) } else { None };
    let theirs = SigtermHandler::present(py)?;
    // A separate process group, as for any CGI request, so that child processes can be killed with
    // the worker.
    setpgid(None, None).map_err(io::Error::from)?;
    let log = Descriptor::made(|| fcntl_dupfd_cloexec(forks::log(), 3)).map_err(io::Error::from)?;
    forks::save_standard();
    while let Some(waiting) = &mut spare {
        let Some(taken) = py.detach(|| waiting.request()) else {
            break;
        };
        // If the process exits after the request, resources of the pool are closed first.
        let kept = spare.take().filter(|_| service.resident);
        let begun = SystemTime::now();
        let served = serve(
            py,
            application,
            launch,
            service,
            &watched,
            (state, &theirs, &timers),
            (&tie, taken),
        )?;
        let Some(mut kept) = kept else {
            // The kernel closes the connection and the gateway pipe when the process exits.
            std::mem::forget(served);
            pages.iter().for_each(Pages::note);
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
        let asked_to_stop = served.end(&log, state, &tie)? || kept.sigterm.has_come();
        environment.iter().try_for_each(|kept| kept.restore(py))?;
        if asked_to_stop || !tie.has_template() || kept.fresh.watch_more(py, begun).is_err() {
            break;
        }
        watched.end_request(py, 0);
        count += 1;
        match limits.after(count) {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => watched.report_memory(0, resident),
            LimitAction::Exit(why) => {
                let sentence = format!("replacing worker {}: {why}", ourselves.as_raw_nonzero());
                Log::without_request("worker")
                    .write(&LogMessage::new(Code::WorkerReplaced, sentence));
                break;
            }
        }
        kept.has_served = true;
        spare = Some(kept);
    }
    watched.end_request(py, 0);
    watched.mark_stopping(0);
    Ok(0)
}

/// A request that was served, with the resources to release.
struct ServedRequest {
    connection: Descriptor,
    lifeline: Arc<Descriptor>,
    asked_to_stop: Arc<AtomicBool>,
}

impl ServedRequest {
    /// Releases the request in a process that continues. Returns whether SIGTERM has arrived
    /// meanwhile.
    fn end(self, log: &Descriptor, state: &LoadedState, tie: &TemplateLink) -> PyResult<bool> {
        leave_streams(log, state)?;
        // If the response never began, the request was not released.
        tie.attach_if_template_lives()?;
        gateway_pipe::cancel_signal(&self.lifeline);
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
    watched: &WorkerStatus,
    (state, theirs, timers): (&LoadedState, &SigtermHandler, &ApplicationTimers),
    (tie, taken): (&Arc<TemplateLink>, AcceptedRequest),
) -> PyResult<ServedRequest> {
    let AcceptedRequest {
        connection,
        gateway,
        request,
        process,
        descriptors: [body, response, errors, lifeline],
    } = taken;
    state.enter(py, &process)?;
    let reporter = Reporter::new(connection.try_clone()?);
    let asked_to_stop = Arc::new(AtomicBool::new(false));
    let heeds = SigtermSender::Gateway(asked_to_stop.clone(), theirs.clone_ref(py));
    let interruptible = interpreter::raise_on_sigterm(py, &reporter, heeds)?;
    process::unblock_signals(&state.mask);
    // From here on only the gateway controls the life of the request. If the kernel or a sandbox
    // refuses that, the process still exits with its template.
    if gateway_pipe::kill_when_closed(&lifeline).is_ok() {
        tie.detach()?;
    }
    redirect_to(&errors, state)?;
    drop(errors);
    let log = Log::new(&request.id, &request.line);
    watched.begin_request(0, log.line(), &interruptible);
    reporter.send(&Report::Ready);
    let lifeline = Arc::new(lifeline);
    let (seconds, begun) = match request.timeout_seconds {
        0 => (EXIT_TIMEOUT_SECONDS, None),
        seconds => (seconds, Some(Instant::now())),
    };
    let hangs = log.text(&cold::closing_hangs(seconds));
    let tell = {
        let (reporter, lifeline, tie) = (reporter.clone(), lifeline.clone(), tie.clone());
        move |complete| {
            gateway_pipe::cancel_signal(&lifeline);
            // The gateway no longer enforces the time limit, and `close()` still has to run.
            let _ = tie.attach_if_template_lives();
            reporter.send(&Report::Released { complete });
            await_end(gateway, reporter.socket());
            let used = begun.map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
            process::interrupt_after(Duration::from_secs(seconds).saturating_sub(used), &hangs);
        }
    };
    let asked = CgiRequest {
        log,
        variables: state.variables(&process),
        body,
        output: response,
        reporter,
        interruptible,
        form: request.response_format,
        part: ResponseEnding { tell: Box::new(tell), is_guarded: false, exits: !service.resident },
    };
    let setting = ServerSettings {
        timeout_seconds: request.timeout_seconds,
        response_timeout_seconds: request.response_timeout_seconds,
        ..serving::setting(launch, service)
    };
    cold::serve(py, asked, setting, |_| Ok((application.clone(), None)))?;
    process::cancel();
    // The timers of a process that exits after its request vanish with the process.
    if service.resident
        && let Some(message) = timers.after_request().or_else(|| timers.when_idle())
    {
        Log::new(&request.id, &request.line).write(&message);
    }
    // The process exits with its template again, as before the request. If the template has exited,
    // the process exits by itself.
    tie.attach_if_template_lives()?;
    if forks::take_unreported_loss() {
        // The kernel tells the gateway that this process exits, but not why.
        let message = LogMessage::descriptors_lost("the gateway cannot hear of the response");
        Log::new(&request.id, &request.line).write(&message);
    }
    Ok(ServedRequest { connection, lifeline, asked_to_stop })
}

/// Waits until the gateway has exited. At the end of a response, Apache's mod_cgid checks whether
/// the program has exited. If not, the next request on a keep-alive connection is delayed by ten
/// milliseconds.
fn await_end(gateway: Pid, connection: &Descriptor) {
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
    forks::redirect_log(log.as_fd());
    Ok(())
}
