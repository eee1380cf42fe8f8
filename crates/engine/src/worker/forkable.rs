//! What loading an application leaves behind that a fork spoils: threads, which do not live in the child, and sockets, which
//! parent and children then share, so that each reads what was meant for another.

use std::{
    collections::HashSet,
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::fd::{AsFd, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use link::{
    app::App,
    entry::{Code, Entry},
    launch::{Launch, Preload},
};
use rustix::net::{SocketAddrAny, SocketAddrUnix, getpeername, getsockname, sockopt};

use super::fork::thread_count;

/// What a thread may take to end when it has run its last code.
const ENDING: Duration = Duration::from_millis(100);

/// What there is before the application is loaded: all of it our own.
pub(super) struct Before {
    threads: usize,
    sockets: HashSet<OsString>,
}

/// What has come since.
pub(super) struct Left {
    threads: usize,
    /// Each open socket, in words.
    sockets: Vec<String>,
    /// What the application was doing meanwhile.
    meanwhile: &'static str,
}

impl Before {
    /// What there is now.
    pub(super) fn now() -> Self {
        Self { threads: thread_count(), sockets: sockets().into_iter().map(|(_, name)| name).collect() }
    }

    /// What has come since then.
    pub(super) fn left(&self, launch: &Launch) -> Left {
        settle(|| thread_count() <= self.threads);
        let new = sockets().into_iter().filter(|(_, name)| !self.sockets.contains(name));
        Left {
            threads: thread_count().saturating_sub(self.threads),
            sockets: new.map(|(number, _)| describe(number)).collect(),
            meanwhile: match launch.warm_up {
                None => "while it was loaded",
                Some(_) => "while it was loaded and answered its warm-up request",
            },
        }
    }
}

impl Left {
    /// May the process be forked, so that nothing is missing in the child?
    pub(super) fn is_nothing(&self) -> bool {
        self.threads == 0 && self.sockets.is_empty()
    }

    /// What is to be said of it when workers are forked in spite of it.
    pub(super) fn warnings(&self, app: &App) -> Vec<Entry> {
        let mut warnings = Vec::new();
        if self.threads > 0 {
            warnings.push(
                Entry::warning(
                    Code::ThreadsAtImport,
                    format!("`{app}` started {} {}", count(self.threads, "thread"), self.meanwhile),
                )
                .hint(
                    "they do not live in the workers, which are forked from this process; let each worker load the application with --preload no, or start threads when they are first needed",
                ),
            );
        }
        if !self.sockets.is_empty() {
            warnings.push(
                Entry::warning(
                    Code::SocketsAtImport,
                    format!("`{app}` opened {} {}", count(self.sockets.len(), "socket"), self.meanwhile),
                )
                .detail(self.listing())
                .hint(
                    "all workers share what this process has open; let each worker load the application with --preload no, or connect when it is first needed",
                ),
            );
        }
        warnings
    }

    /// What is to be said of it when no worker is forked because of it.
    pub(super) fn notice(&self, app: &App) -> Entry {
        let (threads, sockets) = (count(self.threads, "thread"), count(self.sockets.len(), "socket"));
        let what = match (self.threads, self.sockets.len()) {
            (_, 0) => format!("started {threads}"),
            (0, _) => format!("opened {sockets}"),
            _ => format!("started {threads} and opened {sockets}"),
        };
        let entry = Entry::notice(
            Code::NotPreloaded,
            format!("`{app}` {what} {}, so that each worker loads it by itself", self.meanwhile),
        )
        .hint("--preload no says the same without the attempt; --preload yes forks workers all the same");
        if self.sockets.is_empty() { entry } else { entry.detail(self.listing()) }
    }

    fn listing(&self) -> String {
        self.sockets.iter().fold(String::new(), |mut text, socket| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{socket}");
            text
        })
    }
}

/// Whether a template that has loaded the application as `preload` says forks workers in spite of what that has left behind, and
/// what is to be said of it.
pub(super) fn judge(preload: Preload, left: &Left, app: &App) -> (bool, Vec<Entry>) {
    match preload {
        _ if left.is_nothing() => (true, Vec::new()),
        Preload::Auto => (false, vec![left.notice(app)]),
        Preload::Yes | Preload::No => (true, left.warnings(app)),
    }
}

/// Waits a moment until threads that are ending have ended: Python takes them for joined before the kernel has taken them away.
pub(super) fn settle(is_settled: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_settled() && begin.elapsed() < ENDING {
        thread::sleep(ENDING / 100);
    }
}

/// `1 thread`, `2 threads`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Descriptors of the sockets of this process, with the kernel's names for these.
fn sockets() -> Vec<(i32, OsString)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut sockets: Vec<(i32, OsString)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_link(entry.path()).ok()?.into_os_string();
            name.as_encoded_bytes().starts_with(b"socket:").then_some((number, name))
        })
        .collect();
    sockets.sort();
    sockets
}

/// `descriptor 5: connected to …`.
pub(super) fn describe(number: i32) -> String {
    // SAFETY: the call takes numbers and touches no memory. The descriptor may be closed by now; then there is no copy.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return format!("descriptor {number}");
    }
    // SAFETY: the kernel made this descriptor just now, for nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(copy) };
    format!("descriptor {number}: {}", ends(socket.as_fd()))
}

fn ends(socket: impl AsFd + Copy) -> String {
    let ours = getsockname(socket).ok().and_then(named);
    let theirs = getpeername(socket).ok().flatten().and_then(named);
    let listens = sockopt::socket_acceptconn(socket).unwrap_or(false);
    match (ours, theirs) {
        (Some(ours), _) if listens => format!("listens at `{ours}`"),
        (Some(ours), Some(theirs)) => format!("connected to `{theirs}` from `{ours}`"),
        (None, Some(theirs)) => format!("connected to `{theirs}`"),
        (Some(ours), None) => format!("at `{ours}`"),
        (None, None) => "a socket without an address".to_owned(),
    }
}

/// An address in words, if it is one.
fn named(address: SocketAddrAny) -> Option<String> {
    if let Ok(internet) = SocketAddr::try_from(address.clone()) {
        // A socket that is neither bound nor connected.
        return (internet.port() != 0).then(|| internet.to_string());
    }
    let unix = SocketAddrUnix::try_from(address).ok()?;
    let path = unix.path().map(|path| path.to_string_lossy().into_owned());
    path.or_else(|| Some(format!("@{}", String::from_utf8_lossy(unix.abstract_name()?))))
        .filter(|name| !name.is_empty())
}
