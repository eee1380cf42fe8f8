//! Writes to the error log, standard error, that end: its reader may have stopped reading, and the
//! pipe to it may be full.
//!
//! The descriptor is shared with other processes, the application's among them, which do not expect
//! it to refuse a write: so it is never made non-blocking.

use std::{
    fmt,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat, open},
    io::{Errno, IoSlice, ReadWriteFlags, pwritev2, write as write_blocking},
    net::{SendFlags, send},
    stdio::stderr,
};

use crate::message::{Code, LogMessage};

/// How long a message waits for a reader that does not read. After that, none waits until one was
/// written again.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

/// Bytes that a pipe which is writable takes as a whole (`PIPE_BUF`).
const PIPE_BYTES: usize = 4096;

static IS_STUCK: AtomicBool = AtomicBool::new(false);
static LOST: AtomicU64 = AtomicU64::new(0);
/// The last message that was lost stands there in part.
static IS_TORN: AtomicBool = AtomicBool::new(false);

/// Writes `message` to standard error. It is lost if nobody reads there for a second; the next
/// message that can be written says how many were, about `about`. A log that cannot be written at
/// all leaves nowhere to say so.
pub fn write(message: &[u8], about: &dyn fmt::Display) {
    write_to([stderr(), stderr()], message, about);
}

/// The same to the first of `logs` that is open.
pub fn write_to(logs: [BorrowedFd<'_>; 2], message: &[u8], about: &dyn fmt::Display) {
    let lost = LOST.load(Ordering::Relaxed);
    if lost > 0 {
        let end = if IS_TORN.load(Ordering::Relaxed) { "\n" } else { "" };
        if !deliver(logs, [end, &lost_messages(lost, about)].concat().as_bytes()) {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        IS_TORN.store(false, Ordering::Relaxed);
        // Another thread may have said the same.
        let _ = LOST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            Some(count.saturating_sub(lost))
        });
    }
    if !deliver(logs, message) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Were messages lost, and has nobody said so? Whoever asks at the end of a process writes once
/// more.
pub fn has_lost() -> bool {
    LOST.load(Ordering::Relaxed) > 0
}

/// The message for `count` messages that were lost.
pub fn lost_messages(count: u64, about: &dyn fmt::Display) -> String {
    let noun = if count == 1 { "message was" } else { "messages were" };
    LogMessage::warning(
        Code::MessagesLost,
        format!("{count} log {noun} lost, since nobody read the error log"),
    )
    .hint("see what the program that reads it has waited for")
    .for_log(about)
}

/// Has nobody read for so long that no message waits any more?
pub fn is_stuck() -> bool {
    IS_STUCK.load(Ordering::Relaxed)
}

/// Writes `bytes`, with waits that end. Tells whether all were written.
fn deliver(logs: [BorrowedFd<'_>; 2], bytes: &[u8]) -> bool {
    let [mut log, second] = logs;
    let mut left = bytes;
    let mut since = Instant::now();
    while !left.is_empty() {
        match write_at_once(log, left) {
            Ok(count) => {
                left = &left[count..];
                IS_STUCK.store(false, Ordering::Relaxed);
                since = Instant::now();
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let wait = WAIT_LIMIT.saturating_sub(since.elapsed());
                if IS_STUCK.load(Ordering::Relaxed) || wait.is_zero() {
                    IS_STUCK.store(true, Ordering::Relaxed);
                    IS_TORN.fetch_or(left.len() < bytes.len(), Ordering::Relaxed);
                    return false;
                }
                await_reader(log, wait);
            }
            Err(Errno::BADF) if log.as_raw_fd() != second.as_raw_fd() => log = second,
            // There is no log.
            Err(_) => return true,
        }
    }
    true
}

/// Waits until `descriptor` takes more, for `wait` at most.
pub fn await_reader(descriptor: BorrowedFd<'_>, wait: Duration) {
    let wait = Timespec::try_from(wait).ok();
    // A signal, or a lack of memory, ends the wait early.
    let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], wait.as_ref());
}

/// Writes as many of `bytes` as `descriptor` takes without a wait, though it is not non-blocking.
///
/// # Errors
/// `AGAIN` if it takes none, or what the kernel says otherwise.
pub fn write_at_once(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match FileType::from_raw_mode(fstat(descriptor)?.st_mode) {
        FileType::Socket => send(descriptor, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        FileType::Fifo => {
            // -1 is where a pipe stands.
            match pwritev2(descriptor, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => {
                    write_to_pipe(descriptor, bytes)
                }
                written => written,
            }
        }
        FileType::CharacterDevice => write_if_ready(descriptor, bytes),
        // A file is written as fast as its disk is.
        _ => write_blocking(descriptor, bytes),
    }
}

/// The same for named pipes, and pipes of old kernels: opened again, they have settings of their
/// own.
fn write_to_pipe(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()), flags, Mode::empty()) {
        Ok(pipe) => write_blocking(&pipe, bytes),
        // The reader has gone.
        Err(Errno::NXIO) => Err(Errno::PIPE),
        // It is another user's, or there is no /proc.
        Err(_) => write_if_ready(descriptor, bytes),
    }
}

/// The same where nothing but a look is possible: another process may fill what was free a moment
/// ago.
fn write_if_ready(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut watched = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    if poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
        return Err(Errno::AGAIN);
    }
    write_blocking(descriptor, &bytes[..bytes.len().min(PIPE_BYTES)])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::{
        fs::{CWD, mkfifoat},
        io::read,
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
        pipe::pipe,
    };

    use super::*;

    /// Fills `entrance`, and asserts that there is room again when something was read from `exit`.
    fn takes_what_fits(entrance: BorrowedFd<'_>, exit: BorrowedFd<'_>) {
        let mut taken = 0;
        let refused = loop {
            match write_at_once(entrance, &[b'x'; 3000]) {
                Ok(count) => taken += count,
                Err(error) => break error,
            }
            assert!(taken < 1 << 24);
        };
        assert_eq!(refused, Errno::AGAIN);
        let mut left = taken;
        while left > 0 {
            left -= read(exit, &mut [0; 5000]).unwrap();
        }
        assert_eq!(write_at_once(entrance, b"again"), Ok(5));
    }

    #[test]
    fn pipes_and_sockets_take_what_fits_and_never_wait() {
        let (exit, entrance) = pipe().unwrap();
        takes_what_fits(entrance.as_fd(), exit.as_fd());
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)
                .unwrap();
        takes_what_fits(one.as_fd(), other.as_fd());
        let path = std::env::temp_dir().join(format!("wsgate-fifo-{}", std::process::id()));
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let exit = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let entrance = open(&path, OFlags::WRONLY, Mode::empty()).unwrap();
        std::fs::remove_file(&path).unwrap();
        takes_what_fits(entrance.as_fd(), exit.as_fd());
        drop(exit);
        assert_eq!(write_at_once(entrance.as_fd(), b"to nobody"), Err(Errno::PIPE));
    }
}
