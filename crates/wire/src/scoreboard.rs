//! The scoreboard of a pool: memory that workers write and the supervisor reads, without a word
//! between them.
//!
//! It answers while every worker is busy or stuck. There is a line for each thread of each worker,
//! and only that thread writes it; a reader that comes in the middle of a change sees that it does,
//! and looks again.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence},
    time::Duration,
};

use memmap2::MmapRaw;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    time::{ClockId, clock_gettime},
};

use crate::{pool_logs::LogKind, running_clock};
use diagnostics::escape::{
    Escaped, {self},
};

/// Bytes of a request's id, method and target that are kept, in words.
const WORDS: usize = 24;

/// What a thread does that is in a line's `state`.
const IDLE: u32 = 0;
const BUSY: u32 = 1;
/// Takes no connection any more.
const LEAVING: u32 = 2;
/// The thread could not be started.
const MISSING: u32 = 3;

/// What concerns the whole pool. It stands before the lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct PoolHeader {
    /// How often the error log and the access log were opened again.
    logs: [AtomicU32; 2],
    /// The supervisor wants to be told when no thread is idle.
    wants_word: AtomicU32,
    /// Requests, of all workers there have been, whose web server went away before the response was
    /// whole.
    abandoned: AtomicU64,
    /// Warnings that one entry is enough for, and that the log has: bits of [`OneTimeWarning`].
    warned: AtomicU32,
}

/// Warnings that one entry in the life of a pool is enough for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OneTimeWarning {
    /// A response has a body and no `Content-Type`.
    NoContentType,
    /// A request body is longer than CONTENT_LENGTH says.
    SurplusBody,
}

impl OneTimeWarning {
    /// A bit of its own.
    pub const fn bit(self) -> u32 {
        match self {
            Self::NoContentType => 1,
            Self::SurplusBody => 2,
        }
    }
}

/// Memory that holds the lines of a pool.
#[derive(Debug)]
pub struct Scoreboard {
    memory: MmapRaw,
    lines: usize,
}

/// What one thread of a worker is doing. Nobody has written a line that is all zero.
#[derive(Debug)]
#[repr(C)]
pub struct ScoreboardLine {
    /// Odd while the line is being changed.
    version: AtomicU32,
    state: AtomicU32,
    pid: AtomicI32,
    thread: AtomicU32,
    /// Milliseconds of the monotonic clock at the tick before it became busy or idle.
    since: AtomicU64,
    served: AtomicU64,
    /// Bytes of resident memory of the worker's process after its last request, if that is
    /// measured.
    resident: AtomicU64,
    request: [AtomicU64; WORDS],
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStatus {
    /// The worker's process; 0 if there has been none.
    pub pid: i32,
    /// A request is being served.
    pub busy: bool,
    /// The worker takes no connection any more.
    pub leaving: bool,
    /// The thread could not be started.
    pub missing: bool,
    /// When that, or being idle, began, by [`now`].
    pub since: u64,
    /// Requests served, the present one included.
    pub served: u64,
    /// Bytes of resident memory of the process after its last request; 0 if that was not measured.
    pub resident: u64,
    /// Id, method and target of the request, or of the last one of this worker; control characters
    /// as escapes, since it is shown to people.
    pub request: String,
}

/// Milliseconds of the monotonic clock, which all processes share.
pub fn now() -> u64 {
    milliseconds(ClockId::Monotonic)
}

/// The same as of the kernel's last tick, which is up to some ten milliseconds ago; it costs a
/// fraction.
pub fn recently() -> u64 {
    milliseconds(ClockId::MonotonicCoarse)
}

fn milliseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

impl ThreadStatus {
    /// How long it has been as it is, in time in which this process was running.
    pub fn lasts(&self) -> Duration {
        running_clock::since(self.since)
    }
}

impl Scoreboard {
    /// A new one of so many lines, and the descriptor by which others attach to it.
    ///
    /// # Errors
    /// If memory is short.
    pub fn create(lines: usize) -> io::Result<(Self, OwnedFd)> {
        let descriptor =
            memfd_create("wsgate-scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(
            &descriptor,
            (size_of::<PoolHeader>() + lines * size_of::<ScoreboardLine>()) as u64,
        )?;
        // Workers have it, too: what one of them cut off would kill whoever looks at it.
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::attach(descriptor.try_clone()?)?, descriptor))
    }

    /// The one behind `descriptor`.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn attach(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let memory = MmapRaw::map_raw(&file)?;
        let Some(room) = memory.len().checked_sub(size_of::<PoolHeader>()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let lines = room / size_of::<ScoreboardLine>();
        Ok(Self { memory, lines })
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// How often a log was opened again. A process that has it open from before then does the same.
    pub fn log_generation(&self, which: LogKind) -> u32 {
        self.log(which).load(Ordering::Acquire)
    }

    /// A log was opened again.
    pub fn next_log_generation(&self, which: LogKind) {
        self.log(which).fetch_add(1, Ordering::AcqRel);
    }

    fn log(&self, which: LogKind) -> &AtomicU32 {
        match which {
            LogKind::Error => &self.head().logs[0],
            LogKind::Access => &self.head().logs[1],
        }
    }

    /// One of the lines.
    pub fn line(&self, number: usize) -> Option<&ScoreboardLine> {
        (number < self.lines).then(|| {
            // SAFETY: the mapping begins at a page, is as long as the head and so many lines, and
            // lives as long as `self`; the head is as long as its alignment, which is more than a
            // line's. Every field is an atomic, for which any bytes are a value; all that share the
            // memory change it through such atomics alone.
            unsafe {
                &*self
                    .memory
                    .as_ptr()
                    .add(size_of::<PoolHeader>())
                    .cast::<ScoreboardLine>()
                    .add(number)
            }
        })
    }

    /// Tells workers whether they are to ring when none of their threads is idle any more. Whoever
    /// asks for that looks at [`Scoreboard::has_idle`] afterwards: either that says so, or a worker
    /// does.
    pub fn want_word(&self, wants: bool) {
        self.head().wants_word.store(u32::from(wants), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Does the supervisor want to be told that no thread is idle? Asked after a request has begun.
    pub fn is_crowded(&self) -> bool {
        fence(Ordering::SeqCst);
        self.head().wants_word.load(Ordering::Relaxed) != 0 && !self.has_idle()
    }

    /// A request's web server went away before the response was whole.
    pub fn count_abandoned(&self) {
        self.head().abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// Is this the first call of any worker for this warning?
    pub fn is_first_warning(&self, warning: OneTimeWarning) -> bool {
        self.head().warned.fetch_or(warning.bit(), Ordering::Relaxed) & warning.bit() == 0
    }

    /// Requests of all workers, those that have ended included, whose web server went away before
    /// the response was whole.
    pub fn abandoned(&self) -> u64 {
        self.head().abandoned.load(Ordering::Relaxed)
    }

    /// Can any thread take a connection?
    pub fn has_idle(&self) -> bool {
        (0..self.lines).filter_map(|number| self.line(number)).any(|line| {
            line.pid.load(Ordering::Relaxed) != 0 && line.state.load(Ordering::Relaxed) == IDLE
        })
    }

    fn head(&self) -> &PoolHeader {
        // SAFETY: as for a line; `attach` has seen that there is room for it.
        unsafe { &*self.memory.as_ptr().cast::<PoolHeader>() }
    }
}

impl ScoreboardLine {
    /// A worker's thread takes the line over.
    pub fn take(&self, pid: i32, thread: u32) {
        self.change(|| {
            self.pid.store(pid, Ordering::Relaxed);
            self.thread.store(thread, Ordering::Relaxed);
            self.state.store(IDLE, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
            self.served.store(0, Ordering::Relaxed);
            self.resident.store(0, Ordering::Relaxed);
            self.request.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        });
    }

    /// Is it the line of the worker with this process? One that has outlived its template finds
    /// others on what was its line.
    pub fn is_of(&self, pid: i32) -> bool {
        self.pid.load(Ordering::Relaxed) == pid
    }

    /// The worker has ended: the line is nobody's. Gives how many requests it has served. The
    /// supervisor calls this.
    pub fn clear(&self) -> u64 {
        let mut served = 0;
        self.change(|| {
            self.pid.store(0, Ordering::Relaxed);
            self.state.store(IDLE, Ordering::Relaxed);
            served = self.served.swap(0, Ordering::Relaxed);
        });
        served
    }

    /// A request begins. What of `request` does not fit is left out.
    pub fn begin(&self, request: &str) {
        self.change(|| {
            let (whole, rest) = request.as_bytes().as_chunks::<8>();
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            let pieces = whole.iter().chain([&last]).chain(std::iter::repeat(&[0; 8]));
            for (word, piece) in self.request.iter().zip(pieces) {
                word.store(u64::from_ne_bytes(*piece), Ordering::Relaxed);
            }
            self.state.store(BUSY, Ordering::Relaxed);
            self.since.store(recently(), Ordering::Relaxed);
            self.served.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// The request is over.
    pub fn end(&self) {
        self.be(IDLE);
    }

    /// The thread takes no connection any more, and serves no request now.
    pub fn leave(&self) {
        self.be(LEAVING);
    }

    /// The thread could not be started.
    pub fn miss(&self) {
        self.be(MISSING);
    }

    /// Notes how much memory the process has, in bytes.
    pub fn measured(&self, resident: u64) {
        self.change(|| self.resident.store(resident, Ordering::Relaxed));
    }

    fn be(&self, state: u32) {
        self.change(|| {
            self.state.store(state, Ordering::Relaxed);
            self.since.store(recently(), Ordering::Relaxed);
        });
    }

    /// What it says; nothing if a worker that died in the middle of a change has left it so.
    pub fn read(&self) -> Option<ThreadStatus> {
        self.consistent(Self::read_once)
    }

    /// How long ago the thread of the process `pid` has left, or how long it has been missing;
    /// nothing if the thread is there, or belongs to another process.
    pub fn left_for(&self, pid: i32) -> Option<Duration> {
        let (its, state, since) = self.consistent(|line| {
            (
                line.pid.load(Ordering::Relaxed),
                line.state.load(Ordering::Relaxed),
                line.since.load(Ordering::Relaxed),
            )
        })?;
        (its == pid && [LEAVING, MISSING].contains(&state)).then(|| running_clock::since(since))
    }

    fn consistent<T>(&self, read: impl Fn(&Self) -> T) -> Option<T> {
        for _ in 0..1000 {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let reading = read(self);
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return Some(reading);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    fn read_once(&self) -> ThreadStatus {
        let bytes: Vec<u8> = self
            .request
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        let state = self.state.load(Ordering::Relaxed);
        ThreadStatus {
            pid: self.pid.load(Ordering::Relaxed),
            busy: state == BUSY,
            leaving: state == LEAVING,
            missing: state == MISSING,
            since: self.since.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            resident: self.resident.load(Ordering::Relaxed),
            request: Escaped(&escape::text(&bytes[..length])).to_string(),
        }
    }

    fn change(&self, change: impl FnOnce()) {
        // Odd from now on, even if the worker before died in the middle of a change.
        let version = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(version, Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let (board, descriptor) = Scoreboard::create(3).unwrap();
        let other = Scoreboard::attach(descriptor).unwrap();
        assert_eq!((board.lines(), other.lines()), (3, 3));
        let line = other.line(2).unwrap();
        line.take(4711, 0);
        line.begin("abc GET /path");
        let reading = board.line(2).unwrap().read().unwrap();
        assert_eq!((reading.pid, reading.busy, reading.served), (4711, true, 1));
        assert_eq!(reading.request, "abc GET /path");
        line.end();
        assert!(!board.line(2).unwrap().read().unwrap().busy);
        assert!(board.line(3).is_none());
    }

    #[test]
    fn the_logs_are_counted_beside_the_lines() {
        let (board, descriptor) = Scoreboard::create(1).unwrap();
        let other = Scoreboard::attach(descriptor).unwrap();
        other.line(0).unwrap().take(4711, 0);
        board.next_log_generation(LogKind::Access);
        assert_eq!(
            (other.log_generation(LogKind::Error), other.log_generation(LogKind::Access)),
            (0, 1)
        );
        assert_eq!(other.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
    }

    #[test]
    fn a_long_request_is_cut_and_never_mixed_with_the_one_before() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.begin(&"x".repeat(1000));
        assert_eq!(line.read().unwrap().request, "x".repeat(WORDS * 8));
        line.begin("short");
        assert_eq!(line.read().unwrap().request, "short");
    }

    #[test]
    fn whoever_has_the_descriptor_cannot_cut_the_memory() {
        let (board, descriptor) = Scoreboard::create(1).unwrap();
        assert!(ftruncate(&descriptor, 0).is_err());
        assert!(ftruncate(&descriptor, 1 << 20).is_err());
        board.line(0).unwrap().take(4711, 0);
        assert_eq!(board.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
    }

    #[test]
    fn control_characters_of_a_request_are_visible() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.begin("id GET /\x1b[2J\r\n  4711 idle");
        assert_eq!(line.read().unwrap().request, "id GET /\\u{1b}[2J\\r\\n  4711 idle");
    }

    #[test]
    fn a_word_is_wanted_only_where_no_thread_of_any_worker_is_idle() {
        let (board, descriptor) = Scoreboard::create(3).unwrap();
        let worker = Scoreboard::attach(descriptor).unwrap();
        assert!(!board.has_idle(), "there is no worker");
        let (first, second) = (worker.line(0).unwrap(), worker.line(2).unwrap());
        first.take(1, 0);
        second.take(2, 0);
        first.begin("request");
        assert!(board.has_idle() && !worker.is_crowded());
        second.begin("request");
        assert!(!board.has_idle());
        assert!(!worker.is_crowded(), "nobody wants to know");
        board.want_word(true);
        assert!(worker.is_crowded());
        second.end();
        assert!(!worker.is_crowded());
        second.leave();
        assert!(worker.is_crowded(), "it takes no connection any more");
        first.end();
        assert_eq!(first.clear(), 1);
        assert!(!board.has_idle(), "its worker has ended");
    }

    #[test]
    fn a_thread_that_could_not_be_started_is_not_idle_and_keeps_no_worker_from_its_end() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.take(1, 0);
        line.miss();
        let reading = line.read().unwrap();
        assert!(reading.missing && !reading.busy && !reading.leaving, "{reading:?}");
        assert!(!board.has_idle());
        assert!(line.left_for(1).is_some() && line.left_for(2).is_none());
        line.take(1, 0);
        assert!(!line.read().unwrap().missing && board.has_idle() && line.left_for(1).is_none());
    }

    #[test]
    fn a_worker_finds_nothing_of_the_one_before_on_its_line() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.take(1, 0);
        (0..3).for_each(|_| line.begin("request"));
        assert_eq!((line.clear(), line.clear()), (3, 0));
        line.take(2, 0);
        let reading = line.read().unwrap();
        assert_eq!((reading.served, reading.request.as_str()), (0, ""));
        assert!(line.is_of(2) && !line.is_of(1));
    }

    #[test]
    fn a_line_that_was_left_in_the_middle_of_a_change_is_none_until_it_is_taken_over() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.version.store(7, Ordering::Relaxed);
        assert_eq!(line.read(), None);
        line.take(1, 0);
        assert_eq!(line.read().map(|reading| reading.pid), Some(1));
    }
}
