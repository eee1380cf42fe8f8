//! Requests on connections of a busy worker go to an idle one ([`wire::connection_queue`]).
//!
//! If all threads of a worker are busy with the same work for more than a moment, the queue thread
//! watches the waiting connections. This thread runs no Python. When bytes arrive on a connection,
//! the thread puts the connection into the queue of the pool. The connection stays in the queue
//! until a worker, possibly this one, is idle. The thread is started when first needed, and sleeps
//! while requests are fast.
//!
//! A stopping worker puts all its waiting connections into the queue, so that web servers do not
//! notice the stop.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, fcntl_dupfd_cloexec, read, write},
};
use wire::{
    connection_queue::{ConnectionHistory, ConnectionQueue},
    launch::Service,
};

use crate::{
    log::Log,
    pool::serving::{
        connections::Connections,
        event_loop::{Event, EventLoop},
    },
    process::{
        fork,
        forks::{self, Descriptor},
        poll::is_readable,
        threads::{self, PendingThreads, StackSize},
    },
    transport::Connection,
};

/// How long a worker must be busy with the same work before its connections are watched. The real
/// time is up to twice as long.
const BUSY_TIME: Duration = Duration::from_millis(10);

/// How long a stopping worker waits for room in the queue before it closes the remaining
/// connections.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_millis(250);

/// Stack size of the thread in bytes; its call depth is small.
const STACK: StackSize = StackSize::of_bytes(256 * 1024);

/// In [`QueueThread::turns`]: one more busy thread, and one more piece of work. The lower half is
/// the number of busy threads.
const WORK_BEGUN: u64 = (1 << 32) + 1;

/// The queue in one worker, and the thread that puts connections into the queue.
pub(super) struct QueueThread<C: Connection> {
    queue: ConnectionQueue<Descriptor>,
    events: Arc<EventLoop>,
    connections: Arc<Connections<C>>,
    threads: u64,
    /// Requests that wait for a worker with short requests go into the queue, too.
    limits_waiting: bool,
    /// How often a thread has begun to work, and how many threads are busy. If two values are
    /// equal, all threads are still busy with the same work.
    turns: AtomicU64,
    /// The queue thread sleeps or was not started. The last thread that becomes busy while
    /// connections wait wakes the queue thread.
    is_asleep: AtomicBool,
    /// The queue thread watches connections. A thread that becomes idle wakes the queue thread.
    is_watching: AtomicBool,
    /// The queue thread was asked to end.
    is_over: AtomicBool,
    /// Wakes the thread.
    wakeup: Descriptor,
    has_begun: AtomicBool,
    /// The data of the thread until it is started.
    missing: PendingThreads<()>,
}

impl<C: Connection> QueueThread<C> {
    /// The state for a worker with these connections and this number of threads, which are all
    /// about to wait.
    ///
    /// # Errors
    /// If file descriptors or memory are short.
    pub(super) fn new(
        queue: ConnectionQueue<Descriptor>,
        events: &Arc<EventLoop>,
        connections: &Arc<Connections<C>>,
        service: &Service,
    ) -> std::io::Result<Arc<Self>> {
        events.watch_queue(queue.pop_end())?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wakeup = Descriptor::made(|| eventfd(0, flags))?;
        let threads = u64::from(service.threads.max(1));
        Ok(Arc::new(Self {
            queue,
            events: events.clone(),
            connections: connections.clone(),
            threads,
            limits_waiting: service.limits_waiting,
            turns: AtomicU64::new(threads),
            is_asleep: AtomicBool::new(true),
            is_watching: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            wakeup,
            has_begun: AtomicBool::new(false),
            missing: PendingThreads::new(vec![()]),
        }))
    }

    /// The file descriptors that the queue needs.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queue.descriptors().into_iter().chain([self.wakeup.as_fd()])
    }

    /// Records that a thread of the worker is about to wait for an event.
    pub(super) fn note_idle(&self) {
        self.turns.fetch_sub(1, Ordering::SeqCst);
        if self.is_watching.load(Ordering::SeqCst) && self.is_watching.swap(false, Ordering::SeqCst)
        {
            self.ring();
        }
    }

    /// Records that a thread has stopped waiting, to handle `event`.
    pub(super) fn note_busy(self: &Arc<Self>, event: Option<Event>) {
        // The queue thread writes `is_asleep` before it reads `turns`, with sequential consistency.
        // So either the queue thread sees this turn, or this thread sees that the queue thread
        // sleeps.
        let turns = self.turns.fetch_add(WORK_BEGUN, Ordering::SeqCst).wrapping_add(WORK_BEGUN);
        let Some(event) = event.filter(|event| *event != Event::Stop) else {
            return;
        };
        if !self.are_all_busy(turns) || !self.is_asleep.load(Ordering::SeqCst) {
            return;
        }
        // A single thread serves this connection at once. With several threads, the thread may
        // first have to wait for the interpreter.
        let served = match event {
            Event::Connection(token) if self.threads == 1 => Some(token),
            _ => None,
        };
        if self.connections.count_without(served) > 0
            && self.is_asleep.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        // The thread is not joined, because it never ends if the application has closed its file
        // descriptor.
        if self.has_begun.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Do other workers take connections? When the pool stops, they do not.
    pub(super) fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Takes a connection out of the queue; `None` if the pool stops and the queue is empty.
    ///
    /// # Errors
    /// `AGAIN` if the queue is empty, `MFILE` if no file descriptor was free for the connection.
    pub(super) fn take(&self) -> Result<Option<(Descriptor, ConnectionHistory)>, Errno> {
        forks::without_forks(|| {
            Ok(self.queue.pop()?.map(|given| (given.socket.into(), given.history)))
        })
    }

    /// Is a file descriptor free for a connection from the queue? Otherwise the connection would be
    /// lost.
    pub(super) fn has_descriptor(&self) -> bool {
        let copied = Descriptor::made(|| fcntl_dupfd_cloexec(self.queue.pop_end(), 0));
        !matches!(copied, Err(Errno::MFILE))
    }

    /// Stops watching the queue after its last connection.
    pub(super) fn forget(&self) {
        self.events.forget(self.queue.pop_end());
    }

    /// Puts the movable `connections` into the queue, and keeps the others. Waits for room until
    /// `deadline`.
    pub(super) fn give_all(&self, connections: &mut Vec<(u64, C)>, deadline: Instant) {
        if !self.is_open() {
            return;
        }
        connections.retain(|(_, connection)| {
            while connection.can_move() {
                match self.queue.push(connection.socket(), connection.history()) {
                    Ok(()) => {
                        self.events.forget(connection.socket());
                        return false;
                    }
                    Err(Errno::AGAIN) if self.wait_for_room(deadline) => {}
                    Err(_) => return true,
                }
            }
            true
        });
    }

    fn wait_for_room(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut watched = [PollFd::from_borrowed_fd(self.queue.push_end(), PollFlags::OUT)];
        !left.is_zero() && matches!(poll(&mut watched, timeout.as_ref()), Ok(1..))
    }

    #[cold]
    fn wake(self: &Arc<Self>) {
        if self.has_begun.load(Ordering::SeqCst) {
            return self.ring();
        }
        let start = |(): &()| {
            let queue = self.clone();
            fork::without_signals(|| threads::start("wsgate-queue", STACK, move || queue.run()))
                .map(drop)
        };
        match self.missing.try_again(start, |message| Log::without_request("worker").write(message))
        {
            Some(0) => self.has_begun.store(true, Ordering::SeqCst),
            // Without the queue thread, connections stay in this worker. The next thread that
            // becomes the last busy one tries again.
            _ => self.is_asleep.store(true, Ordering::SeqCst),
        }
    }

    fn run(&self) {
        let mut seen = self.turns.load(Ordering::SeqCst);
        let mut waiting = Vec::new();
        while !self.is_over.load(Ordering::SeqCst) {
            self.pause(Some(BUSY_TIME));
            let turns = self.turns.load(Ordering::SeqCst);
            if turns == seen && self.are_all_busy(turns) {
                self.watch(turns);
            } else if !self.are_all_busy(turns) || self.connections.count_without(None) == 0 {
                // From here on, the last thread that becomes busy wakes this one.
                self.is_asleep.store(true, Ordering::SeqCst);
                if self.turns.load(Ordering::SeqCst) == turns
                    && !self.is_over.load(Ordering::SeqCst)
                {
                    self.pause(None);
                }
                self.is_asleep.store(false, Ordering::SeqCst);
            }
            if self.limits_waiting {
                waiting = self.give_waiting(&waiting);
            }
            seen = self.turns.load(Ordering::SeqCst);
        }
    }

    /// Watches the waiting connections while `turns` does not change.
    fn watch(&self, turns: u64) {
        loop {
            self.is_watching.store(true, Ordering::SeqCst);
            if self.turns.load(Ordering::SeqCst) != turns || self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let ready = self.wait_for_ready();
            if self.turns.load(Ordering::SeqCst) != turns {
                break;
            }
            let kept = ready.into_iter().filter(|token| !self.give_away(turns, *token)).count();
            if kept > 0 {
                // The queue is full, or the pool stops and no worker takes connections.
                self.pause(Some(BUSY_TIME).filter(|_| self.is_open()));
            }
        }
        self.is_watching.store(false, Ordering::SeqCst);
    }

    /// Waits until bytes arrive on a movable connection, the worker is asked to stop, or another
    /// thread wakes this one. Returns the connections to put into the queue: all of them if the
    /// worker stops.
    fn wait_for_ready(&self) -> Vec<u64> {
        let connections = self.connections.movable();
        let is_stopping = self.is_stopping();
        if is_stopping && !connections.is_empty() {
            return connections.iter().map(|(token, _)| *token).collect();
        }
        let stop = Some(self.events.stop_socket()).filter(|_| !is_stopping);
        let sockets = connections.iter().map(|(_, socket)| socket.as_fd());
        let mut watched: Vec<_> = sockets
            .chain([self.wakeup.as_fd()])
            .chain(stop)
            .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
            .collect();
        if poll(&mut watched, None).is_err() {
            self.pause(Some(BUSY_TIME));
            return Vec::new();
        }
        self.clear_wakeup(watched.get(connections.len()));
        connections
            .iter()
            .zip(&watched)
            .filter(|(_, watched)| !watched.revents().is_empty())
            .map(|((token, _), _)| *token)
            .collect()
    }

    /// Puts one connection into the queue, unless a thread of this worker has become idle. Is the
    /// connection done, without another attempt?
    fn give_away(&self, turns: u64, token: u64) -> bool {
        self.connections.give_away(
            token,
            || self.turns.load(Ordering::SeqCst) == turns,
            |connection| self.queue.push(connection.socket(), connection.history()).is_ok(),
        )
    }

    /// Puts the connections into the queue whose requests have waited since `before`, when they
    /// waited, too. Returns those whose requests have not waited before.
    fn give_waiting(&self, before: &[u64]) -> Vec<u64> {
        let connections = self.connections.movable();
        let sockets = connections.iter().map(|(_, socket)| socket.as_fd());
        let mut watched: Vec<_> =
            sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
        if poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
            return Vec::new();
        }
        let waiting = connections.iter().zip(&watched);
        let waiting = waiting.filter(|(_, watched)| !watched.revents().is_empty());
        waiting
            .map(|((token, _), _)| *token)
            .filter(|token| !before.contains(token) || !self.give_waiting_one(*token))
            .collect()
    }

    fn give_waiting_one(&self, token: u64) -> bool {
        let give =
            |connection: &C| self.queue.push(connection.socket(), connection.history()).is_ok();
        self.connections.give_away(token, || true, give)
    }

    fn is_stopping(&self) -> bool {
        is_readable(self.events.stop_socket())
    }

    fn are_all_busy(&self, turns: u64) -> bool {
        turns & u64::from(u32::MAX) == self.threads
    }

    /// Sleeps until another thread wakes this one, but not longer than `timeout`.
    fn pause(&self, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut watched = [PollFd::new(&self.wakeup, PollFlags::IN)];
        if poll(&mut watched, timeout.as_ref()).is_err() {
            std::thread::sleep(BUSY_TIME);
        }
        self.clear_wakeup(watched.first());
    }

    /// Clears the wake-up, if any. If the application has closed the file descriptor, no wait
    /// works, and the thread ends.
    fn clear_wakeup(&self, wakeup: Option<&PollFd<'_>>) {
        let is_sound = match wakeup {
            Some(wakeup) if wakeup.revents().is_empty() => true,
            _ => matches!(read(&self.wakeup, &mut [0; 8]), Ok(8) | Err(Errno::INTR)),
        };
        if !is_sound {
            self.is_over.store(true, Ordering::SeqCst);
        }
    }

    fn ring(&self) {
        // A full counter wakes the thread, too.
        let _ = write(&self.wakeup, &1_u64.to_ne_bytes());
    }
}
