//! The descriptors 0 to 2, which the application may close, and the error log.

use std::{
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use diagnostics::{
    log_style,
    timestamp::{TIMESTAMP_BYTES, Timestamp},
};

use crate::process::forks::{
    descriptors::Descriptor,
    numbers::{STANDARD_COPIES, duplicate, duplicate_beyond},
};

/// The owners of the copies.
static STANDARD_COPY_OWNERS: Mutex<Vec<Descriptor>> = Mutex::new(Vec::new());

/// Copies the descriptors 0 to 2 as they are now, except a closed one, and as long as descriptors
/// are available.
pub(crate) fn save_standard() {
    let copies: Vec<_> = [0, 1, 2].map(|number| Descriptor::made(|| duplicate(number)).ok()).into();
    for (copy, slot) in copies.iter().zip(&STANDARD_COPIES) {
        slot.store(copy.as_ref().map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
    }
    let old = std::mem::replace(
        &mut *STANDARD_COPY_OWNERS.lock().unwrap_or_else(PoisonError::into_inner),
        copies.into_iter().flatten().collect(),
    );
    drop(old);
}

/// The error log, at a number that no file of the application gets, since descriptor 2 may be
/// closed and reused. -1 for none, as in a child that the application has forked.
static LOG: AtomicI32 = AtomicI32::new(-1);

/// The lowest number for the log and for other files that signal handlers use. The kernel gives
/// such numbers only on request, and most limits allow them.
pub(super) const HIGH_NUMBER_FLOOR: RawFd = 1000;

/// Saves the error log, which is descriptor 2 at the start.
pub(crate) fn save_log() {
    if let Ok(log) =
        Descriptor::made(|| duplicate_beyond(2, HIGH_NUMBER_FLOOR).or_else(|_| duplicate(2)))
    {
        LOG.store(log.as_raw_fd(), Ordering::Relaxed);
        // The log stays open until the process exits.
        std::mem::forget(log);
    }
}

/// The error log.
pub(crate) fn log() -> BorrowedFd<'static> {
    // SAFETY: the log stays open; the kernel refuses a number that is not open.
    unsafe { BorrowedFd::borrow_raw(log_number()) }
}

/// The number of the error log, which does not change.
pub(crate) fn log_number() -> RawFd {
    match LOG.load(Ordering::Relaxed) {
        -1 => libc::STDERR_FILENO,
        number => number,
    }
}

/// Makes `file` the error log.
pub(crate) fn redirect_log(file: BorrowedFd<'_>) {
    let number = LOG.load(Ordering::Relaxed);
    // SAFETY: no value owns the number of the log, and borrows of the number stay valid.
    if number >= 0 && unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        // The application may have lowered the limit of descriptors.
        LOG.store(-1, Ordering::Relaxed);
    }
}

/// Forgets the error log in a child that the application has forked.
pub(super) fn forget_log() {
    LOG.store(-1, Ordering::Relaxed);
}

/// Writes up to `PIPE_BUF` of `bytes` to the error log, unless the log is full: a signal handler
/// must not wait. Returns whether there is room for more. Async-signal-safe.
pub(crate) fn write_to_log(bytes: &[u8]) -> bool {
    // A writable pipe has room for `PIPE_BUF` bytes.
    let bytes = &bytes[..bytes.len().min(libc::PIPE_BUF)];
    // SAFETY: `errno` is this thread's own; poll(2) and write(2) are async-signal-safe, and the
    // bytes are live.
    unsafe {
        let errno = *libc::__errno_location();
        let has_room = |number| {
            let mut log = libc::pollfd { fd: number, events: libc::POLLOUT, revents: 0 };
            libc::poll(&raw mut log, 1, 0) != 0
        };
        if has_room(log_number())
            && write_with_current_time(log_number(), bytes) < 0
            && *libc::__errno_location() == libc::EBADF
            && has_room(libc::STDERR_FILENO)
        {
            write_with_current_time(libc::STDERR_FILENO, bytes);
        }
        let has_room = has_room(log_number());
        *libc::__errno_location() = errno;
        has_room
    }
}

/// Writes `message` to the descriptor `number`, with the current time in place of the time when
/// the message was made. Returns what writev(2) returns. Async-signal-safe.
fn write_with_current_time(number: RawFd, message: &[u8]) -> isize {
    let now = Timestamp::now();
    let part = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let (start, time, rest) = match log_style::time_position(message) {
        Some(at) => (&message[..at], now.as_bytes(), &message[at + TIMESTAMP_BYTES..]),
        None => (message, &[][..], &[][..]),
    };
    let parts = [part(start), part(time), part(rest)];
    // SAFETY: the parts are live, and writev(2) only reads them.
    unsafe { libc::writev(number, parts.as_ptr(), 3) }
}
