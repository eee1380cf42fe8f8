//! The template of a pool: loads the application once, then forks a worker whenever the supervisor asks for one.

use std::{
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use link::{
    launch::{Launch, Service},
    pool::{LENGTH, News, Order},
};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_parent_process_death_signal, wait},
};
use signal_hook::{
    SigId,
    consts::{SIGCHLD, SIGTERM},
    low_level::{pipe, unregister},
};

use super::{
    fork::{self, Side},
    serving,
    watched::Board,
};
use crate::{app, log::Log};
use link::entry::{Code, Entry};

/// Loads and forks until the supervisor closes `channel` and the last worker has ended. Returns the exit status of this
/// process, which may by then be a worker.
pub(super) fn run(
    py: Python<'_>,
    launch: &Launch,
    service: &Service,
    listeners: Vec<OwnedFd>,
    board: Board,
    channel: OwnedFd,
) -> PyResult<i32> {
    let log = Log::new(launch.request_id.clone(), launch.request.clone());
    let setting = serving::setting(launch, service);
    let loaded = match app::load(py, launch, &setting) {
        Ok(loaded) => loaded,
        Err(failure) => {
            log.entry(&failure.entry);
            tell(&channel, News::Unfit);
            return Ok(1);
        }
    };
    let threads = fork::thread_count();
    if threads > 1 {
        log.entry(
            &Entry::warning(Code::ThreadsAtImport, format!("`{}` started {} threads while it was loaded", launch.app, threads - 1))
                .hint("they do not live in the workers, which are forked from this process; start threads when they are first needed"),
        );
    }
    // What is there now stays for ever: a collection in a worker then leaves these pages shared.
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    let signals = Signals::register()?;
    tell(&channel, News::Ready);
    let template = getpid();
    let mut workers = 0_usize;
    let mut retired = false;
    while !(retired && workers == 0) {
        signals.wait(py, &channel, retired)?;
        let mut order = [0; LENGTH];
        while !retired {
            match recv(&channel, &mut order[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => retired = true,
                Ok((length, _)) => {
                    let Some(Order::Fork { slot }) = Order::decode(&order[..length]) else { continue };
                    match fork::fork(py) {
                        Ok(Side::Child) => {
                            begin_worker(signals, channel, template)?;
                            return serving::run(py, &loaded.application, launch, service, listeners, (board, slot));
                        }
                        Ok(Side::Parent(pid)) => {
                            workers += 1;
                            tell(&channel, News::Born { slot, pid: pid.as_raw_nonzero().get() });
                        }
                        Err(_) => tell(&channel, News::Unborn { slot }),
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            workers = workers.saturating_sub(1);
            tell(&channel, News::Gone { pid: pid.as_raw_nonzero().get(), status: status.as_raw() });
        }
    }
    Ok(0)
}

/// What a worker does first, in this order: it belongs to the template's life, leaves the template's signals and channel behind,
/// and only then lets signals through.
fn begin_worker(signals: Signals, channel: OwnedFd, template: Pid) -> PyResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if rustix::process::getppid() != Some(template) {
        // The template ended before the kernel was asked to watch it; then so does this.
        let _ = kill_process(getpid(), Signal::KILL);
    }
    signals.unregister();
    drop(channel);
    Ok(())
}

/// The supervisor reads these; if it is gone, the kernel ends this process.
fn tell(channel: &OwnedFd, news: News) {
    let _ = send(channel, &news.encode(), SendFlags::NOSIGNAL);
}

/// Signals that wake the template.
struct Signals {
    ours: UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        let (ours, handlers) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // The template ends when its last worker has, and not by a signal that a terminal or a service manager gives to all.
        let registered = vec![pipe::register(SIGCHLD, handlers.try_clone()?)?, pipe::register(SIGTERM, handlers)?];
        Ok(Self { ours, registered })
    }

    /// Waits for a signal or, unless that is closed, for the channel.
    fn wait(&self, py: Python<'_>, channel: &OwnedFd, closed: bool) -> PyResult<()> {
        py.detach(|| {
            let mut watched = [PollFd::new(&self.ours, PollFlags::IN), PollFd::new(channel, PollFlags::IN)];
            let count = if closed { 1 } else { 2 };
            match poll(&mut watched[..count], None) {
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(std::io::Error::from(error)),
            }
        })?;
        let mut bytes = [0; 64];
        while matches!((&self.ours).read(&mut bytes), Ok(1..)) {}
        py.check_signals()
    }

    fn unregister(self) {
        for id in self.registered {
            unregister(id);
        }
    }
}
