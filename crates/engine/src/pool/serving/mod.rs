//! The serve loop of a pool's worker.
//!
//! - `worker` accepts, serves and closes connections on events of `event_loop`.
//! - `listeners`, `connections` and `requests` own the state that their names say.
//! - `connection_queue` passes connections of a busy worker to others.
//! - `worker_threads` starts the threads beside the main thread. With `--threads 1`, the process
//!   has one thread until a request on a keep-alive connection might have to wait.

mod connection_limits;
mod connection_queue;
mod connections;
mod event_loop;
mod lingering_connections;
mod listeners;
mod request_start;
mod requests;
mod worker;
mod worker_threads;

use std::{sync::Arc, time::Duration};

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::Signal;
use wire::{
    connection_queue::ConnectionQueue,
    launch::{Launch, Service},
};

pub(crate) use crate::pool::serving::{requests::setting, worker::IDLE_CHECK_TIME};
use crate::{
    loading::{
        application,
        staleness::{executed, modules::ModuleWatch},
    },
    log::{Log, rate_limit},
    pool::{
        serving::worker::Worker,
        worker_status::{RequestTimeouts, StatusDescriptors, WorkerStatus},
    },
    process::{
        self, SignalMask,
        forks::{self, Descriptor},
    },
    transport::fastcgi::FastCgiConnection,
};

/// The protocol of the connections of pools.
type PoolConnection = FastCgiConnection;

/// The sources of a pool's connections.
pub(crate) struct Sockets {
    /// The listening sockets.
    pub(crate) listeners: Vec<Descriptor>,
    /// The queue of connections from other workers, if other workers are possible.
    pub(crate) queue: Option<ConnectionQueue<Descriptor>>,
}

/// Loads the application and serves it in this process. If loading fails, this process sends an
/// error page to one request and exits, so that the process manager starts another process. Returns
/// the exit status.
pub(crate) fn run_alone(
    py: Python<'_>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    status: StatusDescriptors,
) -> PyResult<i32> {
    // Recorded before loading, so that later changes are noticed.
    let modules = ModuleWatch::of_lone_worker(launch, service);
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
            (&SignalMask::now(), modules),
        ),
        Err(failure) => {
            let once = Service { max_requests: 1, threads: 1, ..service.clone() };
            let status = WorkerStatus::new(status, 0, 1, RequestTimeouts::default())?;
            let worker =
                Worker::<PoolConnection>::new(launch, &once, sockets, status, Some(failure), None)?;
            process::unblock_signals(&SignalMask::none());
            Arc::new(worker).run_thread(&py.None().into_bound(py), 0);
            Ok(0)
        }
    }
}

/// Serves `application` until this process is asked to stop, or reaches a limit. Returns the exit
/// status.
pub(crate) fn run(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    (status, block): (StatusDescriptors, u32),
    (mask, modules): (&SignalMask, Option<ModuleWatch>),
) -> PyResult<i32> {
    let timeouts = RequestTimeouts {
        seconds: launch.request.timeout_seconds,
        by_path: service.path_timeouts.clone(),
    };
    let status = WorkerStatus::new(status, block, service.threads, timeouts)?;
    status.install_handlers(py)?;
    let is_alone = status.is_alone();
    let worker = Worker::<PoolConnection>::new(launch, service, sockets, status, None, modules)?;
    let worker = Arc::new(worker);
    if let Some(message) = worker.timer_after_loading() {
        Log::new(&launch.request.id, &launch.request.line).write(&message);
    }
    forks::save_standard();
    if is_alone {
        end_soon_after_signal(service);
    }
    ignore_keyboard_interrupt(py)?;
    process::unblock_signals(&mask.of_worker());
    worker.start_missing(application);
    worker.run_thread(application, 0);
    worker.end_threads(py);
    rate_limit::write_all_counts();
    // The reason may be missing in the log: an application that closes one file descriptor closes
    // others, too.
    Ok(i32::from(worker.has_failed()))
}

/// Limits the time that a worker without a supervisor may take to exit after SIGTERM.
fn end_soon_after_signal(service: &Service) {
    let (pid, seconds) = (std::process::id(), service.drain_seconds.max(1));
    let log = Log::without_request("worker");
    let running = LogMessage::new(
        Code::StillRuns,
        format!("worker {pid} was asked to stop, and its request still runs"),
    )
    .hint(
        "the stacks of its threads follow, the innermost call first; `--drain` is the time that is \
         left",
    );
    let late = LogMessage::new(
        Code::DrainTimedOut,
        format!("worker {pid} was asked to stop and still runs after {seconds} s; it is killed"),
    )
    .hint(
        "the stacks follow; a request waits in the application or in C code, or a thread does not \
         end",
    );
    let limit = process::ExitLimit {
        time: Duration::from_secs(seconds),
        message: log.text(&late),
        counts_threads: true,
    };
    process::end_soon_after_signal(limit, log.text(&running));
}

/// Ignores SIGINT if its handler is Python's default. An interrupt from a terminal is for the
/// supervisor, which stops its workers. The signal itself is not ignored: programs that the
/// application starts would inherit that.
fn ignore_keyboard_interrupt(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("_signal")?;
    let handler = signal.call_method1("getsignal", (Signal::INT.as_raw(),))?;
    if !handler.is(&signal.getattr("default_int_handler")?) {
        return Ok(());
    }
    let nothing = PyCFunction::new_closure(
        py,
        Some(c"nothing"),
        None,
        |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {},
    )?;
    forks::handle(py, Signal::INT.as_raw(), &nothing)
}
