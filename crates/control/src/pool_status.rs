//! Status of a pool: the output of `wsgate status --json`, and the response on the control socket.

use serde::{Deserialize, Serialize};

use crate::histogram::HistogramStatus;

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

/// Status of a pool. A pool of an older build leaves the defaulted fields out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name of the pool.
    pub name: String,
    /// The application, as the argument APP.
    pub app: String,
    /// Process id of the supervisor.
    pub pid: i32,
    /// Listening addresses.
    pub listen: Vec<String>,
    /// How often code was loaded.
    pub generation: u64,
    /// Does the template load the application? `yes`, `no`, or `auto` until the decision.
    pub preload: String,
    /// Minimum number of workers.
    pub min: usize,
    /// Maximum number of workers.
    pub max: usize,
    /// A reload is in progress.
    pub reloading: bool,
    /// A template is loading code.
    pub loading: bool,
    /// No Python process is running; the next connection starts one.
    pub resting: bool,
    /// The last attempt to load code, if that failed and no attempt has succeeded since.
    #[serde(default)]
    pub failed_load: Option<FailedLoad>,
    /// Protocol of the pool.
    #[serde(default)]
    pub mode: PoolMode,
    /// Age of the pool in seconds.
    #[serde(default)]
    pub seconds: u64,
    /// Number of requests since the start, including those in progress.
    #[serde(default)]
    pub served: u64,
    /// Number of requests whose web server disconnected before the response was complete.
    pub abandoned: u64,
    /// The pool is stopping.
    pub ending: bool,
    /// How long requests took.
    #[serde(default)]
    pub duration: HistogramStatus,
    /// How long requests waited before, where the web server says so.
    #[serde(default)]
    pub waiting: HistogramStatus,
    /// Threads of all workers.
    pub workers: Vec<WorkerStatus>,
}

/// An attempt to load code that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLoad {
    /// How many seconds ago the attempt failed.
    pub seconds: u64,
    /// Code and sentence of the log message.
    pub reason: String,
}

/// Status of one thread of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Process id of the worker.
    pub pid: i32,
    /// The thread is serving a request.
    pub busy: bool,
    /// The worker was asked to stop, and accepts no more connections.
    pub leaving: bool,
    /// How long the thread has been busy or idle.
    pub milliseconds: u64,
    /// Number of requests that the thread has served.
    pub served: u64,
    /// Bytes of resident memory of the worker, which is what `--max-rss` limits. Memory that it
    /// shares with other workers is included.
    #[serde(default)]
    pub memory: u64,
    /// Id, method and target of the current request, or of the last one.
    pub request: String,
}
