//! The time limit of `close()` after the response, when the gateway that enforced the limit has
//! exited.
//!
//! The timer interrupts the application, and ends the process if that does not help.

use std::{
    cell::UnsafeCell,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use rustix::process::{Pid, getppid};

use crate::process::{
    forks::{
        Descriptor, {self},
    },
    timers::kernel_timer::{KernelTimer, abort},
};

/// How long an interrupted application may take to exit.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// How long threads and exit handlers may take if the web server has killed the gateway. The
/// gateway allows the same time.
const ORPHAN_EXIT_TIMEOUT: Duration = Duration::from_millis(1500);

/// The longest message in bytes; longer messages are cut.
const MAX_MESSAGE_BYTES: usize = 1024;

static TIMER: KernelTimer = KernelTimer::new(1);

/// The log message for the forced exit.
static MESSAGE: MessageBuffer = MessageBuffer::new();

/// The exit status of the forced exit.
static EXIT_STATUS: AtomicI32 = AtomicI32::new(0);

/// The action when the timer expires next.
static NEXT: AtomicI32 = AtomicI32::new(NOTHING);
const NOTHING: i32 = 0;
const INTERRUPT: i32 = 1;
const ABORT: i32 = 2;
const EXIT: i32 = 3;

/// The timer has sent SIGTERM, and no handler has taken that into account yet.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The gateway whose exit starts the timer, the pipe that its exit closes (-1 for none), and the
/// limit in milliseconds.
static GATEWAY: AtomicI32 = AtomicI32::new(0);
static GATEWAY_PIPE: AtomicI32 = AtomicI32::new(-1);
static LIMIT_MILLIS: AtomicU64 = AtomicU64::new(0);

/// Lets this process outlive its gateway, for at most `limit`. After that time the application is
/// interrupted. After [`INTERRUPT_GRACE`] more, `message` and the stack are written to the log and
/// the process exits. Returns the signal that announces the exit of the gateway.
///
/// There is no limit if the kernel has no timer left for this user.
pub(crate) fn outlive_gateway(
    (gateway, pipe): (i32, Option<&Descriptor>),
    limit: Duration,
    message: &str,
) -> i32 {
    prepare(message, 1);
    GATEWAY_PIPE.store(pipe.map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
    LIMIT_MILLIS.store(limit.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    GATEWAY.store(gateway, Ordering::Relaxed);
    // SAFETY: this option of prctl(2) takes a number. Had the gateway exited already, the kernel
    // would have killed this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, TIMER.signal()) };
    TIMER.signal()
}

/// Ends the limit of [`outlive_gateway`] when the application has finished. Returns whether the
/// gateway is still running; if not, this process has to exit soon.
pub(crate) fn rejoin_gateway(gateway: i32) -> bool {
    GATEWAY.store(0, Ordering::Relaxed);
    cancel();
    let lives = getppid() == Pid::from_raw(gateway);
    if !lives {
        prepare("", 0);
        start(ORPHAN_EXIT_TIMEOUT, EXIT);
    }
    lives
}

/// Interrupts the application by SIGTERM after `limit`. After [`INTERRUPT_GRACE`] more, writes
/// `message` and the stack to the log and ends this process.
pub(crate) fn interrupt_after(limit: Duration, message: &str) {
    prepare(message, 1);
    start(limit, INTERRUPT);
}

/// Cancels [`interrupt_after`].
pub(crate) fn cancel() {
    NEXT.store(NOTHING, Ordering::Relaxed);
    INTERRUPTED.store(false, Ordering::Relaxed);
    TIMER.disarm();
}

/// Did the time limit send the latest SIGTERM? Answers once for each signal.
pub(crate) fn has_interrupted() -> bool {
    INTERRUPTED.swap(false, Ordering::Relaxed)
}

fn start(limit: Duration, next: i32) {
    NEXT.store(next, Ordering::Release);
    TIMER.arm(limit, false);
}

/// Sets message and exit status, and creates the timer if this process lacks it.
fn prepare(message: &str, status: i32) {
    MESSAGE.set(message);
    EXIT_STATUS.store(status, Ordering::Relaxed);
    if !TIMER.exists() {
        TIMER.handle(on_signal);
    }
    TIMER.create();
}

/// The signal handler for an expired timer, or for the exit of the gateway.
extern "C" fn on_signal(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a live value to a handler with SA_SIGINFO.
    let is_timer = unsafe { info.as_ref() }.is_some_and(|info| info.si_code == libc::SI_TIMER);
    if is_timer {
        on_expiry();
        return;
    }
    let gateway = GATEWAY.load(Ordering::Relaxed);
    // The kernel closes the files of a process before its children get another parent. SAFETY:
    // getppid(2) and poll(2) are async-signal-safe, and the structure is live.
    let has_exited = unsafe {
        let number = GATEWAY_PIPE.load(Ordering::Relaxed);
        let mut pipe = libc::pollfd { fd: number, events: 0, revents: 0 };
        libc::getppid() != gateway
            || (libc::poll(&raw mut pipe, 1, 0) > 0 && pipe.revents & libc::POLLHUP != 0)
    };
    if gateway != 0 && has_exited && NEXT.load(Ordering::Relaxed) == NOTHING {
        NEXT.store(INTERRUPT, Ordering::Relaxed);
        TIMER.arm(Duration::from_millis(LIMIT_MILLIS.load(Ordering::Relaxed)), false);
    }
}

/// Runs in a signal handler.
fn on_expiry() {
    let next = NEXT.load(Ordering::Acquire);
    if next == NOTHING {
        return;
    }
    // SAFETY: kill(2) and _exit(2) are async-signal-safe, and touch no memory.
    unsafe {
        if next == INTERRUPT {
            NEXT.store(ABORT, Ordering::Relaxed);
            INTERRUPTED.store(true, Ordering::Relaxed);
            TIMER.arm(INTERRUPT_GRACE, false);
            libc::kill(libc::getpid(), libc::SIGTERM);
            return;
        }
        if MESSAGE.write_to_log() && next == ABORT {
            abort();
        }
        libc::_exit(EXIT_STATUS.load(Ordering::Relaxed));
    }
}

/// A message that each request may replace, and that a signal handler writes.
struct MessageBuffer {
    bytes: UnsafeCell<[u8; MAX_MESSAGE_BYTES]>,
    length: AtomicUsize,
}

// SAFETY: only the main thread writes, while the length says that there is nothing to be read.
unsafe impl Sync for MessageBuffer {}

impl MessageBuffer {
    const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; MAX_MESSAGE_BYTES]), length: AtomicUsize::new(0) }
    }

    fn set(&self, message: &str) {
        self.length.store(0, Ordering::SeqCst);
        let length = message.len().min(MAX_MESSAGE_BYTES);
        // SAFETY: no handler reads while the length is 0, and only the main thread writes.
        unsafe { ptr::copy_nonoverlapping(message.as_ptr(), self.bytes.get().cast(), length) };
        self.length.store(length, Ordering::SeqCst);
    }

    /// Writes the message to the log. Returns whether the log has room for more. Async-signal-safe.
    fn write_to_log(&self) -> bool {
        let length = self.length.load(Ordering::Acquire).min(MAX_MESSAGE_BYTES);
        // SAFETY: the bytes live as long as the process, and `set` has written this number of
        // bytes.
        forks::write_to_log(unsafe { std::slice::from_raw_parts(self.bytes.get().cast(), length) })
    }
}
