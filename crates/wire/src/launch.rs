//! The launch frame: all that the engine must know before it can serve, written by the gateway into
//! a descriptor that python inherits.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{app::App, build, connection_queue, percent::encode_path, pool_logs::PoolLogs};
use diagnostics::error_page::ResponseFormat;

/// Seconds that exit handlers and finalisation may take where there is no `--timeout`.
pub const EXIT_TIMEOUT_SECONDS: u64 = 30;

/// First bytes of every launch frame; the name of the build follows, so that another build is
/// recognised before its layout matters.
const MAGIC: &[u8] = b"wsgate-launch ";

/// What the engine is started for and with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// What is to be done.
    pub work: Work,
    /// The application.
    pub app: App,
    /// Directories that go to the front of `sys.path`, in this order, as bytes.
    pub sys_path: Vec<Vec<u8>>,
    /// Where `.pyc` files go when the user cannot write beside the sources (`sys.pycache_prefix`).
    pub pycache_prefix: Option<Vec<u8>>,
    /// The virtualenv that was chosen and the Python version that it says it was made by.
    pub venv: Option<Venv>,
    /// May the client see tracebacks?
    pub debug: bool,
    /// Names the request in the log and on error pages.
    pub request_id: String,
    /// Method and target of the request, for the log.
    pub request: String,
    /// How the head of a response is written.
    pub form: ResponseFormat,
    /// Seconds the gateway grants the request, for the message when they are over; 0 is without
    /// end.
    pub timeout_seconds: u64,
    /// What the application answers before anything is forked from the process that has loaded it.
    pub warm_up: Option<WarmUp>,
    /// Where the application is mounted, if the web server does not say so.
    pub script_name: Option<String>,
    /// Process that started python; when it is gone, nobody guards the request.
    pub gateway_pid: i32,
    /// Descriptor of the socket to the gateway: [`crate::report::Report`]s, or the orders and news
    /// of [`crate::template`].
    pub report_fd: i32,
    /// Descriptor of a pipe whose other end the gateway alone holds; a worker that has no gateway
    /// has none.
    pub gateway_pipe_fd: Option<i32>,
}

/// A request that an application answers to warm up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    /// A path with its query, such as `/path?query`, or the same behind `http://HOST` or
    /// `https://HOST`.
    pub target: String,
    /// How many seconds it may take.
    pub seconds: u64,
}

impl WarmUp {
    /// Scheme, host with its port if one is named, and path with query. The path of a whole URL may
    /// begin with that of the application, `script_name`, which is taken off.
    pub fn parts(&self, script_name: &str) -> (&str, &str, &str) {
        let with_host = ["http", "https"].into_iter().find_map(|scheme| {
            let rest = self.target.strip_prefix(scheme)?.strip_prefix("://")?;
            let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let mount = encode_path(script_name.as_bytes());
            let below = path
                .as_bytes()
                .strip_prefix(&*mount)
                .and_then(|rest| std::str::from_utf8(rest).ok());
            let path = below
                .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
                .unwrap_or(path);
            let is_root = path.is_empty() && script_name.is_empty();
            Some((scheme, host, if is_root { "/" } else { path }))
        });
        with_host.unwrap_or(("http", "localhost", &self.target))
    }
}

/// What the engine is started for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Serve one CGI request whose variables are the process environment.
    Cgi(RequestFds),
    /// The same, and report whether one process at a time may have what loading the application
    /// leaves open.
    FirstCgi(RequestFds),
    /// Load the application, try one request under `wsgiref.validate`, and write what was found as
    /// the response.
    Check(RequestFds),
    /// Load the application slowly, and write as the response what that leaves behind and which
    /// code did it.
    Trace(RequestFds),
    /// Fork a worker whenever the supervisor asks for one; before that, load the application if
    /// [`Service::preload`] says so.
    Template(Service),
    /// Be the only worker.
    Worker(Service),
}

/// Descriptors of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFds {
    /// The request body is read from it.
    pub body_fd: i32,
    /// The response is written to it.
    pub response_fd: i32,
}

/// What every worker of a FastCGI pool does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Listening sockets, as descriptors.
    pub listeners: Vec<i32>,
    /// Requests that a worker serves at the same time.
    pub threads: u32,
    /// Workers that the pool may have: whether other processes serve the application, too.
    pub workers: u32,
    /// Requests after which a worker ends, or up to a tenth fewer; 0 is without end.
    pub max_requests: u64,
    /// Seconds after which a worker that has no supervisor ends, or up to a tenth fewer; 0 is
    /// without end.
    pub max_age: u64,
    /// Bytes of resident memory above which a worker is to be replaced; 0 is without limit.
    pub max_rss: u64,
    /// Seconds in which the start of a request has to come; 0 is without end.
    pub header_timeout_seconds: u64,
    /// Seconds that a wait for the web server may take within a request; 0 is without end.
    pub socket_timeout_seconds: u64,
    /// Seconds after which a worker without a supervisor logs a request with its stacks; 0 is
    /// never.
    pub slow_seconds: u64,
    /// Seconds that a worker without a supervisor has for its requests when it is asked to stop.
    pub drain_seconds: u64,
    /// Connections that a worker holds.
    pub connections: u32,
    /// Descriptor of the pool's scoreboard; the line of a thread is the worker's slot times threads
    /// plus its number.
    pub scoreboard_fd: i32,
    /// Which process of the pool loads the application.
    pub preload: Preload,
    /// The supervisor wants SIGHUP when the file of a module has changed. A worker without one
    /// exits.
    pub reload: bool,
    /// Paths whose change makes a worker without a supervisor exit, as bytes.
    pub reload_on: Vec<Vec<u8>>,
    /// What is logged where.
    pub logs: PoolLogs,
    /// Descriptor by which workers make the supervisor look at the scoreboard (`eventfd`); a worker
    /// without one has no supervisor.
    pub bell_fd: Option<i32>,
    /// Descriptors of the socket over which workers give each other connections; a worker without a
    /// supervisor has none.
    pub connection_queue: Option<connection_queue::QueueFds>,
    /// Listening sockets take requests of [`crate::warm_request`] in place of FastCGI, and each
    /// worker serves one.
    pub warm: bool,
    /// With that, each worker serves one after the other.
    pub resident: bool,
}

/// Which process of a pool loads the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preload {
    /// The template, unless that leaves open or running what forked processes must not share.
    Auto,
    /// The template, which looks on while it loads the application and logs which code does what
    /// [`Preload::Auto`] has found. No worker is forked from it.
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

impl Launch {
    /// The frame as bytes.
    ///
    /// # Errors
    /// If the encoder refuses a value; none of the types here can bring that about.
    pub fn encode(&self) -> Result<Vec<u8>, BadLaunch> {
        let mut frame = [MAGIC, build().as_bytes(), b"\n"].concat();
        frame.extend(postcard::to_allocvec(self).map_err(|_| BadLaunch::Layout)?);
        Ok(frame)
    }

    /// Reads a frame back.
    ///
    /// # Errors
    /// If the bytes are no launch frame, or one of another build.
    pub fn decode(frame: &[u8]) -> Result<Self, BadLaunch> {
        postcard::from_bytes(layout_of(MAGIC, frame)?).map_err(|_| BadLaunch::Layout)
    }
}

/// What follows in `frame` on `magic` and the name of this build.
///
/// # Errors
/// If anything else stands there.
pub(crate) fn layout_of<'a>(magic: &[u8], frame: &'a [u8]) -> Result<&'a [u8], BadLaunch> {
    let rest = frame.strip_prefix(magic).ok_or(BadLaunch::NoFrame)?;
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or(BadLaunch::NoFrame)?;
    let (of_frame, layout) = rest.split_at(end);
    if of_frame != build().as_bytes() {
        return Err(BadLaunch::OtherBuild(String::from_utf8_lossy(of_frame).into_owned()));
    }
    Ok(&layout[1..])
}

/// Why bytes are no launch frame for this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLaunch {
    /// They do not begin as a launch frame does.
    NoFrame,
    /// The frame was written by the build named.
    OtherBuild(String),
    /// The right build, but not its layout.
    Layout,
}

impl fmt::Display for BadLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame => f.write_str("the descriptor holds no launch frame"),
            Self::OtherBuild(other) => {
                write!(f, "the gateway is of build `{other}`, this engine of build `{}`", build())
            }
            Self::Layout => f.write_str("the launch frame is damaged"),
        }
    }
}

impl std::error::Error for BadLaunch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            work: Work::Cgi(RequestFds { body_fd: 3, response_fd: 4 }),
            app: App::in_file("/srv/caf\u{e9}.wsgi"),
            sys_path: vec![b"/srv/\xff".to_vec()],
            pycache_prefix: None,
            venv: Some(Venv { directory: b"/srv/venv".to_vec(), version: Some("3.11".into()) }),
            debug: true,
            request_id: "0123456789abcdef".into(),
            request: "GET /".into(),
            form: ResponseFormat::Cgi,
            timeout_seconds: 30,
            warm_up: Some(WarmUp { target: "/".into(), seconds: 30 }),
            script_name: Some("/app".into()),
            gateway_pid: 4711,
            report_fd: 5,
            gateway_pipe_fd: Some(6),
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        assert_eq!(Launch::decode(&launch().encode().unwrap()), Ok(launch()));
    }

    #[test]
    fn every_truncation_is_an_error_and_none_a_panic() {
        let frame = launch().encode().unwrap();
        for length in 0..frame.len() {
            assert!(Launch::decode(&frame[..length]).is_err(), "{length} of {} bytes", frame.len());
        }
    }

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

    #[test]
    fn another_build_is_named() {
        let frame = b"wsgate-launch 0.0.9+feed\nrest";
        assert_eq!(Launch::decode(frame), Err(BadLaunch::OtherBuild("0.0.9+feed".into())));
    }
}
