//! The launch message: everything the engine must know before it can serve. The gateway writes it
//! to a file in memory that Python inherits.

use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    connection_queue::QueueFds,
    message::{Kind, Message},
    offload::Offload,
    path_timeouts::PathTimeout,
    percent::encode_path,
    pool_logs::PoolLogs,
    request::RequestMessage,
    trusted_proxies::TrustedProxies,
};

/// Seconds that exit handlers and finalisation may take if there is no `--timeout`.
pub const EXIT_TIMEOUT_SECONDS: u64 = 30;

/// The work of one Python process, and what it needs for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The work.
    pub work: Work,
    /// The application.
    pub app: App,
    /// Directories to put at the front of `sys.path`, in this order, as bytes.
    pub sys_path: Vec<Vec<u8>>,
    /// Where `.pyc` files go if the user cannot write beside the sources (`sys.pycache_prefix`).
    pub pycache_prefix: Option<Vec<u8>>,
    /// The virtualenv of the interpreter.
    pub venv: Option<Venv>,
    /// A sentence about a virtualenv beside the application that is not used.
    pub skipped_venv: Option<String>,
    /// Tracebacks may be sent to the client.
    pub debug: bool,
    /// How the log is written.
    pub log: LogSettings,
    /// The request, as for a process of a warm pool. In a pool: how log messages and error pages
    /// that belong to no request of a client are marked.
    pub request: RequestMessage,
    /// The request that the application answers after loading, before workers are forked.
    pub warm_up: Option<WarmUp>,
    /// The function to call in each process that is forked with the application loaded, as
    /// `MODULE:FUNCTION`.
    pub after_fork: Option<String>,
    /// Where the application is mounted, if the web server does not say so.
    pub script_name: Option<String>,
    /// The proxies that say where a request came from.
    pub proxies: TrustedProxies,
    /// The files that the web server sends in place of the application.
    pub offload: Option<Offload>,
    /// Process id of the gateway that started Python; after its exit no process guards the request.
    pub gateway_pid: i32,
    /// Descriptor of the socket to the gateway, for [`crate::report`] or [`crate::template`].
    pub report_fd: i32,
    /// Reading end of a pipe whose other end the kernel closes when the gateway exits. A worker
    /// without a gateway has none.
    pub gateway_pipe_fd: Option<i32>,
}

/// How a process writes its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Log messages are JSON objects.
    pub is_json: bool,
    /// The name of the pool, or of the application of a CGI request.
    pub pool: String,
    /// Log messages in text begin with time and name.
    pub has_time: bool,
    /// Lines of log messages begin with a priority for the journal, and not with a time.
    pub has_priority: bool,
    /// Responses have the request id in a header.
    pub sends_request_id: bool,
}

/// A request that the application answers to warm up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    /// A path with its query, such as `/path?query`, or a full `http://` or `https://` URL.
    pub target: String,
    /// Timeout in seconds.
    pub seconds: u64,
}

impl WarmUp {
    /// The parts of the target, as [`target_parts`] gives them.
    pub fn parts(&self, script_name: &str) -> (&str, &str, &str) {
        target_parts(&self.target, script_name)
    }
}

/// Scheme, host with its port if there is one, and path with query of `target`, which is a path or
/// a full URL. If the path of a full URL begins with the mount of the application, `script_name`,
/// that part is removed.
pub fn target_parts<'a>(target: &'a str, script_name: &str) -> (&'a str, &'a str, &'a str) {
    let with_host = ["http", "https"].into_iter().find_map(|scheme| {
        let rest = target.strip_prefix(scheme)?.strip_prefix("://")?;
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let mount = encode_path(script_name.as_bytes());
        let below =
            path.as_bytes().strip_prefix(&*mount).and_then(|rest| std::str::from_utf8(rest).ok());
        let path =
            below.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?'])).unwrap_or(path);
        let is_root = path.is_empty() && script_name.is_empty();
        Some((scheme, host, if is_root { "/" } else { path }))
    });
    with_host.unwrap_or(("http", "localhost", target))
}

/// The work of a Python process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Serve one CGI request whose variables are the process environment.
    Cgi(RequestFds),
    /// As [`Work::Cgi`], and report whether loading the application leaves open what only one
    /// process at a time may have.
    FirstCgi(RequestFds),
    /// Load the application, make one request to this target, or else to `/`, and another one
    /// under `wsgiref.validate`, and write the [`crate::check::Findings`] as the response.
    Check(RequestFds, Option<String>),
    /// Load the application under a tracer, and write the [`crate::check::SideEffect`]s with the
    /// code that caused them as the response.
    Trace(RequestFds),
    /// Be a template: fork a worker for each command of the supervisor. Load the application before
    /// that if [`Service::preload`] says so.
    Template(Service),
    /// Be the only worker.
    Worker(Service),
}

/// Descriptors of one request, as Python inherits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFds {
    /// The request body is read from this descriptor.
    pub body_fd: i32,
    /// The response is written to this descriptor.
    pub response_fd: i32,
}

/// Settings and descriptors of the workers of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Descriptors of the listening sockets.
    pub listeners: Vec<i32>,
    /// Requests that a worker serves at the same time.
    pub threads: u32,
    /// Most workers of the pool: with more than one, `wsgi.multiprocess` is true.
    pub workers: u32,
    /// Requests after which a worker is replaced, less a jitter of up to a tenth; 0 is no limit.
    pub max_requests: u64,
    /// Seconds after which a worker without a supervisor exits, less a jitter of up to a tenth; 0
    /// is no limit.
    pub max_age: u64,
    /// Bytes of resident memory above which a worker is replaced; 0 is no limit.
    pub max_rss: u64,
    /// Timeout for the parameters of a request in seconds; 0 is no timeout.
    pub header_timeout_seconds: u64,
    /// Timeout of each read from and write to the web server within a request in seconds; 0 is no
    /// timeout.
    pub socket_timeout_seconds: u64,
    /// Seconds after which a worker without a supervisor logs a slow request with its stacks; 0 is
    /// never.
    pub slow_seconds: u64,
    /// Seconds that a worker without a supervisor has to finish its requests after SIGTERM.
    pub drain_seconds: u64,
    /// Timeouts of requests for some paths, in place of the one of all requests.
    pub path_timeouts: Vec<PathTimeout>,
    /// Most connections that a worker keeps.
    pub connections: u32,
    /// Descriptor of the pool's scoreboard. A thread writes the line with the number of the
    /// worker's block times [`Service::threads`] plus its own number.
    pub scoreboard_fd: i32,
    /// Which process of the pool loads the application.
    pub preload: Preload,
    /// Watch the files of modules: a worker of a supervisor sends it SIGHUP when one changes, a
    /// worker without a supervisor exits.
    pub reload: bool,
    /// Paths whose change makes a worker without a supervisor exit, as bytes.
    pub reload_on: Vec<Vec<u8>>,
    /// The logs of the pool.
    pub logs: PoolLogs,
    /// Descriptor by which workers wake the supervisor (eventfd(2)); a worker without a supervisor
    /// has none.
    pub bell_fd: Option<i32>,
    /// Descriptor of the file for Python stacks ([`crate::stacks_file`]); a worker without a
    /// supervisor has none.
    pub stacks_fd: Option<i32>,
    /// Descriptors of the queue of connections between workers; a worker without a supervisor has
    /// none.
    pub connection_queue: Option<QueueFds>,
    /// The supervisor limits how long requests wait: a worker puts each connection whose request
    /// waits into the queue, even if the worker is busy with short requests.
    pub limits_waiting: bool,
    /// The listening sockets take warm requests ([`crate::request`]) in place of FastCGI, and a
    /// worker serves one request at a time.
    pub warm: bool,
    /// A worker of a warm pool serves further requests after the first.
    pub resident: bool,
}

/// Which process of a pool loads the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preload {
    /// The template, unless that leaves open or running what forked processes must not share.
    Auto,
    /// The template, under a tracer that logs which code causes what [`Preload::Auto`] has found.
    /// No worker is forked from it.
    Trace,
    /// The template. Workers share its memory.
    Yes,
    /// Each worker, after it was forked.
    No,
}

/// A virtualenv as its `pyvenv.cfg` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Venv {
    /// Its directory, as bytes.
    pub directory: Vec<u8>,
    /// `major.minor` of the Python that made it, if the file says so.
    pub version: Option<String>,
}

impl Message for Launch {
    const KIND: Kind = Kind::Launch;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_request_is_for_localhost_unless_it_names_a_host() {
        for (target, parts) in [
            ("/a?b", ("http", "localhost", "/a?b")),
            ("http://x.example/a", ("http", "x.example", "/a")),
            ("https://x.example:8443", ("https", "x.example:8443", "/")),
            ("/http://x", ("http", "localhost", "/http://x")),
        ] {
            assert_eq!(WarmUp { target: target.into(), seconds: 1 }.parts(""), parts);
        }
        for (target, path) in [
            ("https://x.example/a%20b/c?d", "/c?d"),
            ("https://x.example/a%20b?d", "?d"),
            ("https://x.example/a%20bc", "/a%20bc"),
            ("/a%20b/c", "/a%20b/c"),
        ] {
            assert_eq!(WarmUp { target: target.into(), seconds: 1 }.parts("/a b").2, path);
        }
    }
}
