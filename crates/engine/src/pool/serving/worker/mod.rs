//! A worker process, whose threads wait for events, and accept, serve and close connections.
//!
//! All threads wait on the same epoll set. The thread that wakes up accepts, reads, runs the
//! application and writes. No request moves between threads, and an idle connection occupies no
//! thread.

mod serve;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::io::Errno;
use wire::launch::{Launch, Service};

use crate::{
    loading::staleness::modules::{self, ModuleWatch},
    log::{self, Log, rate_limit},
    pool::{
        serving::{
            Sockets,
            connection_queue::QueueThread,
            connections::Connections,
            event_loop::{Event, EventLoop},
            listeners::Listeners,
            requests::{Caller, Requests},
            worker_threads::WorkerThreads,
        },
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::WorkerStatus,
    },
    process::forks::{self, Inventory},
    transport::Connection,
    wsgi::Refusal,
};

/// Idle time after a request before a worker checks that events can still wake it.
pub(crate) const IDLE_CHECK_TIME: Duration = Duration::from_secs(1);

/// How long a thread waits for the web server's close after the last response, before the wait
/// moves to epoll.
const CLOSE_TIME: Duration = Duration::from_millis(20);

/// A thread of a worker.
struct ServingThread<'a, 'py, C: Connection> {
    caller: Caller<'a, 'py>,
    /// Buffers of closed connections.
    buffers: Vec<C::Buffers>,
    /// Events that were fetched with the current one, in reverse order.
    fetched: Vec<Event>,
    /// Connections that the web server is about to close after their last response.
    closing: Vec<(u64, C)>,
}

/// A worker process.
pub(super) struct Worker<C: Connection> {
    service: Service,
    events: Arc<EventLoop>,
    listeners: Listeners,
    settings: C::Settings,
    connections: Arc<Connections<C>>,
    /// Passes connections to other workers, if other workers are possible.
    queue: Option<Arc<QueueThread<C>>>,
    requests: Requests,
    limits: WorkerLimits,
    status: Arc<WorkerStatus>,
    threads: WorkerThreads,
    /// The modules of this process, if changed files cause a reload.
    modules: Option<ModuleWatch>,
    /// The file descriptors that this process needs.
    inventory: Inventory,
    /// This worker cannot accept connections any more.
    has_failed: AtomicBool,
}

impl<C: Connection> Worker<C> {
    /// A worker that listens on `sockets`. With `failure`, the application could not be loaded.
    pub(super) fn new(
        launch: &Launch,
        service: &Service,
        sockets: Sockets,
        status: Arc<WorkerStatus>,
        failure: Option<Refusal>,
        modules: Option<ModuleWatch>,
    ) -> std::io::Result<Self> {
        let Sockets { listeners, queue } = sockets;
        let events = Arc::new(EventLoop::new(listeners.len(), service.threads)?);
        let settings = C::settings(service, &listeners, queue.is_some());
        let listeners = Listeners::new(&events, listeners, launch)?;
        let connections = Arc::new(Connections::new(&events, service));
        let queue = queue
            .map(|queue| QueueThread::new(queue, &events, &connections, service))
            .transpose()?;
        let needed = listeners.descriptors().chain(events.descriptors());
        let needed = needed.chain(queue.iter().flat_map(|queue| queue.descriptors()));
        Ok(Self {
            inventory: Inventory::of(needed),
            requests: Requests::new(launch, service, &status, failure),
            limits: WorkerLimits::new(service)?,
            threads: WorkerThreads::new(&status, service),
            service: service.clone(),
            events,
            listeners,
            settings,
            connections,
            queue,
            status,
            modules,
            has_failed: AtomicBool::new(false),
        })
    }

    /// Has this worker lost the ability to accept connections?
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// A log message if loading the application has left a timer running.
    pub(super) fn timer_after_loading(&self) -> Option<LogMessage> {
        self.requests.timer_after_loading()
    }

    /// Starts the threads that are missing, if it is time.
    pub(super) fn start_missing(self: &Arc<Self>, application: &Bound<'_, PyAny>) {
        if !self.threads.are_missing() || self.events.is_draining() {
            return;
        }
        let (worker, application_of_threads) =
            (self.clone(), Arc::new(application.clone().unbind()));
        self.threads.start_missing(application.py(), move |py, thread| {
            worker.run_thread(application_of_threads.bind(py), thread);
        });
    }

    /// Waits until all other threads have ended.
    pub(super) fn end_threads(&self, py: Python<'_>) {
        self.threads.end(py);
        self.queue.iter().for_each(|queue| queue.end());
    }

    /// Serves connections in this thread until the worker is asked to stop.
    pub(super) fn run_thread(self: &Arc<Self>, application: &Bound<'_, PyAny>, thread: u32) {
        let py = application.py();
        forks::name_serving_thread(thread);
        let caller = match Caller::new(application, thread, self.requests.setting()) {
            Ok(caller) => caller,
            Err(error) => return error.print(py),
        };
        let thread = &mut ServingThread {
            caller,
            buffers: Vec::new(),
            fetched: Vec::new(),
            closing: Vec::new(),
        };
        // The kernel may have woken this thread for a connection.
        let mut may_be_woken = false;
        while !self.events.is_draining() {
            let next = match thread.fetched.pop() {
                Some(event) => Ok(Some(event)),
                // A thread that was busy does not begin to wait: it would be woken for a connection
                // that the new code of a reload is to serve.
                None if !may_be_woken && self.events.is_asked_to_stop() => break,
                None => {
                    may_be_woken = true;
                    let has_closing = !thread.closing.is_empty();
                    py.detach(|| self.next_event(&mut thread.fetched, has_closing))
                }
            };
            self.check_closing(thread, !matches!(next, Ok(Some(_))));
            self.start_missing(application);
            rate_limit::write_due_counts();
            self.connections.close_overdue();
            match next {
                // Another thread may have served the last request meanwhile.
                Ok(Some(event)) if event == Event::Stop || self.events.is_draining() => {
                    thread.fetched.push(event);
                    break;
                }
                Ok(Some(event)) => {
                    self.on_event(thread, event);
                    may_be_woken = false;
                }
                Ok(None) => self.on_idle(&thread.caller),
                Err(error) => {
                    self.give_up(&format!(
                        "the application has closed or replaced the epoll descriptor ({error})"
                    ));
                    break;
                }
            }
            if self.modules.as_ref().is_some_and(|modules| modules.look(py)) {
                self.events.stop();
            }
        }
        self.drain(thread, may_be_woken);
    }

    /// The next event; `None` when a check is due.
    fn next_event(
        &self,
        fetched: &mut Vec<Event>,
        has_closing: bool,
    ) -> Result<Option<Event>, Errno> {
        let (connections, has_deadline) = self.connections.timeout();
        let timeout = [
            self.limits.left(),
            connections,
            has_closing.then_some(CLOSE_TIME),
            self.modules.as_ref().map(|_| modules::CHECK_INTERVAL),
            self.threads.timeout(),
            self.listeners.timeout(),
            self.requests.is_used().then_some(IDLE_CHECK_TIME),
        ];
        let timeout = timeout.into_iter().flatten().min();
        self.queue.iter().for_each(|queue| queue.note_idle());
        let next = self.events.wait(fetched, timeout, has_deadline);
        self.queue.iter().for_each(|queue| queue.note_busy(next.ok().flatten()));
        // A thread that is about to serve a request may be away for long, and others of this
        // process wait for connections.
        if self.listeners.listen_if_due(self.service.threads > 1).is_err() {
            self.events.stop();
        }
        next
    }

    fn on_event(&self, thread: &mut ServingThread<'_, '_, C>, event: Event) {
        match event {
            Event::Stop => self.events.stop(),
            Event::ReopenLogs => log::reopen_rotated(),
            Event::Queue => self.adopt(thread),
            Event::Listener(position) => self.accept(thread, position),
            Event::Connection(token) => {
                if let Some(connection) = self.connections.take(token) {
                    self.go_on(thread, token, connection, true);
                }
            }
        }
    }

    /// Runs the periodic checks. A signal may have ended the wait, too.
    fn on_idle(&self, caller: &Caller<'_, '_>) {
        self.check_descriptors();
        self.connections.close_lingering();
        self.apply(caller.thread(), self.limits.now());
        // Signal handlers of the application run here, and their exceptions concern the
        // application.
        let (py, log) = (caller.py(), Log::without_request("worker"));
        if let Err(error) = crate::wsgi::end_if_child(py, &log, py.check_signals()) {
            error.print(py);
        }
    }

    /// When the worker is idle after a request, checks whether the application has closed the file
    /// descriptors that wake this process. The kernel does not report that, and the worker would
    /// sleep forever.
    fn check_descriptors(&self) {
        if !self.requests.take_idle() {
            return;
        }
        let lost = self.inventory.lost();
        if lost.is_empty() || forks::is_child() {
            return;
        }
        let numbers: Vec<_> = lost.iter().map(|number| format!("`{number}`")).collect();
        let numbers = numbers.join(", ");
        self.give_up(&format!(
            "the application has closed or replaced file descriptors of wsgate: {numbers}"
        ));
    }

    /// Acts on the worker's limits of age, memory and requests.
    fn apply(&self, thread: u32, action: LimitAction) {
        match action {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => self.status.report_memory(thread, resident),
            LimitAction::Exit(_) if self.events.is_draining() => {}
            LimitAction::Exit(reason) => {
                if self.requests.has_application() {
                    let sentence = format!("replacing worker {}: {reason}", std::process::id());
                    Log::without_request("worker")
                        .write(&LogMessage::new(Code::WorkerReplaced, sentence));
                }
                self.events.stop();
            }
        }
    }

    /// Stops this worker, which web servers can no longer reach, so that another worker replaces
    /// it.
    fn give_up(&self, reason: &str) {
        if !self.events.is_draining() && !self.has_failed.swap(true, Ordering::Relaxed) {
            let pid = std::process::id();
            let sentence = format!("worker {pid} cannot accept connections and exits: {reason}");
            let message = LogMessage::new(Code::CannotAccept, sentence).hint(
                "look for `os.closerange`, `os.dup2` and RLIMIT_NOFILE, and for files that are not \
                 closed",
            );
            Log::without_request("worker").write(&message);
        }
        self.events.stop();
    }
}
