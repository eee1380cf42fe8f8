//! `wsgate serve`: a web server for the development of one application, which runs in a pool.

mod body;
mod cgi;
mod cgi_response;
mod console;
mod environ;
mod exchange;
mod framing;
mod live;
mod pages;
mod pool;
mod pool_log;
mod site;
mod socket_directory;
mod static_files;
mod strict_stream;
mod watch;

use std::{
    cell::Cell,
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::ioctl_fionbio;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    signal::unix::{SignalKind, signal},
    task::spawn_local,
    time::{Instant, sleep},
};
use wire::serve::ServeLaunch;

use crate::{
    log,
    serve::{
        cgi::CgiDirectory,
        environ::Ends,
        framing::MAX_HEADER_BYTES,
        pool::AppPools,
        site::{Content, Site},
        strict_stream::StrictStream,
        watch::Watch,
    },
};

/// How long a client may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of headers.
const MAX_HEADERS: usize = 256;

/// Shortest time between two loads of the application. Each starts processes.
const RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Pause after file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until SIGTERM, SIGINT, SIGQUIT, or SIGHUP of a closed terminal. After `nohup`, SIGHUP
/// stops nothing.
///
/// # Errors
/// If the kernel refuses an event loop, a signal handler or the directory of sockets.
pub(crate) async fn run(launch: ServeLaunch, socket: OwnedFd) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup =
        if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
    ioctl_fionbio(&socket, true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    let pools = match launch.cgi {
        Some(_) => None,
        None => Some(Rc::new(AppPools::start(&launch, address.port())?)),
    };
    log(&ready_message(&launch, address));
    if !address.ip().is_loopback() {
        log(&exposed_message(address));
    }
    let content = match (&pools, &launch.cgi) {
        (Some(pools), _) => {
            spawn_local(reload(launch.watched.clone(), pools.clone()));
            Content::Application(pools.clone())
        }
        (None, directory) => {
            let directory = directory.clone().unwrap_or_default();
            Content::Cgi(CgiDirectory::new(OsString::from_vec(directory).into()))
        }
    };
    spawn_local(accept(listener, Rc::new(Site::new(&launch, content))));
    if launch.open {
        open_browser(&format!("http://{}/", launch.address));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
        Some(_) = async { hangup.as_mut()?.recv().await } => {}
    }
    if let Some(pools) = pools {
        pools.stop().await;
    }
    Ok(())
}

/// Was this program started with `signal` ignored?
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}

fn ready_message(launch: &ServeLaunch, address: SocketAddr) -> LogMessage {
    let taken = launch.taken_port.map(|port| format!(", since port {port} is in use"));
    let sentence = format!(
        "serving `{}` at http://{address}/{}, for development only",
        launch.app,
        taken.unwrap_or_default()
    );
    LogMessage::new(Code::ServeReady, sentence).hint("Ctrl-C stops")
}

fn exposed_message(address: SocketAddr) -> LogMessage {
    LogMessage::new(
        Code::ServeExposed,
        format!("other machines can connect to `{address}`, and error pages show source code"),
    )
    .hint("omit --host, or see that only your own machines can connect")
}

/// Starts the browser of this desktop.
fn open_browser(url: &str) {
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut browser) => {
            // The browser may go on for long; nobody asks for its exit status.
            spawn_local(async move { browser.wait().await });
        }
        Err(error) => log(&LogMessage::new(
            Code::NoBrowser,
            format!("the browser cannot be started by `xdg-open`: {error}"),
        )
        .hint("open the address by hand, or install xdg-utils")),
    }
}

/// Loads the application again whenever one of its files changes.
async fn reload(paths: Vec<Vec<u8>>, pools: Rc<AppPools>) {
    let paths: Vec<PathBuf> =
        paths.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect();
    let failed = match Watch::new(&paths) {
        Ok(mut watch) => {
            if let Some((path, error)) = watch.left_out() {
                log(&not_watched(&format!("`{}`: {error}", path.display())));
            }
            let mut earliest = Instant::now();
            loop {
                if let Err(error) = watch.changed().await {
                    break error;
                }
                pools.expect_restart();
                // More changes are loaded together.
                let settled = watch.settle(earliest).await;
                pools.restart();
                earliest = Instant::now() + RELOAD_INTERVAL;
                if let Err(error) = settled {
                    break error;
                }
            }
        }
        Err(error) => error,
    };
    log(&not_watched(&format!("all files: {failed}")));
}

fn not_watched(what: &str) -> LogMessage {
    LogMessage::new(Code::NotAllWatched, format!("changes are not noticed in {what}")).hint(
        "raise fs.inotify.max_user_watches or fs.inotify.max_user_instances, or keep data that \
         grows out of the directory of the application",
    )
}

async fn accept(listener: TcpListener, site: Rc<Site>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => drop(spawn_local(serve(stream, client, site.clone()))),
            // Probably no file descriptor is free; or the client has closed the connection.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves the requests on a connection.
async fn serve(stream: TcpStream, client: SocketAddr, site: Rc<Site>) {
    let Ok(server) = stream.local_addr() else { return };
    // Responses leave at once, even small ones after another.
    let _ = stream.set_nodelay(true);
    // Lines about requests say whether the client has closed the connection.
    let Ok(socket) = stream.as_fd().try_clone_to_owned().map(Rc::new) else { return };
    let ends = Ends { server, client };
    let violation = Rc::new(Cell::new(None));
    let service = service_fn(|request| {
        let (site, socket) = (site.clone(), socket.clone());
        async move { Ok::<_, io::Error>(site.answer(request, ends, socket).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        // A client may end its direction after the request, as `nc -N` does.
        .half_close(true)
        .serve_connection(TokioIo::new(StrictStream::new(stream, violation.clone())), service);
    let served = connection.await;
    if let Some(violation) = violation.get() {
        site.console().refused(violation);
    } else if let Err(error) = served
        && error.is_parse()
    {
        site.console().refused(&error.to_string());
    }
}
