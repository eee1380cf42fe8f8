//! What the threads of a worker wait for: one epoll set, and how the worker is asked to stop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    net::{SendFlags, SocketType, send},
    process::Signal,
};
use wire::running_clock;

use crate::{
    log::files,
    process::forks::{self, Descriptor},
};

/// Most events that the only thread of a worker fetches at a time.
const MAX_EVENTS: usize = 8;

/// Epoll data of what is not a connection. Listeners follow [`STOP`], then connections count on.
const STOP: u64 = 0;
const FIRST_LISTENER: u64 = 1;
/// Counting never reaches these.
const REOPEN_LOGS: u64 = u64::MAX;
const QUEUE: u64 = u64::MAX - 1;

/// What a thread of a worker wakes up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The worker is asked to stop.
    Stop,
    /// A web server connects to the listener at this position.
    Listener(usize),
    /// Something has arrived on the connection with this token.
    Connection(u64),
    /// A connection is in the queue of the pool.
    Queue,
    /// The log files are to be reopened.
    ReopenLogs,
}

/// The epoll set of a worker.
pub(super) struct EventLoop {
    epoll: Descriptor,
    /// Readable when the worker is to stop. Never read, so that every thread sees it.
    stop: Descriptor,
    stopper: Descriptor,
    is_draining: AtomicBool,
    listeners: usize,
    next_token: AtomicU64,
    max_events: usize,
    /// One thread alone gets the next event of a connection.
    is_single_threaded: bool,
}

impl EventLoop {
    /// An epoll set for a worker with so many listeners and threads. SIGTERM asks the worker to
    /// stop from now on.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub(super) fn new(listeners: usize, threads: u32) -> io::Result<Self> {
        let epoll = Descriptor::made(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        let (stop, stopper) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], stopper.try_clone()?, true)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        if let Some(bell) = files::bell() {
            // Never read: each write is an edge for every worker.
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, bell, epoll::EventData::new_u64(REOPEN_LOGS), flags)?;
        }
        let is_single_threaded = threads <= 1;
        Ok(Self {
            epoll,
            stop,
            stopper,
            is_draining: AtomicBool::new(false),
            listeners,
            next_token: AtomicU64::new(FIRST_LISTENER + listeners as u64),
            // An event that one of several threads has fetched is lost for the others.
            max_events: if is_single_threaded { MAX_EVENTS } else { 1 },
            is_single_threaded,
        })
    }

    /// Descriptors without which the worker cannot be woken.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.epoll.as_fd(), self.stop.as_fd(), self.stopper.as_fd()].into_iter()
    }

    /// Readable when the worker is to stop.
    pub(super) fn stop_socket(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Was the worker asked to stop?
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Asks every thread to stop.
    pub(super) fn stop(&self) {
        self.is_draining.store(true, Ordering::Release);
        // The other end is never read, and has room for a byte.
        let _ = send(&self.stopper, b"x", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Watches the listener at `position`. Of all workers that do, the kernel wakes one for a
    /// connection.
    pub(super) fn watch_listener(&self, position: usize, listener: impl AsFd) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(FIRST_LISTENER + position as u64);
        epoll::add(
            &self.epoll,
            listener,
            data,
            epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE,
        )
    }

    /// Watches the queue of the pool. The kernel wakes all idle workers for each connection: with
    /// an exclusive wake-up it would forget connections that the woken worker leaves to others.
    pub(super) fn watch_queue(&self, queue: impl AsFd) -> Result<(), Errno> {
        epoll::add(&self.epoll, queue, epoll::EventData::new_u64(QUEUE), epoll::EventFlags::IN)
    }

    /// The token of a new connection. Tokens are in the order in which connections arrive.
    pub(super) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// Watches a connection. One that `is_known` was watched before.
    pub(super) fn watch_connection(
        &self,
        token: u64,
        socket: impl AsFd,
        is_known: bool,
    ) -> Result<(), Errno> {
        let data = epoll::EventData::new_u64(token);
        let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        match (is_known, self.is_single_threaded) {
            (false, true) => epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN),
            (false, false) => epoll::add(&self.epoll, socket, data, once),
            (true, false) => epoll::modify(&self.epoll, socket, data, once),
            (true, true) => Ok(()),
        }
    }

    /// Stops watching a descriptor, if it was watched. Closing it is not enough: a child that the
    /// application has forked, or another worker, may have it open, too, and the kernel would go on
    /// reporting events.
    pub(super) fn forget(&self, watched: impl AsFd) {
        let _ = epoll::delete(&self.epoll, watched);
    }

    /// Waits for the next event; nothing if `timeout` is over or a signal came. Events that have
    /// come together with it are put into `fetched`, the next one last. With `has_deadline`, only
    /// time counts during which this process was running.
    ///
    /// # Errors
    /// If the application has closed or replaced the epoll set.
    pub(super) fn wait(
        &self,
        fetched: &mut Vec<Event>,
        timeout: Option<Duration>,
        has_deadline: bool,
    ) -> Result<Option<Event>, Errno> {
        let nothing = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(STOP),
        };
        let mut events = [nothing; MAX_EVENTS];
        let mut wait = |timeout: Option<Duration>| {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            epoll::wait(&self.epoll, &mut events[..self.max_events], timeout.as_ref())
        };
        let waited = if has_deadline { running_clock::wait(timeout, wait) } else { wait(timeout) };
        match waited {
            Ok(1) => Ok(Some(self.event(&events[0]))),
            Ok(0) | Err(Errno::INTR) => Ok(None),
            Ok(count) => {
                fetched.extend(events[..count].iter().rev().map(|event| self.event(event)));
                // A stop comes first. Then new connections, for which the kernel has woken no other
                // process: connections that wait here go to other workers if they have to wait for
                // long.
                fetched.sort_by_key(|event| {
                    (*event == Event::Stop, matches!(event, Event::Listener(_)))
                });
                Ok(fetched.pop())
            }
            Err(error) => Err(error),
        }
    }

    fn event(&self, event: &epoll::Event) -> Event {
        match event.data.u64() {
            STOP => Event::Stop,
            REOPEN_LOGS => Event::ReopenLogs,
            QUEUE => Event::Queue,
            data => match usize::try_from(data - FIRST_LISTENER) {
                Ok(position) if position < self.listeners => Event::Listener(position),
                _ => Event::Connection(data),
            },
        }
    }
}
