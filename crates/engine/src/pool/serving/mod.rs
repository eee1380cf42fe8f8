//! The serve loop of a FastCGI worker: leader and follower on one epoll set.
//!
//! Every thread waits on the same set; the one that wakes accepts, reads, runs the application and
//! writes. Nothing is handed from thread to thread, and an idle connection costs none of them. With
//! one thread there is but one in the process, until a connection that is kept could have to wait:
//! then `handover` has another, without Python, which gives such connections to other workers.

pub(crate) mod connection_limits;
pub(crate) mod connection_queue;
pub(crate) mod connections;
pub(crate) mod lingering_close;
pub(crate) mod requests;
pub(crate) mod worker_threads;

use std::{
    collections::BTreeMap,
    ffi::c_long,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use diagnostics::{
    message::{Code, LogMessage},
    request_id::Ids,
};
use fastcgi_server::{Limits, addresses::Addresses};
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::{
    event::{Timespec, epoll},
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, getsockname, send},
    process::Signal,
};
use wire::{
    launch::{Launch, Service, Work},
    running_clock,
    scoreboard::now,
};

use crate::{
    loading::{
        application::{
            Failure, {self},
        },
        staleness::{
            executed,
            modules::{
                Modules, {self},
            },
        },
    },
    log::{Log, files, rate_limit},
    pool::{
        serving::{
            connection_limits::ConnectionLimits, connection_queue::QueueThread,
            lingering_close::LingeringConnections, worker_threads::WorkerThreads,
        },
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::{StatusDescriptors, WorkerStatus},
    },
    process::{
        Mask, Timers,
        forks::{
            Descriptor, Inventory, {self},
        },
        {self},
    },
    run::Sockets,
    transport::{
        cgi::StandardError,
        fastcgi::{Buffers, FastCgiConnection},
    },
    wsgi::{Remembered, Server, Setting},
};

/// For how many milliseconds, or one fewer, a worker that has just kept a connection leaves others
/// to the rest.
const A_MOMENT: u64 = 2;

/// How long a worker has nothing to do after a request before it looks whether it can still be
/// woken.
pub(crate) const TO_TAKE_INVENTORY: Duration = Duration::from_secs(1);

/// Most events that a worker's only thread fetches at a time.
const FETCHED: usize = 8;

/// Epoll data of what is no connection; connections count on from there.
const STOP: u64 = 0;
const FIRST_LISTENER: u64 = 1;
/// Never reached by counting.
const REOPEN_LOGS: u64 = u64::MAX;
const HANDOVER: u64 = u64::MAX - 1;

/// What is true of every request of the pool.
pub(crate) fn setting(launch: &Launch, service: &Service) -> Setting {
    Setting {
        multithread: service.threads > 1,
        // How many processes a manager of another make starts is not known here.
        multiprocess: service.workers > 1 || matches!(launch.work, Work::Worker(_)),
        run_once: false,
        debug: launch.debug,
        timeout_seconds: launch.timeout_seconds,
        socket_timeout_seconds: service.socket_timeout_seconds,
        is_cgi: service.warm,
        script_name: launch.script_name.as_deref().map(Into::into),
    }
}

/// Loads the application and serves it in this process. If it cannot be loaded, one request is
/// answered with the error page, so that the process manager's next process tries again. Returns
/// the exit status.
pub(crate) fn run_alone(
    py: Python<'_>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    status: StatusDescriptors,
) -> PyResult<i32> {
    // Before loading: what changes from now on is noticed.
    let modules = Modules::of_lone_worker(launch, service);
    if service.reload {
        executed::take_note(py)?;
    }
    match application::load_for_pool(py, launch, &setting(launch, service)) {
        Ok(loaded) => run(
            py,
            &loaded.application,
            launch,
            service,
            sockets,
            (status, 0),
            (&Mask::now(), modules),
        ),
        Err(failure) => {
            let once = Service { max_requests: 1, threads: 1, ..service.clone() };
            let worker = Worker {
                unfit: Some(failure),
                ..Worker::new(launch, &once, sockets, WorkerStatus::new(status, 0, 1, 0)?)?
            };
            process::unblock_signals(&Mask::none());
            Arc::new(worker).run_thread(&py.None().into_bound(py), 0);
            Ok(0)
        }
    }
}

/// Serves `application` until this process is asked to stop, or has served as many requests as it
/// may. Returns the exit status.
pub(crate) fn run(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    (status, slot): (StatusDescriptors, u32),
    (mask, modules): (&Mask, Option<Modules>),
) -> PyResult<i32> {
    let watched = WorkerStatus::new(status, slot, service.threads, launch.timeout_seconds)?;
    watched.listen(py)?;
    let worker = Worker { modules, ..Worker::new(launch, service, sockets, watched)? };
    let needed = worker.listeners.iter().map(|listener| listener.socket.as_fd());
    let needed = needed.chain([worker.epoll.as_fd(), worker._stop.as_fd(), worker.stopper.as_fd()]);
    let inventory =
        Inventory::of(needed.chain(worker.queue.iter().flat_map(|queue| queue.descriptors())));
    let worker = Arc::new(Worker { inventory, ..worker });
    if let Some(entry) = worker.timers.after_loading() {
        Log::new(&launch.request_id, &launch.request).entry(&entry);
    }
    forks::keep_standard();
    if worker.watched.is_alone() {
        let sentence =
            format!("worker {} was asked to stop, and its request goes on", std::process::id());
        let entry = LogMessage::warning(Code::StillRuns, sentence).hint(
            "the stacks of its threads follow, the innermost call first; it has `--drain` seconds",
        );
        process::end_soon_after_signal(
            limit_of_drain(service),
            Log::new("-", "(worker)").text(&entry),
        );
    }
    let signal = py.import("_signal")?;
    let found = signal.call_method1("getsignal", (Signal::INT.as_raw(),))?;
    if found.is(&signal.getattr("default_int_handler")?) {
        // A terminal's interrupt is for the supervisor, which tells us. Not ignored: programs that
        // are started would inherit that.
        let nothing = PyCFunction::new_closure(
            py,
            Some(c"nothing"),
            None,
            |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {},
        )?;
        forks::handle(py, Signal::INT.as_raw(), &nothing)?;
    }
    process::unblock_signals(&mask.of_worker());
    worker.start_missing(application);
    worker.run_thread(application, 0);
    worker.end_threads(py);
    rate_limit::tell_all();
    // Its own words may not have reached the log: an application that closes one descriptor closes
    // others, too.
    Ok(i32::from(worker.failed.load(Ordering::Relaxed)))
}

/// How long a worker without a supervisor may go on when it is asked to stop.
fn limit_of_drain(service: &Service) -> process::Limit {
    let seconds = service.drain_seconds.max(1);
    let sentence = format!(
        "worker {} was asked to stop and still runs after {seconds} s; it is ended",
        std::process::id()
    );
    let entry = LogMessage::error(Code::DrainTimedOut, sentence).hint(
        "the stacks follow; its request waits in the application or in C code, or a thread does \
         not end",
    );
    let message = Log::new("-", "(worker)").text(&entry);
    process::Limit { time: Duration::from_secs(seconds), message, counts_threads: true }
}

/// One thread of a worker, and what it serves with.
struct ServingThread<'a, 'py> {
    thread: u32,
    /// Python's name of the thread, if that is not the main thread.
    python_thread: Option<c_long>,
    application: &'a Bound<'py, PyAny>,
    server: Server,
    remembered: Remembered,
    /// Of connections that are over.
    buffers: Vec<Buffers>,
    /// Events that have come together with the one that is dealt with; the last comes next.
    fetched: Vec<u64>,
    /// Connections whose last response is whole, which the web server is about to close.
    leaving: Vec<(u64, FastCgiConnection)>,
}

/// A socket that web servers connect to.
struct ListeningSocket {
    socket: Descriptor,
    /// Its connections can be told not to wait for more before they send (`TCP_NODELAY`).
    is_tcp: bool,
}

impl ListeningSocket {
    fn new(socket: Descriptor) -> Self {
        let is_tcp = getsockname(&socket)
            .is_ok_and(|address| address.address_family() != AddressFamily::UNIX);
        Self { socket, is_tcp }
    }
}

/// One worker process.
struct Worker {
    epoll: Arc<Descriptor>,
    listeners: Vec<ListeningSocket>,
    /// Readable when the worker is to end, and never read: every thread is to see it.
    _stop: Arc<Descriptor>,
    stopper: Descriptor,
    draining: AtomicBool,
    /// Connections cannot be waited for any more.
    failed: AtomicBool,
    /// What this process needs to be woken and to serve.
    inventory: Inventory,
    /// A request was served since the inventory was taken last.
    has_served: AtomicBool,
    /// How many requests are being served.
    serving: AtomicU32,
    timers: Timers,
    /// Connections that wait for more, by their epoll data, which is the order in which they came.
    waiting: Arc<Mutex<BTreeMap<u64, FastCgiConnection>>>,
    /// Gives them to other workers, if there may be any.
    queue: Option<Arc<QueueThread>>,
    /// Connections that are only drained, by their epoll data.
    lingering: LingeringConnections,
    /// No descriptor has been free since then, in milliseconds of the monotonic clock; 0 if one
    /// was.
    cramped_since: AtomicU64,
    /// It does not listen until then, in milliseconds of the monotonic clock; 0 if it does.
    stands_back: AtomicU64,
    next: AtomicU64,
    served: AtomicU64,
    worker_limits: WorkerLimits,
    service: Service,
    setting: Setting,
    debug: bool,
    limits: Limits,
    waits: ConnectionLimits,
    allowed: Option<Addresses>,
    /// mod_fcgid has started this process.
    is_of_fcgid: bool,
    watched: Arc<WorkerStatus>,
    threads: WorkerThreads,
    ids: Ids,
    /// Why there is no application to be served.
    unfit: Option<Failure>,
    /// The modules of this process, if somebody wants to know when they change.
    modules: Option<Modules>,
}

impl Worker {
    fn new(
        launch: &Launch,
        service: &Service,
        sockets: Sockets,
        watched: Arc<WorkerStatus>,
    ) -> io::Result<Self> {
        let Sockets { listeners, handover } = sockets;
        let epoll = Arc::new(Descriptor::made(|| epoll::create(epoll::CreateFlags::CLOEXEC))?);
        let (stop, stopper) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], stopper.try_clone()?, true)?;
        let stop = Arc::new(stop);
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        if let Some(bell) = files::bell() {
            // Nobody reads it: each ring is an edge for every worker.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, bell, epoll::EventData::new_u64(REOPEN_LOGS), flags)?;
        }
        for (position, listener) in listeners.iter().enumerate() {
            // Another worker may have taken the connection that woke us.
            ioctl_fionbio(listener, true)?;
            crate::pool::serving::connections::watch_listener(&epoll, position, listener)?;
        }
        let is_of_fcgid = handover.is_none() && listeners.iter().any(is_socket_of_fcgid);
        let waiting = Arc::<Mutex<_>>::default();
        let queue = handover
            .map(|handover| QueueThread::new(handover, &epoll, &waiting, &stop, service.threads))
            .transpose()?;
        let threads = WorkerThreads::new(&watched, service);
        let conns = service.workers.max(1).saturating_mul(service.threads.max(1));
        Ok(Self {
            epoll,
            next: AtomicU64::new(first_connection(listeners.len())),
            listeners: listeners.into_iter().map(ListeningSocket::new).collect(),
            _stop: stop,
            stopper,
            draining: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            inventory: Inventory::default(),
            has_served: AtomicBool::new(false),
            serving: AtomicU32::new(0),
            timers: Timers::default(),
            waiting,
            queue,
            lingering: LingeringConnections::default(),
            cramped_since: AtomicU64::new(0),
            stands_back: AtomicU64::new(0),
            served: AtomicU64::new(0),
            worker_limits: WorkerLimits::new(service)?,
            service: service.clone(),
            setting: setting(launch, service),
            debug: launch.debug,
            limits: Limits { max_reqs: Some(conns), ..Limits::default() },
            waits: ConnectionLimits::new(service),
            allowed: allowed_addresses(launch),
            is_of_fcgid,
            watched,
            threads,
            ids: Ids::new(),
            unfit: None,
            modules: None,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, FastCgiConnection>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// ConnectionLimits for connections and serves them, until the worker is to end.
    fn run_thread(self: &Arc<Self>, application: &Bound<'_, PyAny>, thread: u32) {
        let py = application.py();
        let server = match Server::new(py, self.setting.clone(), Arc::new(StandardError)) {
            Ok(server) => server,
            Err(error) => return error.print(py),
        };
        let python_thread = if thread == 0 {
            None
        } else {
            crate::pool::serving::worker_threads::python_thread(py)
        };
        let (remembered, buffers, fetched) = (Remembered::default(), Vec::new(), Vec::new());
        let seat = &mut ServingThread {
            thread,
            python_thread,
            application,
            server,
            remembered,
            buffers,
            fetched,
            leaving: Vec::new(),
        };
        while !self.is_draining() {
            let next = match seat.fetched.pop() {
                Some(data) => Ok(Some(data)),
                None => {
                    let leaves = !seat.leaving.is_empty();
                    py.detach(|| self.next_event(&mut seat.fetched, leaves))
                }
            };
            self.look_after_leaving(seat, !matches!(next, Ok(Some(_))));
            if self.threads.are_missing() {
                self.start_missing(application);
            }
            rate_limit::tell_left_out();
            self.close_overdue();
            match next {
                Ok(Some(STOP)) => break,
                // Another thread has served the last request meanwhile.
                Ok(Some(_)) if self.is_draining() => break,
                Ok(Some(REOPEN_LOGS)) => files::look(),
                Ok(Some(HANDOVER)) => self.adopt(seat),
                Ok(Some(data)) => {
                    match self
                        .listeners
                        .get(usize::try_from(data - FIRST_LISTENER).unwrap_or(usize::MAX))
                    {
                        Some(listener) => self.accept(seat, listener),
                        None => {
                            let peer = self.waiting().remove(&data);
                            let peer = peer.or_else(|| self.lingering.remove(data));
                            if let Some(peer) = peer {
                                self.drive(seat, data, peer, true);
                            }
                        }
                    }
                }
                Ok(None) => {
                    self.take_inventory();
                    self.lingering.sweep(&self.epoll);
                    self.go_on(seat.thread, self.worker_limits.now());
                    // A signal may have ended the wait. Handlers of the application's run here, and
                    // what they raise is theirs.
                    let log = Log::new("-", "(worker)");
                    if let Err(error) = forks::end_if_child(py, &log, py.check_signals()) {
                        error.print(py);
                    }
                }
                Err(error) => {
                    self.give_up(&format!(
                        "the application has closed or replaced the descriptor it waits on \
                         ({error})"
                    ));
                    break;
                }
            }
            if self.modules.as_ref().is_some_and(|modules| modules.look(py)) {
                self.end();
            }
        }
        self.drain(seat);
    }

    /// The data of the next event, or nothing if it is time to look after connections that linger,
    /// or soon if one `leaves`. What has come together with it is put into `fetched`.
    fn next_event(&self, fetched: &mut Vec<u64>, leaves: bool) -> io::Result<Option<u64>> {
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(STOP),
        };
        let mut events = [nothing; FETCHED];
        // What one of several threads has fetched no other can get.
        let most = if self.service.threads > 1 { 1 } else { FETCHED };
        let looks = self.modules.as_ref().map(|_| modules::PERIOD);
        let stands_back = self.stands_back.load(Ordering::Acquire);
        let due = self.waits.left();
        let patience = self
            .worker_limits
            .left()
            .into_iter()
            .chain(
                (!self.lingering.is_empty()).then_some(crate::pool::serving::lingering_close::LOOK),
            )
            .chain(leaves.then_some(crate::pool::serving::lingering_close::TO_LEAVE))
            .chain(looks)
            .chain(self.threads.next_try())
            .chain(due)
            .chain((stands_back > 0).then_some(Duration::from_millis(A_MOMENT)))
            .chain(self.has_served.load(Ordering::Relaxed).then_some(TO_TAKE_INVENTORY))
            .min();
        self.queue.iter().for_each(|queue| queue.waits());
        let mut wait = |patience: Option<Duration>| {
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            epoll::wait(&self.epoll, &mut events[..most], patience.as_ref())
        };
        // Time that counts for these is time in which this process was running.
        let has_deadline = due.is_some() || !self.lingering.is_empty();
        let waited =
            if has_deadline { running_clock::wait(patience, wait) } else { wait(patience) };
        self.queue.iter().for_each(|queue| queue.works(events[0].data.u64()));
        // A thread that is about to serve a request may be away for long, and others of this
        // process wait for connections.
        if stands_back > 0 && (self.service.threads > 1 || now() >= stands_back) {
            self.listen_again();
        }
        match waited {
            Ok(1) => Ok(Some(events[0].data.u64())),
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(count) => {
                fetched.extend(events[..count].iter().rev().map(|event| event.data.u64()));
                // The end first. LimitAction new connections, for which the kernel has woken nobody else:
                // those that wait already go to other workers if they would have to wait for long.
                fetched.sort_by_key(|data| {
                    (
                        *data == STOP,
                        (FIRST_LISTENER..first_connection(self.listeners.len())).contains(data),
                    )
                });
                Ok(fetched.pop())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks, when there is nothing to do after a request, whether the application has closed what
    /// this process is woken by: the kernel says nothing of it, and the worker would sleep for
    /// ever.
    fn take_inventory(&self) {
        if !self.has_served.swap(false, Ordering::Relaxed) {
            return;
        }
        if self.serving.load(Ordering::Relaxed) == 0
            && let Some(entry) = self.timers.when_idle()
        {
            Log::new("-", "(worker)").entry(&entry);
        }
        let lost = self.inventory.lost();
        if lost.is_empty() || forks::is_child() {
            return;
        }
        let numbers =
            lost.iter().map(|number| format!("`{number}`")).collect::<Vec<_>>().join(", ");
        self.give_up(&format!(
            "the application has closed or replaced file descriptors of wsgate's: {numbers}"
        ));
    }

    /// Does what follows from the worker's age, memory and requests.
    fn go_on(&self, thread: u32, then: LimitAction) {
        match then {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => self.watched.tell_memory(thread, resident),
            LimitAction::Exit(_) if self.is_draining() => {}
            LimitAction::Exit(why) => {
                if self.unfit.is_none() {
                    let sentence =
                        format!("worker {} makes way for another: {why}", std::process::id());
                    Log::new("-", "(worker)")
                        .entry(&LogMessage::notice(Code::WorkerReplaced, sentence));
                }
                self.end();
            }
        }
    }

    /// Lets every thread come to its end.
    fn end(&self) {
        self.draining.store(true, Ordering::Release);
        // The other end is never read, and has room for a byte.
        let _ = send(&self.stopper, b"x", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// Has mod_fcgid made this listening socket? It calls each by the number of its process and one
/// more, with a dot between them.
fn is_socket_of_fcgid(listener: &Descriptor) -> bool {
    let address = getsockname(listener).and_then(SocketAddrUnix::try_from);
    let path = address
        .ok()
        .and_then(|address| address.path_bytes().map(<[u8]>::to_vec))
        .unwrap_or_default();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut numbers = name.split(|&byte| byte == b'.');
    let mut is_number =
        || numbers.next().is_some_and(|it| !it.is_empty() && it.iter().all(u8::is_ascii_digit));
    is_number() && is_number() && numbers.next().is_none()
}

/// Epoll data of the first connection of a worker with so many listeners.
fn first_connection(listeners: usize) -> u64 {
    FIRST_LISTENER + listeners as u64
}

/// The peers that may connect (FastCGI 1.0, 2.3). A list that cannot be read lets nobody in, and
/// the log says so.
fn allowed_addresses(launch: &Launch) -> Option<Addresses> {
    let list = std::env::var_os(Addresses::VARIABLE)?;
    match Addresses::parse(&list.to_string_lossy()) {
        Ok(addresses) => Some(addresses),
        Err(error) => {
            Log::new(&launch.request_id, &launch.request).entry(
                &LogMessage::error(
                    Code::BadSetting,
                    format!("FCGI_WEB_SERVER_ADDRS holds `{}`, which is no address", error.item),
                )
                .hint(
                    "nobody can connect until it is a list of addresses with commas between them",
                ),
            );
            Addresses::parse("0.0.0.0").ok()
        }
    }
}
