//! Writes to the error log (standard error) without waiting for ever: its reader may have stopped,
//! and the pipe may be full.
//!
//! Other processes share the descriptor, those of the application among them, and do not expect a
//! write to fail: so the descriptor is never made non-blocking.

use std::{
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

use crate::message::{Code, LogMessage, Subject};

/// How long a message waits for a reader that does not read. After that, no message waits until one
/// was written again.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that a writable pipe takes at once (`PIPE_BUF`).
const PIPE_BUF_BYTES: usize = 4096;

/// No message waits for the reader any more.
static IS_STUCK: AtomicBool = AtomicBool::new(false);
/// Messages lost since the last one about lost messages.
static LOST: AtomicU64 = AtomicU64::new(0);
/// The beginning of the last lost message was written.
static IS_TORN: AtomicBool = AtomicBool::new(false);

/// Writes `message` to standard error. A message is lost if no process reads there for a second;
/// the next message says how many were lost, about `about`. If the log cannot be written at all,
/// there is no place to say so.
pub fn write(message: &[u8], about: Subject<'_>) {
    write_to([stderr(), stderr()], message, about);
}

/// Writes `message` to the first of `logs` that is open, as [`write()`] does.
pub fn write_to(logs: [BorrowedFd<'_>; 2], message: &[u8], about: Subject<'_>) {
    let lost = LOST.load(Ordering::Relaxed);
    if lost > 0 {
        let end = if IS_TORN.load(Ordering::Relaxed) { "\n" } else { "" };
        if !deliver(logs, [end, &lost_messages(lost, about)].concat().as_bytes()) {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        IS_TORN.store(false, Ordering::Relaxed);
        // Another thread may have written about the same messages.
        let _ = LOST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            Some(count.saturating_sub(lost))
        });
    }
    if !deliver(logs, message) {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Were messages lost without a message about it? A process that exits writes once more then.
pub fn has_lost() -> bool {
    LOST.load(Ordering::Relaxed) > 0
}

/// The message about `count` lost messages.
pub fn lost_messages(count: u64, about: Subject<'_>) -> String {
    let noun = if count == 1 { "message was" } else { "messages were" };
    LogMessage::new(
        Code::MessagesLost,
        format!("{count} log {noun} lost, since the reader of the error log had stopped"),
    )
    .hint("find out why the program that reads the log waited")
    .for_log(about)
}

/// Has the reader stopped for so long that no message waits any more?
pub fn is_stuck() -> bool {
    IS_STUCK.load(Ordering::Relaxed)
}

/// Writes `bytes`, and waits for the reader if need be. Returns whether all were written.
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
                let wait = WRITE_TIMEOUT.saturating_sub(since.elapsed());
                if IS_STUCK.load(Ordering::Relaxed) || wait.is_zero() {
                    IS_STUCK.store(true, Ordering::Relaxed);
                    IS_TORN.fetch_or(left.len() < bytes.len(), Ordering::Relaxed);
                    return false;
                }
                await_reader(log, wait);
            }
            Err(Errno::BADF) if log.as_raw_fd() != second.as_raw_fd() => log = second,
            // The log is closed.
            Err(_) => return true,
        }
    }
    true
}

/// Waits until `descriptor` is writable, for `timeout` at most.
pub fn await_reader(descriptor: BorrowedFd<'_>, timeout: Duration) {
    let timeout = Timespec::try_from(timeout).ok();
    // A signal, or a lack of memory, ends the wait early.
    let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], timeout.as_ref());
}

/// Writes as many of `bytes` as `descriptor` takes without waiting, though it is blocking.
///
/// # Errors
/// `AGAIN` if it takes none, or another error of the kernel.
pub fn write_at_once(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    match FileType::from_raw_mode(fstat(descriptor)?.st_mode) {
        FileType::Socket => send(descriptor, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        FileType::Fifo => {
            // A pipe has no offset, which -1 says.
            match pwritev2(descriptor, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => {
                    write_to_pipe(descriptor, bytes)
                }
                written => written,
            }
        }
        FileType::CharacterDevice => write_if_ready(descriptor, bytes),
        // A write to a file does not wait for a reader.
        _ => write_blocking(descriptor, bytes),
    }
}

/// As [`write_at_once`], for named pipes and pipes of old kernels: a pipe that is opened again has
/// flags of its own.
fn write_to_pipe(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()), flags, Mode::empty()) {
        Ok(pipe) => write_blocking(&pipe, bytes),
        // No process has the reading end open.
        Err(Errno::NXIO) => Err(Errno::PIPE),
        // The pipe belongs to another user, or /proc is missing.
        Err(_) => write_if_ready(descriptor, bytes),
    }
}

/// As [`write_at_once`], if only poll(2) is possible: another process may fill the room that was
/// free a moment ago.
fn write_if_ready(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut watched = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    if poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
        return Err(Errno::AGAIN);
    }
    write_blocking(descriptor, &bytes[..bytes.len().min(PIPE_BUF_BYTES)])
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

    /// Fills `entrance`, and asserts that there is room again after a read from `exit`.
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
