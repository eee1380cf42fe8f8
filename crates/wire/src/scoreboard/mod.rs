//! The scoreboard of a pool: shared memory that workers write and the supervisor reads, without a
//! message between them.
//!
//! The scoreboard answers while every worker is busy or stuck. Each thread of each worker has a
//! line, and only that thread writes it. The lines of the threads of one worker are its block. A
//! reader that meets a line in the middle of a change reads it again.

mod code_loads;
mod histogram;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence},
};

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

pub use self::{
    code_loads::{ChangeReport, CodeLoads},
    histogram::{BOUNDS_MICROSECONDS, Histogram, HistogramSum, LineHistograms},
    reading::ThreadStatus,
    writing::ThreadCounts,
};
use crate::pool_logs::LogKind;

/// Room for id, method and target of a request, in words of 8 bytes.
const REQUEST_WORDS: usize = 24;

/// Classes of a response's status: 1xx to 5xx.
pub const STATUS_CLASSES: usize = 5;

/// States of a thread, as they stand in a line.
mod state {
    /// The thread waits for a request.
    pub(super) const IDLE: u32 = 0;
    /// The thread serves a request.
    pub(super) const BUSY: u32 = 1;
    /// The thread accepts no further connection.
    pub(super) const LEAVING: u32 = 2;
    /// The thread could not be started.
    pub(super) const MISSING: u32 = 3;
}

/// Fields of the whole pool, before the lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct PoolHeader {
    /// How often the error log and the access log were reopened.
    log_generations: [AtomicU32; 2],
    /// When the supervisor wants to be woken: a number of [`Wakeup`].
    wants_wakeup: AtomicU32,
    /// Requests of all workers, exited ones included, whose client left before the response was
    /// complete.
    aborted: AtomicU64,
    /// Most threads that were busy at once.
    peak_busy: AtomicU64,
    /// How often all threads of the maximum number of workers became busy.
    max_reached: AtomicU64,
    /// Threads of the maximum number of workers; 0 without a supervisor.
    capacity: AtomicU32,
    /// All threads of the maximum number of workers were busy at the last look.
    is_full: AtomicU32,
    /// Warnings that were logged already: bits of [`OneTimeWarning`].
    warned: AtomicU32,
    /// A worker has learned from the web server how long a request waited.
    knows_waits: AtomicU32,
    /// Number of lines in use; there may be room for more.
    lines: AtomicU32,
    /// Attempts to load the code.
    code_loads: CodeLoads,
}

/// When a worker wakes the supervisor at the begin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakeup {
    /// At no request.
    Never,
    /// If no thread is idle then.
    WhenBusy,
    /// At each request.
    Always,
}

/// A warning that is logged once in the life of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneTimeWarning {
    /// A response has a body and no `Content-Type`.
    NoContentType,
    /// A request body is longer than CONTENT_LENGTH.
    SurplusBody,
    /// The web server could not be asked to send a file.
    FileNotOffloaded,
}

impl OneTimeWarning {
    /// The bit of this warning in a set.
    pub const fn bit(self) -> u32 {
        match self {
            Self::NoContentType => 1,
            Self::SurplusBody => 2,
            Self::FileNotOffloaded => 4,
        }
    }
}

/// Mapped memory with the lines of a pool.
#[derive(Debug)]
pub struct Scoreboard {
    memory: MmapRaw,
    /// Number of lines that there is room for.
    room: usize,
}

/// The line of one thread of a worker. A line that is all zero was never written.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct ScoreboardLine {
    /// Odd while the line is being changed.
    version: AtomicU32,
    state: AtomicU32,
    pid: AtomicI32,
    thread: AtomicU32,
    /// Milliseconds of the monotonic clock at which the state was entered, at the tick before.
    since: AtomicU64,
    served: AtomicU64,
    /// Responses of the thread by class of their status.
    responses: [AtomicU64; STATUS_CLASSES],
    /// Status of the last response; 0 if none was begun.
    last_status: AtomicU32,
    /// Bytes of resident memory of the worker after its last request; 0 if not measured.
    resident: AtomicU64,
    /// Milliseconds from `since` to the timeout of the request; 0 if it has none.
    timeout: AtomicU64,
    request: [AtomicU64; REQUEST_WORDS],
}

impl Scoreboard {
    /// Creates a scoreboard with so many lines. Other processes attach to the descriptor.
    ///
    /// # Errors
    /// If memory or descriptors are short.
    pub fn create(lines: usize) -> io::Result<(Self, OwnedFd)> {
        Self::create_with_room(lines, lines)
    }

    /// Creates a scoreboard with so many lines, which may become as many as `room`. Lines that
    /// are not in use take no memory.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with_room(lines: usize, room: usize) -> io::Result<(Self, OwnedFd)> {
        let room = room.max(lines);
        let descriptor =
            memfd_create("wsgate-scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, Self::size(room) as u64)?;
        // Workers have the descriptor, too: a worker that cut the file would kill its readers.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let scoreboard = Self::attach(descriptor.try_clone()?)?;
        scoreboard.use_lines(lines);
        Ok((scoreboard, descriptor))
    }

    /// Attaches to the scoreboard behind `descriptor`.
    ///
    /// # Errors
    /// If the file cannot be mapped or is too short.
    pub fn attach(descriptor: OwnedFd) -> io::Result<Self> {
        let memory = MmapRaw::map_raw(&File::from(descriptor))?;
        let Some(bytes) = memory.len().checked_sub(size_of::<PoolHeader>()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let most = bytes / (size_of::<ScoreboardLine>() + size_of::<LineHistograms>());
        // The gap before the histograms takes less room than a line.
        let fits = Self::size(most) <= memory.len();
        let room = if fits { most } else { most.saturating_sub(1) };
        Ok(Self { memory, room })
    }

    /// Where the histograms begin, after so many lines.
    fn histograms_offset(lines: usize) -> usize {
        let end = size_of::<PoolHeader>() + lines * size_of::<ScoreboardLine>();
        end.next_multiple_of(align_of::<LineHistograms>())
    }

    /// Size of the memory for so many lines.
    fn size(lines: usize) -> usize {
        Self::histograms_offset(lines) + lines * size_of::<LineHistograms>()
    }

    /// Number of lines in use. Any process of the pool may have changed the number.
    pub fn lines(&self) -> usize {
        let lines = self.header().lines.load(Ordering::Relaxed);
        usize::try_from(lines).unwrap_or(usize::MAX).min(self.room)
    }

    /// Number of lines that there is room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Sets the number of lines in use.
    pub fn use_lines(&self, lines: usize) {
        let lines = u32::try_from(lines.min(self.room)).unwrap_or(u32::MAX);
        self.header().lines.store(lines, Ordering::Relaxed);
    }

    /// How often a log was reopened. A process whose file is of an earlier generation reopens it.
    pub fn log_generation(&self, log: LogKind) -> u32 {
        self.log_generation_of(log).load(Ordering::Acquire)
    }

    /// Counts that a log was reopened.
    pub fn next_log_generation(&self, log: LogKind) {
        self.log_generation_of(log).fetch_add(1, Ordering::AcqRel);
    }

    fn log_generation_of(&self, log: LogKind) -> &AtomicU32 {
        let [error, access] = &self.header().log_generations;
        match log {
            LogKind::Error => error,
            LogKind::Access => access,
        }
    }

    /// The line with the number `number`.
    pub fn line(&self, number: usize) -> Option<&ScoreboardLine> {
        (number < self.room).then(|| {
            // SAFETY: the mapping begins at a page, is as long as the header and so many lines, and
            // lives as long as `self`; the header is as long as its alignment, which is also a
            // line's. Every field is an atomic, for which any bytes are a value; all that share the
            // memory change it through such atomics alone.
            unsafe {
                let lines = self.memory.as_ptr().add(size_of::<PoolHeader>());
                &*lines.cast::<ScoreboardLine>().add(number)
            }
        })
    }

    /// The histograms of the line with the number `number`.
    pub fn histograms(&self, number: usize) -> Option<&LineHistograms> {
        (number < self.room).then(|| {
            // SAFETY: as for a line; `attach` has checked that there is room for the histograms of
            // all lines, and the mapping and the offset are aligned for them.
            unsafe {
                let first = self.memory.as_ptr().add(Self::histograms_offset(self.room));
                &*first.cast::<LineHistograms>().add(number)
            }
        })
    }

    /// How long all requests took, and how long they waited before.
    pub fn request_times(&self) -> (HistogramSum, HistogramSum) {
        let (mut duration, mut waiting) = (HistogramSum::default(), HistogramSum::default());
        for number in 0..self.lines() {
            // Looking at memory that was never used would allocate it.
            let was_used = self.line(number).is_some_and(ScoreboardLine::was_used);
            if let Some(histograms) = self.histograms(number).filter(|_| was_used) {
                duration.add(&histograms.duration);
                waiting.add(&histograms.waiting);
            }
        }
        (duration, waiting)
    }

    /// Sets when workers wake the supervisor. Afterwards the supervisor looks at what they may have
    /// changed: either it sees the change, or a worker wakes it.
    pub fn want_wakeup(&self, wakeup: Wakeup) {
        self.header().wants_wakeup.store(wakeup as u32, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Must the supervisor be woken? A worker asks this after a request has begun.
    pub fn needs_wakeup(&self) -> bool {
        fence(Ordering::SeqCst);
        match self.header().wants_wakeup.load(Ordering::Relaxed) {
            wakeup if wakeup == Wakeup::Never as u32 => false,
            wakeup if wakeup == Wakeup::WhenBusy as u32 => !self.has_idle(),
            _ => true,
        }
    }

    /// Counts a request whose client left before the response was complete.
    pub fn count_aborted(&self) {
        self.header().aborted.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of all workers, exited ones included, whose client left before the response was
    /// complete.
    pub fn aborted(&self) -> u64 {
        self.header().aborted.load(Ordering::Relaxed)
    }

    /// Sets how many threads the maximum number of workers has.
    pub fn set_capacity(&self, threads: usize) {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        self.header().capacity.store(threads, Ordering::Relaxed);
    }

    /// Records how many threads are busy. Reading all lines takes longer than writing one, so a
    /// thread does this every few milliseconds at most.
    pub fn record_busy(&self) {
        let header = self.header();
        let lines = (0..self.lines()).filter_map(|number| self.line(number));
        let busy = lines.filter(|line| line.is_busy()).count();
        let peak = u64::try_from(busy).unwrap_or(u64::MAX);
        if peak > header.peak_busy.load(Ordering::Relaxed) {
            header.peak_busy.fetch_max(peak, Ordering::Relaxed);
        }
        let capacity = header.capacity.load(Ordering::Relaxed);
        let is_full = capacity > 0 && u32::try_from(busy).is_ok_and(|busy| busy >= capacity);
        if is_full && header.is_full.swap(1, Ordering::Relaxed) == 0 {
            header.max_reached.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that a thread has become idle.
    pub fn record_idle(&self) {
        let is_full = &self.header().is_full;
        if is_full.load(Ordering::Relaxed) != 0 {
            is_full.store(0, Ordering::Relaxed);
        }
    }

    /// Most threads that were busy at once.
    pub fn peak_busy(&self) -> u64 {
        self.header().peak_busy.load(Ordering::Relaxed)
    }

    /// How often all threads of the maximum number of workers became busy.
    pub fn max_reached(&self) -> u64 {
        self.header().max_reached.load(Ordering::Relaxed)
    }

    /// Attempts to load the code.
    pub fn code_loads(&self) -> &CodeLoads {
        &self.header().code_loads
    }

    /// Records that workers learn from the web server how long requests waited.
    pub fn note_known_waits(&self) {
        let knows_waits = &self.header().knows_waits;
        if knows_waits.load(Ordering::Relaxed) == 0 {
            knows_waits.store(1, Ordering::Relaxed);
        }
    }

    /// Do workers learn from the web server how long requests waited?
    pub fn knows_waits(&self) -> bool {
        self.header().knows_waits.load(Ordering::Relaxed) != 0
    }

    /// Marks `warning` as logged. Returns whether no worker had logged it before.
    pub fn is_first_warning(&self, warning: OneTimeWarning) -> bool {
        self.header().warned.fetch_or(warning.bit(), Ordering::Relaxed) & warning.bit() == 0
    }

    /// Can any thread accept a connection?
    pub fn has_idle(&self) -> bool {
        (0..self.lines()).filter_map(|number| self.line(number)).any(ScoreboardLine::is_idle)
    }

    fn header(&self) -> &PoolHeader {
        // SAFETY: as for a line; `attach` has checked that there is room for the header.
        unsafe { &*self.memory.as_ptr().cast::<PoolHeader>() }
    }
}
