//! Status of a pool: the output of `wsgate status --json`, and the response on the control socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::histogram::HistogramStatus;

/// Maximum number of process IDs in one sentence.
const MAX_SHOWN: usize = 64;

/// Protocol that a pool serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// FastCGI.
    #[default]
    Fastcgi,
    /// Warm CGI: each process serves one request.
    Warm,
    /// Resident CGI: each process serves many requests.
    Resident,
}

/// Status of a pool. A pool of another build may leave fields out, which then have their defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolStatus {
    /// Name of the pool.
    pub name: String,
    /// The application, as the argument APP.
    pub app: String,
    /// Process id of the supervisor.
    pub pid: i32,
    /// User of the pool. The client sets this and `directory`, and believes no pool about them.
    pub user: String,
    /// Directory of the control socket.
    pub directory: String,
    /// Version of wsgate that the pool runs.
    pub version: String,
    /// Protocol of the pool.
    pub mode: PoolMode,
    /// Start of the pool in seconds since 1970.
    pub started: u64,
    /// Age of the pool in seconds.
    pub age: u64,
    /// Listening sockets.
    pub listeners: Vec<ListenerStatus>,
    /// Connections with a request that wait in the connection queue of the workers.
    pub queued: u64,
    /// How often code was loaded.
    pub generation: u64,
    /// Does the template load the application? `yes`, `no`, or `auto` until the decision.
    pub preload: String,
    /// Minimum number of workers.
    pub min: usize,
    /// Maximum number of workers.
    pub max: usize,
    /// Threads that wait for a request.
    pub idle: usize,
    /// Threads that serve a request.
    pub busy: usize,
    /// Most threads that were busy at once.
    pub peak_busy: u64,
    /// How often all threads of the maximum number of workers became busy.
    pub max_reached: u64,
    /// A reload is in progress.
    pub reloading: bool,
    /// A template is loading code.
    pub loading: bool,
    /// No Python process is running; the next connection starts one.
    pub resting: bool,
    /// The build of wsgate that runs the pool.
    pub build: String,
    /// An upgrade to another build is in progress.
    pub upgrading: bool,
    /// The last upgrade that was attempted, if that failed.
    pub failed_upgrade: Option<FailedLoad>,
    /// The pool is stopping.
    pub stopping: bool,
    /// The last attempt to load code, if that failed and no attempt has succeeded since.
    pub failed_load: Option<FailedLoad>,
    /// The last reload that has ended.
    pub last_reload: Option<LastReload>,
    /// Number of requests since the start, including those in progress.
    pub requests: u64,
    /// Number of responses by class of their status.
    pub responses: Responses,
    /// Number of requests whose web server disconnected before the response was complete.
    pub aborted: u64,
    /// Events since the start.
    #[serde(flatten)]
    pub counters: Counters,
    /// How long requests took.
    pub duration: HistogramStatus,
    /// How long requests waited before, where the web server says so.
    pub waiting: HistogramStatus,
    /// Threads of all workers.
    pub workers: Vec<WorkerStatus>,
}

impl PoolStatus {
    /// The process IDs of workers that are stopped.
    pub fn stopped_workers(&self) -> BTreeSet<i32> {
        let stopped = self.workers.iter().filter(|worker| worker.stopped);
        stopped.map(|worker| worker.pid).collect()
    }

    /// The sentence about workers that are stopped, with the command that continues them.
    pub fn stopped_sentence(&self) -> Option<String> {
        let stopped = self.stopped_workers();
        let pids: Vec<String> = stopped.iter().take(MAX_SHOWN).map(i32::to_string).collect();
        (!stopped.is_empty()).then(|| {
            let (count, pids) = (stopped.len(), pids.join(" "));
            let (workers, serve) =
                if count == 1 { ("worker is", "serves") } else { ("workers are", "serve") };
            format!("{count} {workers} stopped by a signal and {serve} nothing: kill -CONT {pids}")
        })
    }

    /// Adds the totals of `earlier`, the last status of the program that another one has replaced
    /// in an upgrade. The supervisor continues `counters` itself.
    pub fn add_earlier(&mut self, earlier: &Self) {
        self.peak_busy = self.peak_busy.max(earlier.peak_busy);
        self.max_reached += earlier.max_reached;
        self.requests += earlier.requests;
        self.responses.add(&earlier.responses);
        self.aborted += earlier.aborted;
        self.duration.add(&earlier.duration);
        self.waiting.add(&earlier.waiting);
    }
}

/// Status of a listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// Address of the socket.
    pub address: String,
    /// Connections in the accept queue; `None` if the kernel does not tell.
    pub accept_queue: Option<u32>,
    /// The longest accept queue that was in a status.
    pub peak_accept_queue: u32,
    /// Maximum length of the accept queue; `None` if the kernel does not tell.
    pub backlog: Option<u32>,
}

/// An attempt to load code that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedLoad {
    /// How many seconds ago the attempt failed.
    pub seconds: u64,
    /// Code and sentence of the log message.
    pub reason: String,
}

/// A reload that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastReload {
    /// End of the reload in seconds since 1970.
    pub time: u64,
    /// The new code serves.
    pub succeeded: bool,
    /// Code and sentence of the log message, if the reload failed.
    pub reason: Option<String>,
}

/// Responses by class of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Responses {
    /// Status 1xx.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// Status 2xx.
    #[serde(rename = "2xx")]
    pub successful: u64,
    /// Status 3xx.
    #[serde(rename = "3xx")]
    pub redirected: u64,
    /// Status 4xx.
    #[serde(rename = "4xx")]
    pub client_errors: u64,
    /// Status 5xx.
    #[serde(rename = "5xx")]
    pub server_errors: u64,
}

impl Responses {
    fn add(&mut self, more: &Self) {
        self.informational += more.informational;
        self.successful += more.successful;
        self.redirected += more.redirected;
        self.client_errors += more.client_errors;
        self.server_errors += more.server_errors;
    }
}

impl From<[u64; 5]> for Responses {
    fn from(
        [informational, successful, redirected, client_errors, server_errors]: [u64; 5],
    ) -> Self {
        Self { informational, successful, redirected, client_errors, server_errors }
    }
}

/// Events since the start of a pool that its supervisor counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Requests that were logged as slow.
    pub slow: u64,
    /// Requests that reached the timeout.
    pub timed_out: u64,
    /// Requests that the supervisor answered with 503.
    pub refused: u64,
    /// Python processes that crashed, by the signal's name or `exit`.
    pub crashed: BTreeMap<String, u64>,
    /// Workers that were replaced or stopped, by reason.
    pub replaced: Replacements,
}

/// Workers that were replaced or stopped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Replacements {
    /// `--max-requests` was reached.
    pub max_requests: u64,
    /// `--max-age` was reached.
    pub max_age: u64,
    /// `--max-rss` was reached.
    pub max_rss: u64,
    /// New code was loaded.
    pub reload: u64,
    /// The worker was killed since its request did not end after `--timeout`.
    pub timeout: u64,
    /// The worker or its template crashed.
    pub crash: u64,
    /// Fewer workers were needed.
    pub idle: u64,
    /// The worker exited for another reason, such as SIGTERM of another process.
    pub exit: u64,
}

/// Status of one thread of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// Process id of the worker.
    pub pid: i32,
    /// Number of the worker, as in its process title.
    pub number: u32,
    /// Number of the thread in its worker.
    pub thread: u32,
    /// The thread is serving a request.
    pub busy: bool,
    /// The worker was asked to stop, and accepts no more connections.
    pub leaving: bool,
    /// The worker is stopped by a signal or a debugger: its requests do not go on.
    pub stopped: bool,
    /// How long the thread has been busy or idle.
    pub milliseconds: u64,
    /// Age of the worker in seconds.
    pub age: u64,
    /// Number of requests that the thread has served.
    pub requests: u64,
    /// Bytes of resident memory of the worker, which is what `--max-rss` limits. Memory that it
    /// shares with other workers is included.
    pub rss: u64,
    /// Processor time of the worker.
    pub cpu_milliseconds: u64,
    /// The current request, or the last one.
    pub request: Option<RequestStatus>,
    /// Status of the thread's last response.
    pub last_status: Option<u16>,
}

/// A request of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestStatus {
    /// Id of the request.
    pub id: String,
    /// Method.
    pub method: String,
    /// Target: path and query.
    pub target: String,
}

impl WorkerStatus {
    /// The state in one word of at most seven letters.
    pub fn state(&self) -> &'static str {
        match self {
            Self { stopped: true, .. } => "stopped",
            Self { busy: true, .. } => "busy",
            Self { leaving: true, .. } => "ends",
            _ => "idle",
        }
    }
}

impl fmt::Display for RequestStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.id, self.method, self.target)
    }
}

impl RequestStatus {
    /// The request in a line of the scoreboard, `ID METHOD TARGET`; `None` if the line is empty.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let id = parts.next().filter(|id| !id.is_empty())?;
        let [method, target] = [parts.next(), parts.next()].map(Option::unwrap_or_default);
        Some(Self { id, method, target })
    }
}
