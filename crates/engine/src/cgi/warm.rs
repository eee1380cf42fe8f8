//! A process of a warm pool: forked ahead of the one CGI request that it serves, with the
//! application loaded.

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
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio},
    net::{Shutdown, SocketFlags, SocketType, accept_with, shutdown, sockopt},
    process::{Pid, PidfdFlags, geteuid, getpid, pidfd_open, setpgid},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use wire::{
    descriptors,
    launch::{EXIT_TIMEOUT_SECONDS, Launch, Service},
    message,
    report::Report,
    request::{
        Greeting, MAX_GREETING_BYTES, ProcessState, RequestFollows, RequestMessage,
        WARM_DESCRIPTORS,
    },
};

use crate::{
    cgi::cold::{
        CgiRequest, {self},
    },
    loading::{
        interpreter::{self, SigtermHandler, SigtermSender},
        loaded_state::LoadedState,
        prefault::Pages,
        staleness::SourceWatch,
    },
    log::Log,
    pool::{
        serving::{
            IDLE_CHECK_TIME, {self},
        },
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::{StatusDescriptors, WorkerStatus},
    },
    process::{
        ApplicationTimers, SignalMask, Sigterm, environment,
        forks::{
            Descriptor, Inventory, {self},
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

/// Epoll data of a connection, and of the signal that asks this process to stop.
const CONNECTION_EVENT: u64 = 0;
const SIGTERM_EVENT: u64 = 1;

/// How long a gateway may take to send its request after it was greeted. It has it ready.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a gateway may take to end. It has nothing to do before.
const GATEWAY_EXIT_TIMEOUT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Serves one request, or one after the other in a resident pool, or none if it is asked to stop
/// before that. Returns the exit status of this process.
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
    // A group of its own, as with any CGI request, so that what it has started can be ended with
    // it.
    setpgid(None, None).map_err(io::Error::from)?;
    let log = Descriptor::made(|| fcntl_dupfd_cloexec(forks::log(), 3)).map_err(io::Error::from)?;
    forks::save_standard();
    while let Some(waiting) = &mut spare {
        let Some(taken) = py.detach(|| waiting.request()) else {
            break;
        };
        // In a process that ends with the request, what belongs to the pool ends before it.
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
            // Connection and lifeline are the kernel's to close, with the process.
            std::mem::forget(served);
            pages.iter().for_each(Pages::note);
            break;
        };
        kept.sigterm.listen_again(&state.mask)?;
        // Those that have come before call their handlers now. What these raise is the
        // application's.
        if let Err(error) = py.check_signals() {
            error.print(py);
        }
        if forks::has_lost() {
            break;
        }
        let was_told = served.end(&log, state, &tie)? || kept.sigterm.has_come();
        environment.iter().try_for_each(|kept| kept.restore(py))?;
        if was_told || !tie.has_template() || kept.fresh.watch_more(py, begun).is_err() {
            break;
        }
        watched.end_request(py, 0);
        count += 1;
        match limits.after(count) {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => watched.report_memory(0, resident),
            LimitAction::Exit(why) => {
                let sentence = format!("replacing worker {}: {why}", ourselves.as_raw_nonzero());
                Log::new("-", "(worker)")
                    .write(&LogMessage::notice(Code::WorkerReplaced, sentence));
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

/// What is left of a request that was served.
struct ServedRequest {
    connection: Descriptor,
    lifeline: Arc<Descriptor>,
    told: Arc<AtomicBool>,
}

impl ServedRequest {
    /// Leaves the request, in a process that stays. Has SIGTERM come meanwhile?
    fn end(self, log: &Descriptor, state: &LoadedState, tie: &TemplateLink) -> PyResult<bool> {
        leave_streams(log, state)?;
        // Where the response was never begun, the request was not released.
        tie.attach_if_template_lives()?;
        gateway_pipe::cancel_signal(&self.lifeline);
        // Whatever of the application holds it still: this is the end that the gateway waits for.
        let _ = shutdown(&self.connection, Shutdown::Both);
        Ok(self.told.load(Ordering::Relaxed))
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
    let told = Arc::new(AtomicBool::new(false));
    let heeds = SigtermSender::Gateway(told.clone(), theirs.clone_ref(py));
    let interruptible = interpreter::raise_on_sigterm(py, &reporter, heeds)?;
    process::unblock_signals(&state.mask);
    // From here on the request's life is the gateway's to watch, and no other process's. Where the
    // kernel or a sandbox refuses that, the process still ends with its template.
    if gateway_pipe::kill_when_closed(&lifeline).is_ok() {
        tie.detach()?;
    }
    lead_to(&errors, state)?;
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
            // The gateway watches no more, and `close()` is still to come.
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
        ..serving::setting(launch, service)
    };
    cold::serve(py, asked, setting, |_| Ok((application.clone(), None)))?;
    process::cancel();
    // A process that ends with its request takes its timers with it.
    if service.resident
        && let Some(message) = timers.after_request().or_else(|| timers.when_idle())
    {
        Log::new(&request.id, &request.line).write(&message);
    }
    // Its template watches it again, as before the request; if that is gone nobody does, and it
    // ends by itself.
    tie.attach_if_template_lives()?;
    if forks::take_unreported_loss() {
        // The gateway hears from the kernel that this process ends, and not why.
        let message = LogMessage::descriptors_lost("the gateway cannot hear of the response");
        Log::new(&request.id, &request.line).write(&message);
    }
    Ok(ServedRequest { connection, lifeline, told })
}

/// A descriptor of this process, readable when that has ended.
fn process_descriptor() -> io::Result<Descriptor> {
    if let Ok(process) = Descriptor::made(|| pidfd_open(getpid(), PidfdFlags::empty())) {
        return Ok(process);
    }
    // Before Linux 5.3, or where a filter forbids that: a socket whose other end this process alone
    // has, and the kernel closes.
    let (theirs, ours) = forks::pair(SocketType::STREAM)?;
    std::mem::forget(ours);
    Ok(theirs)
}

/// Waits until the gateway has ended. Apache's mod_cgid looks whether the program is gone as soon
/// as its response has ended, and lets the next request on a keep-alive connection wait for ten
/// milliseconds if it is not.
fn await_end(gateway: Pid, connection: &Descriptor) {
    match Descriptor::made(|| pidfd_open(gateway, PidfdFlags::empty())) {
        Ok(gateway) => {
            let _ = poll(&mut [PollFd::new(&gateway, PollFlags::IN)], Some(&GATEWAY_EXIT_TIMEOUT));
        }
        // It has gone already.
        Err(Errno::SRCH) => {}
        // Before Linux 5.3 there is only the end of its connection to be seen, which comes just
        // before.
        Err(_) => {
            let _ =
                poll(&mut [PollFd::new(connection, PollFlags::RDHUP)], Some(&GATEWAY_EXIT_TIMEOUT));
        }
    }
}

/// Makes the standard streams those of the pool again. What libraries in C hold back belongs to the
/// request.
fn leave_streams(log: &Descriptor, state: &LoadedState) -> io::Result<()> {
    end_lines();
    process::flush_c_streams();
    dup2_stdin(openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
    lead_to(log, state)
}

/// Makes standard output and standard error lead to `log`, unless loading has made them lead
/// elsewhere.
fn lead_to(log: impl AsFd, state: &LoadedState) -> io::Result<()> {
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

/// A process that waits for its request.
struct IdleWorker {
    listeners: Vec<Descriptor>,
    sigterm: Sigterm,
    /// Both of them, to be waited for. Of all processes that wait the kernel wakes one for a
    /// connection: the first that began to, which in a resident pool is the one that served last,
    /// as far as one is enough.
    events: Descriptor,
    process: Descriptor,
    fresh: SourceWatch,
    supervisor: Option<Pid>,
    /// All of these.
    inventory: Inventory,
    /// A request was served since the inventory was taken last.
    has_served: bool,
}

/// A request that nobody else will serve.
struct AcceptedRequest {
    connection: Descriptor,
    gateway: Pid,
    request: RequestMessage,
    process: ProcessState,
    descriptors: [Descriptor; WARM_DESCRIPTORS - 1],
}

impl IdleWorker {
    /// From here on SIGTERM is noted.
    fn new(
        listeners: Vec<Descriptor>,
        fresh: SourceWatch,
        (launch, mask): (&Launch, &SignalMask),
    ) -> io::Result<Self> {
        let events = Descriptor::made(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        for listener in &listeners {
            // A connection may be gone again.
            ioctl_fionbio(listener, true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&events, listener, epoll::EventData::new_u64(CONNECTION_EVENT), flags)?;
        }
        let process = process_descriptor()?;
        let (sigterm, supervisor) = (Sigterm::listen(mask)?, Pid::from_raw(launch.gateway_pid));
        epoll::add(
            &events,
            &sigterm,
            epoll::EventData::new_u64(SIGTERM_EVENT),
            epoll::EventFlags::IN,
        )?;
        let needed = listeners.iter().map(AsFd::as_fd).chain([
            events.as_fd(),
            process.as_fd(),
            sigterm.as_fd(),
        ]);
        let inventory = Inventory::of(needed);
        Ok(Self {
            listeners,
            sigterm,
            events,
            process,
            fresh,
            supervisor,
            inventory,
            has_served: false,
        })
    }

    /// Waits for a request; none if this process is to end.
    fn request(&mut self) -> Option<AcceptedRequest> {
        loop {
            let nothing = epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(CONNECTION_EVENT),
            };
            let mut events = [nothing; 2];
            let look = self
                .has_served
                .then_some(IDLE_CHECK_TIME)
                .and_then(|time| Timespec::try_from(time).ok());
            let came = match epoll::wait(&self.events, &mut events, look.as_ref()) {
                Ok(0) if self.has_served => {
                    if self.has_lost() {
                        return None;
                    }
                    continue;
                }
                Ok(came) => came,
                Err(Errno::INTR) => 0,
                // The application has closed it in an earlier request.
                Err(_) => return None,
            };
            if self.has_lost() {
                return None;
            }
            // Also if this process is to end: nobody else was woken for a connection that has come.
            for listener in &self.listeners {
                match Descriptor::made(|| accept_with(listener, SocketFlags::CLOEXEC)) {
                    Ok(connection) => {
                        if let Some(taken) = self.greet(connection) {
                            return Some(taken);
                        }
                    }
                    // Taken by another process, or gone again.
                    Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                    // The application has closed it in an earlier request, or has left no
                    // descriptor free: another process does better.
                    Err(_) => return None,
                }
            }
            // The pool ends with its socket.
            let is_end = |event: &epoll::Event| {
                let flags = event.flags;
                event.data.u64() == SIGTERM_EVENT || flags.contains(epoll::EventFlags::HUP)
            };
            if events[..came].iter().any(is_end) {
                return None;
            }
        }
    }

    /// Has the application closed what is needed for the next request, or put something in its
    /// place? The log says so.
    fn has_lost(&mut self) -> bool {
        if !std::mem::take(&mut self.has_served) || self.inventory.lost().is_empty() {
            return false;
        }
        let which = "this process cannot serve any more, and another takes its place";
        Log::new("-", "(worker)").write(&LogMessage::descriptors_lost(which));
        true
    }

    /// Offers to serve whoever has connected. Nothing comes of it if that one is another user, has
    /// gone, or finds the code stale.
    fn greet(&self, connection: Descriptor) -> Option<AcceptedRequest> {
        let gateway = sockopt::socket_peercred(&connection).ok()?;
        if gateway.uid != geteuid() {
            return None;
        }
        let stale = self.fresh.is_stale();
        let pid = getpid().as_raw_nonzero().get();
        let greeting = message::encode(&Greeting { pid, stale }).ok()?;
        descriptors::send(&connection, &greeting, &[self.process.as_fd()]).ok()?;
        if stale {
            self.fresh.request_reload(self.supervisor);
            return None;
        }
        let mut watched = [PollFd::new(&connection, PollFlags::IN)];
        let patience = Timespec::try_from(HANDOFF_TIMEOUT).ok()?;
        while let Err(Errno::INTR) = poll(&mut watched, Some(&patience)) {}
        let descriptors = forks::without_forks(|| {
            let mut packet = [0; MAX_GREETING_BYTES];
            let received = descriptors::receive(&connection, &mut packet)?;
            let RequestFollows =
                message::decode(&packet[..received.length]).map_err(io::Error::other)?;
            let descriptors = received.descriptors.into_iter().map(Descriptor::from);
            Ok::<_, io::Error>(descriptors.collect::<Vec<_>>())
        });
        let [body, response, errors, file, lifeline] =
            <[Descriptor; WARM_DESCRIPTORS]>::try_from(descriptors.ok()?).ok()?;
        let mut request: RequestMessage = message::decode(&message::read_file(&file).ok()?).ok()?;
        let process = request.process.take()?;
        Some(AcceptedRequest {
            connection,
            gateway: gateway.pid,
            request,
            process,
            descriptors: [body, response, errors, lifeline],
        })
    }
}
