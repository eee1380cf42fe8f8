//! Connections that would wait for a busy worker go to another ([`wire::connection_queue`]).
//!
//! While all threads of a worker are busy with the same work for longer than a moment, a thread
//! without Python watches the connections that wait, and gives each to other workers as soon as
//! something comes on it. If these are busy, too, it lies in the queue until one of them, or this
//! one, has time. That thread begins when it is needed for the first time, and sleeps while
//! requests are fast.
//!
//! A worker that is to end gives all away that wait, at once, and so web servers notice nothing of
//! its end.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll},
    io::{Errno, fcntl_dupfd_cloexec, read, write},
};
use wire::connection_queue::{ConnectionHistory, ConnectionQueue};

use crate::{
    pool::serving::{HANDOVER, STOP, ServingThread, Worker, connections::forget},
    process::{
        fork,
        forks::{
            Descriptor, {self},
        },
        threads::{
            Missing, Stack, {self},
        },
    },
    transport::fastcgi::{FastCgiConnection, WorkerStatus},
};

/// How long a worker has to be busy with the same work before its connections are watched; twice as
/// long at most.
const MOMENT: Duration = Duration::from_millis(10);

/// How long a worker that ends waits for room in the queue before it closes what it cannot give
/// away.
const PATIENCE: Duration = Duration::from_millis(250);

/// The stack of the thread that looks out, which calls little.
const STACK: Stack = Stack::of_bytes(256 * 1024);

/// In [`QueueThread::turns`]: one more thread that works, and one more piece of work. The lower half is
/// the number of threads that do.
const BEGUN: u64 = (1 << 32) + 1;

/// What a worker knows of the queue, and the thread that puts connections into it.
pub(crate) struct QueueThread {
    handover: Handover<Descriptor>,
    epoll: Arc<Descriptor>,
    waiting: Arc<Mutex<BTreeMap<u64, FastCgiConnection>>>,
    /// Readable when the worker is to end.
    stop: Arc<Descriptor>,
    threads: u64,
    /// How often a thread has begun to work, and how many do. It is the same at two looks if all
    /// threads do the same as before.
    turns: AtomicU64,
    /// The thread that looks out sleeps, or has not begun: whoever takes the last thread while
    /// connections wait wakes it.
    asleep: AtomicBool,
    /// It watches connections: who goes back to wait for events wakes it.
    watches: AtomicBool,
    /// It is to end.
    over: AtomicBool,
    /// What wakes it.
    bell: Descriptor,
    /// There is the thread.
    has_begun: AtomicBool,
    /// The thread as long as it is not there.
    missing: Missing<()>,
}

impl QueueThread {
    /// What is needed for it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.handover.descriptors().into_iter().chain([self.bell.as_fd()])
    }

    /// For a worker with these connections, and so many threads, all of which are about to wait.
    pub(crate) fn new(
        handover: ConnectionQueue<Descriptor>,
        epoll: &Arc<Descriptor>,
        waiting: &Arc<Mutex<BTreeMap<u64, FastCgiConnection>>>,
        stop: &Arc<Descriptor>,
        threads: u32,
    ) -> std::io::Result<Arc<Self>> {
        // All idle workers wake for each connection: the kernel would forget those that a woken one
        // leaves to others, since it tells each only once that there is something.
        epoll::add(
            epoll,
            handover.pop_end(),
            epoll::EventData::new_u64(HANDOVER),
            epoll::EventFlags::IN,
        )?;
        let threads = u64::from(threads.max(1));
        Ok(Arc::new(Self {
            handover,
            epoll: epoll.clone(),
            waiting: waiting.clone(),
            stop: stop.clone(),
            threads,
            turns: AtomicU64::new(threads),
            asleep: AtomicBool::new(true),
            watches: AtomicBool::new(false),
            over: AtomicBool::new(false),
            bell: Descriptor::made(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?,
            has_begun: AtomicBool::new(false),
            missing: Missing::new(vec![()]),
        }))
    }

    /// A thread of the worker is about to wait for an event.
    pub(crate) fn waits(&self) {
        self.turns.fetch_sub(1, Ordering::SeqCst);
        if self.watches.load(Ordering::SeqCst) && self.watches.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    /// It has waited, and `event` is what it does next. In a forked child, nothing of this is
    /// called.
    pub(crate) fn works(self: &Arc<Self>, event: u64) {
        // In one order for all with what the other thread does: either it sees this, or here is
        // seen that it sleeps.
        let turns = self.turns.fetch_add(BEGUN, Ordering::SeqCst).wrapping_add(BEGUN);
        if event == STOP || !self.are_all_busy(turns) || !self.asleep.load(Ordering::SeqCst) {
            return;
        }
        let others = {
            let waiting = self.waiting();
            // The only thread is about to serve this one. One of several may first have to wait for
            // the interpreter.
            waiting.len() - usize::from(self.threads == 1 && waiting.contains_key(&event))
        };
        if others > 0 && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// No connection is given away any more but by [`Worker::drain`].
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        // Nobody waits for the thread: the application may have closed the bell.
        if self.has_begun.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    #[cold]
    fn wake(self: &Arc<Self>) {
        if self.has_begun.load(Ordering::SeqCst) {
            return self.ring();
        }
        let start = |(): &()| {
            let queue = self.clone();
            fork::without_signals(|| {
                threads::start("wsgate-queue", STACK, move || queue.look_out())
            })
            .map(drop)
        };
        match self.missing.try_again(start) {
            Some(0) => self.has_begun.store(true, Ordering::SeqCst),
            // Without the thread connections stay where they are. The thread that becomes busy last
            // tries again.
            _ => self.asleep.store(true, Ordering::SeqCst),
        }
    }

    fn look_out(&self) {
        let mut seen = self.turns.load(Ordering::SeqCst);
        while !self.over.load(Ordering::SeqCst) {
            self.pause(Some(MOMENT));
            let turns = self.turns.load(Ordering::SeqCst);
            if turns == seen && self.are_all_busy(turns) {
                self.watch(turns);
            } else if !self.are_all_busy(turns) || self.waiting().is_empty() {
                // Whoever takes the last thread from now on wakes this one.
                self.asleep.store(true, Ordering::SeqCst);
                if self.turns.load(Ordering::SeqCst) == turns && !self.over.load(Ordering::SeqCst) {
                    self.pause(None);
                }
                self.asleep.store(false, Ordering::SeqCst);
            }
            seen = self.turns.load(Ordering::SeqCst);
        }
    }

    /// Watches the connections that wait, as long as all threads are busy as they are at `turns`.
    fn watch(&self, turns: u64) {
        loop {
            self.watches.store(true, Ordering::SeqCst);
            if self.turns.load(Ordering::SeqCst) != turns || self.over.load(Ordering::SeqCst) {
                break;
            }
            let ready = self.await_ready();
            if self.turns.load(Ordering::SeqCst) != turns {
                break;
            }
            let kept = ready.into_iter().filter(|data| !self.give_away(turns, *data)).count();
            if kept > 0 {
                // There is no room, or nobody takes any more, since the pool ends.
                self.pause(Some(MOMENT).filter(|_| !self.handover.is_closed()));
            }
        }
        self.watches.store(false, Ordering::SeqCst);
    }

    /// ConnectionLimits until something comes on a connection that can be given away, or the worker is told to
    /// end, upon which it needs none of them, or the bell rings. Gives the connections.
    fn await_ready(&self) -> Vec<u64> {
        let movable = |(data, peer): (&u64, &FastCgiConnection)| {
            peer.can_move().then(|| (*data, peer.watched()))
        };
        let peers: Vec<(u64, WorkerStatus)> = self.waiting().iter().filter_map(movable).collect();
        let is_told = self.is_told();
        if is_told && !peers.is_empty() {
            return peers.iter().map(|(data, _)| *data).collect();
        }
        let stop = Some(self.stop.as_fd()).filter(|_| !is_told);
        let sockets =
            peers.iter().map(|(_, peer)| peer.as_fd()).chain([self.bell.as_fd()]).chain(stop);
        let mut watched: Vec<_> =
            sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
        if poll(&mut watched, None).is_err() {
            self.pause(Some(MOMENT));
            return Vec::new();
        }
        self.heed(watched.get(peers.len()));
        let is_ready = |watched: &PollFd<'_>| !watched.revents().is_empty();
        peers
            .iter()
            .zip(&watched)
            .filter(|(_, watched)| is_ready(watched))
            .map(|((data, _), _)| *data)
            .collect()
    }

    /// Gives one connection to other workers, unless this one has time by now. Tells whether it
    /// need not be tried again.
    fn give_away(&self, turns: u64, data: u64) -> bool {
        let mut waiting = self.waiting();
        if self.turns.load(Ordering::SeqCst) != turns {
            return true;
        }
        let Some(peer) = waiting.get(&data) else {
            return true;
        };
        if !peer.has_gone() && peer.give(&self.handover).is_err() {
            return false;
        }
        forget(&self.epoll, peer);
        // An event of it that a thread has been given by now finds nothing.
        let peer = waiting.remove(&data);
        drop(waiting);
        drop(peer);
        true
    }

    /// Has the worker been asked to stop?
    fn is_told(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&at_once)), Ok(1..))
    }

    fn are_all_busy(&self, turns: u64) -> bool {
        turns & u64::from(u32::MAX) == self.threads
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, FastCgiConnection>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, until the bell rings if not for less.
    fn pause(&self, patience: Option<Duration>) {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut watched = [PollFd::new(&self.bell, PollFlags::IN)];
        if poll(&mut watched, patience.as_ref()).is_err() {
            std::thread::sleep(MOMENT);
        }
        self.heed(watched.first());
    }

    /// Silences the bell, if it has rung. If the application has closed it, no wait is one any
    /// more, and the thread ends.
    fn heed(&self, bell: Option<&PollFd<'_>>) {
        let is_sound = match bell {
            Some(bell) if bell.revents().is_empty() => true,
            _ => matches!(read(&self.bell, &mut [0; 8]), Ok(8) | Err(Errno::INTR)),
        };
        if !is_sound {
            self.over.store(true, Ordering::SeqCst);
        }
    }

    /// Takes a connection out of the queue, if there is one.
    fn take(&self) -> Result<Option<(Descriptor, ConnectionHistory)>, Errno> {
        forks::without_forks(|| {
            Ok(self.handover.pop()?.map(|given| (given.socket.into(), given.history)))
        })
    }

    fn ring(&self) {
        // One that is full has rung already.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Worker {
    /// Takes a connection that another worker has given away, and goes on with it.
    pub(crate) fn adopt(&self, seat: &mut ServingThread<'_, '_>) {
        let Some(queue) = &self.queue else {
            return;
        };
        // What this process has no number for would be lost.
        if let Err(Errno::MFILE) =
            Descriptor::made(|| fcntl_dupfd_cloexec(queue.handover.exit(), 0))
        {
            return seat.application.py().detach(|| self.make_room());
        }
        match queue.take() {
            Ok(Some(given)) => self.go_on_with(seat, given),
            // The pool ends, and this worker is about to be told.
            Ok(None) => drop(epoll::delete(&self.epoll, queue.handover.exit())),
            // Taken by another worker, most of the time.
            Err(Errno::AGAIN | Errno::INTR | Errno::MFILE | Errno::NFILE) => {}
            // The application has closed it. The kernel would tell of it without an end.
            Err(_) => self.end(),
        }
    }

    /// Is there anybody to give connections to?
    pub(crate) fn gives_away(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.handover.is_over())
    }

    /// Gives those of `peers` away that can be, and keeps the others. While there is no room it
    /// waits, but not after `until`.
    pub(crate) fn give_all(&self, peers: &mut Vec<(u64, FastCgiConnection)>, until: Instant) {
        let Some(queue) = self.queue.as_ref().filter(|queue| !queue.handover.is_over()) else {
            return;
        };
        peers.retain(|(_, peer)| {
            while peer.can_move() {
                match peer.give(&queue.handover) {
                    Ok(()) => {
                        forget(&self.epoll, peer);
                        return false;
                    }
                    Err(Errno::AGAIN) => {
                        let left = until.saturating_duration_since(Instant::now());
                        let mut watched =
                            [PollFd::from_borrowed_fd(queue.handover.entrance(), PollFlags::OUT)];
                        let patience = Timespec::try_from(left).ok();
                        if left.is_zero()
                            || !matches!(poll(&mut watched, patience.as_ref()), Ok(1..))
                        {
                            return true;
                        }
                    }
                    Err(_) => return true,
                }
            }
            true
        });
    }

    /// When a worker that begins to end now closes what it could not give away.
    pub(crate) fn gives_until() -> Instant {
        Instant::now() + PATIENCE
    }

    /// At the end of the pool: takes all that is in the queue, since there may be nobody else to
    /// serve it.
    pub(crate) fn adopt_all(&self, seat: &mut ServingThread<'_, '_>) {
        let Some(queue) = self.queue.as_ref().filter(|queue| queue.handover.is_over()) else {
            return;
        };
        while let Ok(Some(given)) = queue.take() {
            self.go_on_with(seat, given);
        }
    }

    fn go_on_with(&self, seat: &mut ServingThread<'_, '_>, (socket, past): (Descriptor, Past)) {
        let data = self.next.fetch_add(1, Ordering::Relaxed);
        let buffers = seat.buffers.pop();
        let peer = FastCgiConnection::new(socket, self.limits, buffers).with_past(past);
        let peer = peer.with_socket_timeout(self.waits.socket_timeout);
        self.drive(seat, data, peer, false);
    }
}
