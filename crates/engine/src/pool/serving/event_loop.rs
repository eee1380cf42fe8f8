//! The epoll set on which the threads of a worker wait, and the stop of a worker.

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

/// Maximum number of events that a single thread fetches at a time.
const MAX_EVENTS: usize = 8;

/// Epoll data of events without a connection. Listeners follow [`STOP`], and tokens of connections
/// follow the listeners.
const STOP: u64 = 0;
const FIRST_LISTENER: u64 = 1;
/// Tokens never reach these values.
const REOPEN_LOGS: u64 = u64::MAX;
const QUEUE: u64 = u64::MAX - 1;

/// An event that wakes a thread of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The worker is asked to stop.
    Stop,
    /// A web server connects to the listener at this position.
    Listener(usize),
    /// Bytes have arrived on the connection with this token.
    Connection(u64),
    /// A connection is in the queue of the pool.
    Queue,
    /// The log files must be reopened.
    ReopenLogs,
}

/// The epoll set of a worker.
pub(super) struct EventLoop {
    epoll: Descriptor,
    /// Readable when the worker must stop. The socket is never read, so that every thread sees the
    /// event.
    stop: Descriptor,
    stopper: Descriptor,
    is_draining: AtomicBool,
    listeners: usize,
    next_token: AtomicU64,
    max_events: usize,
    /// Only one thread gets the next event of a connection.
    is_single_threaded: bool,
}

impl EventLoop {
    /// An epoll set for a worker with this number of listeners and threads. Installs the handler of
    /// SIGTERM, which asks the worker to stop.
    ///
    /// # Errors
    /// If file descriptors or memory are short.
    pub(super) fn new(listeners: usize, threads: u32) -> io::Result<Self> {
        let epoll = Descriptor::made(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        let (stop, stopper) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], stopper.try_clone()?, true)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        if let Some(bell) = files::bell() {
            // This eventfd is never read, so each write is an edge for every worker.
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

    /// The file descriptors that wake the worker.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.epoll.as_fd(), self.stop.as_fd(), self.stopper.as_fd()].into_iter()
    }

    /// Readable when the worker must stop.
    pub(super) fn stop_socket(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Was the worker asked to stop?
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Has SIGTERM arrived, which [`EventLoop::wait`] reports as [`Event::Stop`]?
    pub(super) fn is_asked_to_stop(&self) -> bool {
        forks::has_come(Signal::TERM.as_raw())
    }

    /// Asks every thread to stop.
    pub(super) fn stop(&self) {
        self.is_draining.store(true, Ordering::Release);
        // The socket is never read, and has room for a byte.
        let _ = send(&self.stopper, b"x", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Watches the listener at `position`. The kernel wakes one of all watching workers for a
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
    /// an exclusive wake-up, no other worker would be woken for a connection that the woken worker
    /// leaves.
    pub(super) fn watch_queue(&self, queue: impl AsFd) -> Result<(), Errno> {
        epoll::add(&self.epoll, queue, epoll::EventData::new_u64(QUEUE), epoll::EventFlags::IN)
    }

    /// The token of a new connection. Tokens are in the order in which connections arrive.
    pub(super) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// Watches a connection. `is_known` if it was watched before.
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

    /// Stops watching a file descriptor. Closing the file descriptor is not enough: if a forked
    /// child or another worker also has the file open, the kernel continues to report events.
    pub(super) fn forget(&self, watched: impl AsFd) {
        let _ = epoll::delete(&self.epoll, watched);
    }

    /// Waits for the next event; `None` after `timeout` or a signal. Further events that were
    /// fetched with it go into `fetched`, in reverse order. With `has_deadline`, only the time
    /// during which this process was running counts.
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
                // A stop is handled first, new connections second, because the kernel has woken no
                // other process for them. Other connections can go to another worker if they wait
                // for long.
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
