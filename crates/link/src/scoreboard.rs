//! The scoreboard of a pool: memory that workers write and the supervisor reads, without a word between them.
//!
//! It answers while every worker is busy or stuck. There is a line for each thread of each worker, and only that thread writes it; a
//! reader that comes in the middle of a change sees that it does, and looks again.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence},
    time::Duration,
};

use memmap2::MmapRaw;
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    time::{ClockId, clock_gettime},
};

use crate::logs::Which;

/// Bytes of a request's id, method and target that are kept, in words.
const WORDS: usize = 24;

/// Bytes before the first line.
const HEADER: usize = 64;

/// What concerns the whole pool. It fits before the first line.
#[repr(C)]
struct Header {
    /// How often the error log and the access log were opened anew.
    logs: [AtomicU32; 2],
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
pub struct Line {
    /// Odd while the line is being changed.
    version: AtomicU32,
    busy: AtomicU32,
    pid: AtomicI32,
    thread: AtomicU32,
    /// Milliseconds of the monotonic clock when it became busy or idle.
    since: AtomicU64,
    served: AtomicU64,
    request: [AtomicU64; WORDS],
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The worker's process; 0 if there has been none.
    pub pid: i32,
    /// A request is being served.
    pub busy: bool,
    /// When that, or being idle, began, by [`now`].
    pub since: u64,
    /// Requests served, the present one included.
    pub served: u64,
    /// Id, method and target of the request, or of the last one.
    pub request: String,
}

/// Milliseconds of the monotonic clock, which all processes share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

impl Reading {
    /// How long it has been as it is.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.since))
    }
}

impl Scoreboard {
    /// A new one of so many lines, and the descriptor by which others attach to it.
    ///
    /// # Errors
    /// If memory is short.
    pub fn create(lines: usize) -> io::Result<(Self, OwnedFd)> {
        let descriptor = memfd_create("wsgate-scoreboard", MemfdFlags::CLOEXEC)?;
        ftruncate(&descriptor, (HEADER + lines * size_of::<Line>()) as u64)?;
        Ok((Self::attach(descriptor.try_clone()?)?, descriptor))
    }

    /// The one behind `descriptor`.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn attach(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let memory = MmapRaw::map_raw(&file)?;
        let Some(lines) = memory.len().checked_sub(HEADER).map(|bytes| bytes / size_of::<Line>()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self { memory, lines })
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// How often a log was opened anew. A process that has it open from before then does the same.
    pub fn log_generation(&self, which: Which) -> u32 {
        self.log(which).load(Ordering::Acquire)
    }

    /// A log was opened anew.
    pub fn next_log_generation(&self, which: Which) {
        self.log(which).fetch_add(1, Ordering::AcqRel);
    }

    fn log(&self, which: Which) -> &AtomicU32 {
        // SAFETY: the mapping begins at a page, is at least as long as `HEADER`, which `attach` has seen to, and lives as long as
        // `self`. Every field is an atomic, as in lines.
        let header = unsafe { &*self.memory.as_ptr().cast::<Header>() };
        match which {
            Which::Error => &header.logs[0],
            Which::Access => &header.logs[1],
        }
    }

    /// One of the lines.
    pub fn line(&self, number: usize) -> Option<&Line> {
        (number < self.lines).then(|| {
            // SAFETY: the mapping begins at a page, is as long as the header and so many lines, and lives as long as `self`. Every
            // field is an atomic, for which any bytes are a value; all that share the memory change it through such atomics alone.
            // `HEADER` is a multiple of a line's alignment.
            unsafe { &*self.memory.as_ptr().add(HEADER).cast::<Line>().add(number) }
        })
    }
}

impl Line {
    /// A worker's thread takes the line over.
    pub fn take(&self, pid: i32, thread: u32) {
        self.change(|| {
            self.pid.store(pid, Ordering::Relaxed);
            self.thread.store(thread, Ordering::Relaxed);
            self.busy.store(0, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
            self.served.store(0, Ordering::Relaxed);
        });
    }

    /// A request begins. What of `request` does not fit is left out.
    pub fn begin(&self, request: &str) {
        self.change(|| {
            let bytes = request.as_bytes();
            for (number, word) in self.request.iter().enumerate() {
                let mut piece = [0; 8];
                let rest = bytes.get(number * 8..).unwrap_or_default();
                let length = rest.len().min(8);
                piece[..length].copy_from_slice(&rest[..length]);
                word.store(u64::from_ne_bytes(piece), Ordering::Relaxed);
            }
            self.busy.store(1, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
            self.served.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// The request is over.
    pub fn end(&self) {
        self.change(|| {
            self.busy.store(0, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
        });
    }

    /// What it says; nothing if a worker that died in the middle of a change has left it so.
    pub fn read(&self) -> Option<Reading> {
        for _ in 0..1000 {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let reading = self.read_once();
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return Some(reading);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    fn read_once(&self) -> Reading {
        let bytes: Vec<u8> = self.request.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Reading {
            pid: self.pid.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed) == 1,
            since: self.since.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            request: String::from_utf8_lossy(&bytes[..length]).into_owned(),
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
        board.next_log_generation(Which::Access);
        assert_eq!((other.log_generation(Which::Error), other.log_generation(Which::Access)), (0, 1));
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
    fn a_line_that_was_left_in_the_middle_of_a_change_is_none_until_it_is_taken_over() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.version.store(7, Ordering::Relaxed);
        assert_eq!(line.read(), None);
        line.take(1, 0);
        assert_eq!(line.read().map(|reading| reading.pid), Some(1));
    }
}
