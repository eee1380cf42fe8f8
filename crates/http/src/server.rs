//! Accepts connections, with limits on their number and their time.

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    rc::Rc,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::{
    io::ioctl_fionbio,
    net::{AddressFamily, sockopt},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::spawn_local,
    time::{sleep, timeout},
};
use wire::monitor::MonitorLaunch;

use crate::{
    access::{Access, Origin},
    connections::{Connections, HasRequest},
    pools::{Pools, SAMPLE_INTERVAL},
    routes::Routes,
};

/// How long a client may take to send a request.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: one request and its response.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum length of the request's headers in bytes; the least that hyper accepts.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Maximum number of headers.
const MAX_HEADERS: usize = 64;

/// Pause after file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The monitor: its listening sockets, and what it knows of the pools.
pub(crate) struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<String>,
    files: Vec<(Vec<u8>, u64)>,
    pools: Rc<Pools>,
    routes: Rc<Routes>,
}

impl Server {
    /// Prepares the monitor that the gateway has asked for.
    ///
    /// # Errors
    /// If a descriptor is not a socket that the event loop can use.
    pub(crate) fn new(launch: MonitorLaunch, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let listeners = sockets.into_iter().map(listener).collect::<io::Result<_>>()?;
        let pools = Rc::new(Pools::default());
        Ok(Self {
            listeners,
            addresses: launch.listeners.iter().map(|listener| listener.address.clone()).collect(),
            files: launch.listeners.into_iter().filter_map(|listener| listener.file).collect(),
            routes: Rc::new(Routes::new(Access::new(launch.token), pools.clone())),
            pools,
        })
    }

    /// The log message that the monitor answers.
    pub(crate) fn ready_message(&self) -> LogMessage {
        let shown: Vec<String> = self
            .addresses
            .iter()
            .map(|address| match address.strip_prefix("unix:") {
                Some(_) => format!("`{address}`"),
                None => format!("http://{address}/"),
            })
            .collect();
        LogMessage::new(Code::MonitorReady, format!("the monitor answers at {}", shown.join(", ")))
    }

    /// Answers until SIGTERM or SIGINT, and removes the files of its sockets.
    ///
    /// # Errors
    /// If the kernel refuses a signal handler.
    pub(crate) async fn run(self) -> io::Result<()> {
        let stop = Rc::new(Notify::new());
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let (mut signals, stop) = (signal(kind)?, stop.clone());
            spawn_local(async move {
                signals.recv().await;
                stop.notify_one();
            });
        }
        let connections = Rc::new(Connections::default());
        for listener in self.listeners {
            spawn_local(accept(listener, self.routes.clone(), connections.clone()));
        }
        let pools = self.pools.clone();
        spawn_local(async move {
            loop {
                pools.sample().await;
                sleep(SAMPLE_INTERVAL).await;
            }
        });
        stop.notified().await;
        for (path, inode) in self.files {
            let path = OsStr::from_bytes(&path);
            if fs::symlink_metadata(path).is_ok_and(|found| found.ino() == inode) {
                // Somebody else may have removed the file a moment ago.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

fn listener(socket: OwnedFd) -> io::Result<Listener> {
    ioctl_fionbio(&socket, true)?;
    if sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
        UnixListener::from_std(socket.into()).map(Listener::Unix)
    } else {
        TcpListener::from_std(socket.into()).map(Listener::Tcp)
    }
}

async fn accept(listener: Listener, routes: Rc<Routes>, connections: Rc<Connections>) {
    loop {
        connections.make_room().await;
        let has_request = HasRequest::default();
        let serving = Serving { routes: routes.clone(), has_request: has_request.clone() };
        let task =
            match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    spawn_local(serving.run(stream, Origin::Tcp)).abort_handle()
                }),
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    spawn_local(serving.run(stream, Origin::Unix)).abort_handle()
                }),
            };
        match task {
            Ok(task) => connections.add(task, has_request),
            // Probably no file descriptor is free; or the client has closed the connection.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// What a connection is served with.
struct Serving {
    routes: Rc<Routes>,
    has_request: HasRequest,
}

impl Serving {
    /// Serves one request. There is no keep-alive: each connection has a limited time.
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin, origin: Origin) {
        let service = service_fn(|request| {
            self.has_request.set(true);
            let routes = self.routes.clone();
            async move { routes.answer(&request, origin).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        // A client that breaks HTTP, or disconnects, concerns nobody else.
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    }
}
