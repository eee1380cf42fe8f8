//! The scoreboard of a pool: shared memory that workers write and the supervisor reads, without a
//! message between them.
//!
//! The scoreboard answers while every worker is busy or stuck. Each thread of each worker has a
//! line, and only that thread writes it. The lines of the threads of one worker are its block. A
//! reader that meets a line in the middle of a change reads it again.

mod histogram;
mod reading;
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
    histogram::{BOUNDS_MICROSECONDS, Histogram, HistogramSum, LineHistograms},
    reading::ThreadStatus,
};
use crate::pool_logs::LogKind;

/// Room for id, method and target of a request, in words of 8 bytes.
const REQUEST_WORDS: usize = 24;

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
    abandoned: AtomicU64,
    /// Warnings that were logged already: bits of [`OneTimeWarning`].
    warned: AtomicU32,
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
}

impl OneTimeWarning {
    /// The bit of this warning in a set.
    pub const fn bit(self) -> u32 {
        match self {
            Self::NoContentType => 1,
            Self::SurplusBody => 2,
        }
    }
}

/// Mapped memory with the lines of a pool.
#[derive(Debug)]
pub struct Scoreboard {
    memory: MmapRaw,
    lines: usize,
}

/// The line of one thread of a worker. A line that is all zero was never written.
#[derive(Debug)]
#[repr(C)]
pub struct ScoreboardLine {
    /// Odd while the line is being changed.
    version: AtomicU32,
    state: AtomicU32,
    pid: AtomicI32,
    thread: AtomicU32,
    /// Milliseconds of the monotonic clock at which the state was entered, at the tick before.
    since: AtomicU64,
    served: AtomicU64,
    /// Bytes of resident memory of the worker after its last request; 0 if not measured.
    resident: AtomicU64,
    request: [AtomicU64; REQUEST_WORDS],
}

impl Scoreboard {
    /// Creates a scoreboard with so many lines. Other processes attach to the descriptor.
    ///
    /// # Errors
    /// If memory or descriptors are short.
    pub fn create(lines: usize) -> io::Result<(Self, OwnedFd)> {
        let descriptor =
            memfd_create("wsgate-scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, Self::size(lines) as u64)?;
        // Workers have the descriptor, too: a worker that cut the file would kill its readers.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::attach(descriptor.try_clone()?)?, descriptor))
    }

    /// Attaches to the scoreboard behind `descriptor`.
    ///
    /// # Errors
    /// If the file cannot be mapped or is too short.
    pub fn attach(descriptor: OwnedFd) -> io::Result<Self> {
        let memory = MmapRaw::map_raw(&File::from(descriptor))?;
        let Some(room) = memory.len().checked_sub(size_of::<PoolHeader>()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let most = room / (size_of::<ScoreboardLine>() + size_of::<LineHistograms>());
        // The gap before the histograms takes less room than a line.
        let lines = if Self::size(most) <= memory.len() { most } else { most.saturating_sub(1) };
        Ok(Self { memory, lines })
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

    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.lines
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
        (number < self.lines).then(|| {
            // SAFETY: the mapping begins at a page, is as long as the header and so many lines, and
            // lives as long as `self`; the header is as long as its alignment, which is more than a
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
        (number < self.lines).then(|| {
            // SAFETY: as for a line; `attach` has checked that there is room for the histograms of
            // all lines, and the mapping and the offset are aligned for them.
            unsafe {
                let first = self.memory.as_ptr().add(Self::histograms_offset(self.lines));
                &*first.cast::<LineHistograms>().add(number)
            }
        })
    }

    /// How long all requests took, and how long they waited before.
    pub fn request_times(&self) -> (HistogramSum, HistogramSum) {
        let (mut duration, mut waiting) = (HistogramSum::default(), HistogramSum::default());
        for number in 0..self.lines {
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
    pub fn count_abandoned(&self) {
        self.header().abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of all workers, exited ones included, whose client left before the response was
    /// complete.
    pub fn abandoned(&self) -> u64 {
        self.header().abandoned.load(Ordering::Relaxed)
    }

    /// Marks `warning` as logged. Returns whether no worker had logged it before.
    pub fn is_first_warning(&self, warning: OneTimeWarning) -> bool {
        self.header().warned.fetch_or(warning.bit(), Ordering::Relaxed) & warning.bit() == 0
    }

    /// Can any thread accept a connection?
    pub fn has_idle(&self) -> bool {
        (0..self.lines).filter_map(|number| self.line(number)).any(ScoreboardLine::is_idle)
    }

    fn header(&self) -> &PoolHeader {
        // SAFETY: as for a line; `attach` has checked that there is room for the header.
        unsafe { &*self.memory.as_ptr().cast::<PoolHeader>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mapping_reads_what_another_writes() {
        let (board, descriptor) = Scoreboard::create(3).unwrap();
        let other = Scoreboard::attach(descriptor).unwrap();
        assert_eq!((board.lines(), other.lines()), (3, 3));
        let line = other.line(2).unwrap();
        line.claim(4711, 0);
        line.begin("abc GET /path");
        let reading = board.line(2).unwrap().read().unwrap();
        assert_eq!((reading.pid, reading.busy, reading.served), (4711, true, 1));
        assert_eq!(reading.request, b"abc GET /path");
        line.end();
        assert!(!board.line(2).unwrap().read().unwrap().busy);
        assert!(board.line(3).is_none());
    }

    #[test]
    fn generations_of_logs_are_counted_beside_the_lines() {
        let (board, descriptor) = Scoreboard::create(1).unwrap();
        let other = Scoreboard::attach(descriptor).unwrap();
        other.line(0).unwrap().claim(4711, 0);
        board.next_log_generation(LogKind::Access);
        assert_eq!(
            (other.log_generation(LogKind::Error), other.log_generation(LogKind::Access)),
            (0, 1)
        );
        assert_eq!(other.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
    }

    #[test]
    fn a_long_request_is_cut_and_never_mixed_with_the_last_one() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.begin(&"x".repeat(1000));
        assert_eq!(line.read().unwrap().request, vec![b'x'; REQUEST_WORDS * 8]);
        line.begin("short");
        assert_eq!(line.read().unwrap().request, b"short");
    }

    #[test]
    fn a_file_that_is_too_short_is_refused_and_any_bytes_can_be_read() {
        let descriptor = memfd_create("scoreboard", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&descriptor, b"short").unwrap();
        assert!(Scoreboard::attach(descriptor.try_clone().unwrap()).is_err());
        rustix::io::write(&descriptor, &[0xfe; 1000]).unwrap();
        let board = Scoreboard::attach(descriptor).unwrap();
        for number in 0..board.lines() {
            let _ = board.line(number).unwrap().read();
            let _ = board.line(number).unwrap().left_for(1);
        }
        assert!(board.lines() > 0);
    }

    #[test]
    fn a_process_with_the_descriptor_cannot_cut_the_memory() {
        let (board, descriptor) = Scoreboard::create(1).unwrap();
        assert!(ftruncate(&descriptor, 0).is_err());
        assert!(ftruncate(&descriptor, 1 << 20).is_err());
        board.line(0).unwrap().claim(4711, 0);
        assert_eq!(board.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
    }

    #[test]
    fn a_wakeup_is_needed_if_no_thread_of_any_worker_is_idle_or_always() {
        let (board, descriptor) = Scoreboard::create(3).unwrap();
        let worker = Scoreboard::attach(descriptor).unwrap();
        assert!(!board.has_idle(), "there is no worker");
        let (first, second) = (worker.line(0).unwrap(), worker.line(2).unwrap());
        first.claim(1, 0);
        second.claim(2, 0);
        first.begin("request");
        assert!(board.has_idle() && !worker.needs_wakeup());
        second.begin("request");
        assert!(!board.has_idle());
        assert!(!worker.needs_wakeup(), "the supervisor does not want one");
        board.want_wakeup(Wakeup::WhenBusy);
        assert!(worker.needs_wakeup());
        second.end();
        assert!(!worker.needs_wakeup());
        board.want_wakeup(Wakeup::Always);
        assert!(worker.needs_wakeup());
        board.want_wakeup(Wakeup::WhenBusy);
        second.leave();
        assert!(worker.needs_wakeup(), "it accepts no further connection");
        first.end();
        assert_eq!(first.release(), 1);
        assert!(!board.has_idle(), "its worker has exited");
    }

    #[test]
    fn a_thread_that_could_not_be_started_is_not_idle_and_counts_as_left() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.claim(1, 0);
        line.mark_missing();
        let reading = line.read().unwrap();
        assert!(reading.missing && !reading.busy && !reading.leaving, "{reading:?}");
        assert!(!board.has_idle());
        assert!(line.left_for(1).is_some() && line.left_for(2).is_none());
        line.claim(1, 0);
        assert!(!line.read().unwrap().missing && board.has_idle() && line.left_for(1).is_none());
    }

    #[test]
    fn a_worker_finds_nothing_of_an_earlier_worker_on_its_line() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.claim(1, 0);
        (0..3).for_each(|_| line.begin("request"));
        assert_eq!((line.release(), line.release()), (3, 0));
        line.claim(2, 0);
        let reading = line.read().unwrap();
        assert_eq!((reading.served, reading.request.as_slice()), (0, &b""[..]));
        assert!(line.is_of(2) && !line.is_of(1));
    }

    #[test]
    fn a_line_that_was_left_in_the_middle_of_a_change_is_unreadable_until_it_is_claimed() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.version.store(7, Ordering::Relaxed);
        assert_eq!(line.read(), None);
        line.claim(1, 0);
        assert_eq!(line.read().map(|reading| reading.pid), Some(1));
    }
}
