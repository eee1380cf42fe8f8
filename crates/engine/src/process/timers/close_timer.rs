//! The time of `close()` when the response has ended, and the gateway that kept the time has
//! exited.
//!
//! The kernel's timer interrupts the application, and ends the process if that does not help. No
//! thread is needed, and nothing that holds the interpreter can delay it.

use std::{
    cell::UnsafeCell,
    os::fd::AsRawFd,
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicIsize, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use rustix::process::{Pid, getppid};

use crate::process::{
    forks::{
        Descriptor, {self},
    },
    timers::abort,
};

/// How long an application may take to end after it was interrupted.
const GRACE_SECONDS: u64 = 2;

/// How long threads and exit handlers may take when the web server has ended the gateway: as long
/// as the gateway gives them.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Longest message in bytes; a longer one is cut.
const LONGEST: usize = 1024;

/// What is written to standard error when the process is ended, and how much of it.
static MESSAGE: Message = Message(UnsafeCell::new([0; LONGEST]));
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The exit status then.
static STATUS: AtomicI32 = AtomicI32::new(0);

/// The kernel's timer, and the process that it belongs to: a forked one does not inherit it.
static TIMER: AtomicIsize = AtomicIsize::new(0);
static OWNER: AtomicI32 = AtomicI32::new(0);

/// What the timer brings about next.
static NEXT: AtomicI32 = AtomicI32::new(NOTHING);
const NOTHING: i32 = 0;
const INTERRUPT: i32 = 1;
const ABORT: i32 = 2;
const EXIT: i32 = 3;

/// SIGTERM comes, or has come, from here.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The gateway whose end starts the timer, the pipe that its end closes (-1 for none), and how many
/// milliseconds the timer is set to then.
static GATEWAY: AtomicI32 = AtomicI32::new(0);
static GATEWAY_PIPE: AtomicI32 = AtomicI32::new(-1);
static LIMIT: AtomicU64 = AtomicU64::new(0);

struct Message(UnsafeCell<[u8; LONGEST]>);

// SAFETY: only the main thread writes, while the length says that there is nothing to be read.
unsafe impl Sync for Message {}

/// From here on this process does not die with its gateway, and has `limit` once that has exited.
/// Then the application is interrupted, and after a moment `message` and its stack are written to
/// the log. Gives the signal that is to tell of the end of the gateway, which closes `pipe`.
///
/// Where the kernel has no timer left for this user there is no limit.
pub(crate) fn outlive(
    gateway: i32,
    pipe: Option<&Descriptor>,
    limit: Duration,
    message: &str,
) -> i32 {
    prepare(message, 1);
    GATEWAY_PIPE.store(pipe.map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
    LIMIT.store(milliseconds(limit), Ordering::Relaxed);
    GATEWAY.store(gateway, Ordering::Relaxed);
    // SAFETY: this option of prctl(2) takes a number. Had the gateway gone already, this process
    // would have been killed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal()) };
    signal()
}

/// The application has done its work. Tells whether the gateway still lives; if not, this process
/// has to exit soon.
pub(crate) fn rejoin(gateway: i32) -> bool {
    GATEWAY.store(0, Ordering::Relaxed);
    cancel();
    let lives = getppid() == Pid::from_raw(gateway);
    if !lives {
        prepare("", 0);
        begin(FAREWELL, EXIT);
    }
    lives
}

/// Interrupts the application after `limit`, by SIGTERM, and after another moment writes `message`
/// and its stack to the log and ends this process.
pub(crate) fn interrupt_after(limit: Duration, message: &str) {
    prepare(message, 1);
    begin(limit, INTERRUPT);
}

/// Takes [`interrupt_after`] back.
pub(crate) fn cancel() {
    NEXT.store(NOTHING, Ordering::Relaxed);
    INTERRUPTED.store(false, Ordering::Relaxed);
    start(0);
}

/// Is it the deadline that SIGTERM has come for? Tells so once.
pub(crate) fn has_interrupted() -> bool {
    INTERRUPTED.swap(false, Ordering::Relaxed)
}

/// The last of the real-time signals but one, which `deadline` has: applications use the first
/// ones, if any.
fn signal() -> libc::c_int {
    libc::SIGRTMAX() - 1
}

fn milliseconds(limit: Duration) -> u64 {
    limit.as_millis().try_into().unwrap_or(u64::MAX)
}

fn is_ours() -> bool {
    OWNER.load(Ordering::Relaxed) == rustix::process::getpid().as_raw_nonzero().get()
}

fn begin(limit: Duration, next: i32) {
    NEXT.store(next, Ordering::Release);
    // Nothing would stop the timer.
    start(milliseconds(limit).max(1));
}

/// Sets what is written and makes the timer, as far as it is not there.
fn prepare(message: &str, status: i32) {
    LENGTH.store(0, Ordering::SeqCst);
    let length = message.len().min(LONGEST);
    // SAFETY: nobody reads as long as the length is 0, and only the main thread gets here.
    unsafe { ptr::copy_nonoverlapping(message.as_ptr(), MESSAGE.0.get().cast(), length) };
    LENGTH.store(length, Ordering::SeqCst);
    STATUS.store(status, Ordering::Relaxed);
    // SAFETY: all-zero is a valid value of each of these structures, and the fields that count are
    // set. The handler calls functions only that are async-signal-safe. The calls take pointers to
    // live values.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        if is_ours() {
            return;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = came as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        // A signal number that exists is not refused.
        let _ = forks::install_action(signal(), &action);
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal();
        let mut timer: libc::timer_t = ptr::null_mut();
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
            TIMER.store(timer.addr().cast_signed(), Ordering::Relaxed);
            OWNER.store(libc::getpid(), Ordering::Release);
        }
    }
}

/// Has the timer come after so many milliseconds; never after 0. Called by a signal handler, too.
fn start(milliseconds: u64) {
    // Without a timer of this file, its number may be that of another.
    if !is_ours() {
        return;
    }
    let timer: libc::timer_t =
        ptr::without_provenance_mut(TIMER.load(Ordering::Relaxed).cast_unsigned());
    // SAFETY: all-zero is a valid value; a timer that is none is an error, which nobody needs.
    unsafe {
        let mut time: libc::itimerspec = std::mem::zeroed();
        time.it_value.tv_sec = (milliseconds / 1000).try_into().unwrap_or(libc::time_t::MAX);
        time.it_value.tv_nsec = ((milliseconds % 1000) * 1_000_000).try_into().unwrap_or(0);
        libc::timer_settime(timer, 0, &raw const time, ptr::null_mut());
    }
}

/// Runs as a signal handler.
extern "C" fn came(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a live value to a handler with SA_SIGINFO.
    let is_timer = unsafe { info.as_ref() }.is_some_and(|info| info.si_code == libc::SI_TIMER);
    if is_timer {
        passed();
        return;
    }
    let gateway = GATEWAY.load(Ordering::Relaxed);
    // The kernel closes the files of a process before its children get another parent. SAFETY:
    // getppid(2) and poll(2) are async-signal-safe, and the structure is live.
    let has_ended = unsafe {
        let number = GATEWAY_PIPE.load(Ordering::Relaxed);
        let mut pipe = libc::pollfd { fd: number, events: 0, revents: 0 };
        libc::getppid() != gateway
            || (libc::poll(&raw mut pipe, 1, 0) > 0 && pipe.revents & libc::POLLHUP != 0)
    };
    if gateway != 0 && has_ended && NEXT.load(Ordering::Relaxed) == NOTHING {
        NEXT.store(INTERRUPT, Ordering::Relaxed);
        start(LIMIT.load(Ordering::Relaxed).max(1));
    }
}

/// The timer has come. Runs in a signal handler.
fn passed() {
    let next = NEXT.load(Ordering::Acquire);
    if next == NOTHING {
        return;
    }
    // SAFETY: kill(2) and _exit(2) are async-signal-safe, and the bytes are
    // live.
    unsafe {
        if next == INTERRUPT {
            NEXT.store(ABORT, Ordering::Relaxed);
            INTERRUPTED.store(true, Ordering::Relaxed);
            start(GRACE_SECONDS * 1000);
            libc::kill(libc::getpid(), libc::SIGTERM);
            return;
        }
        let length = LENGTH.load(Ordering::Acquire).min(LONGEST);
        let has_room =
            forks::write_to_log(std::slice::from_raw_parts(MESSAGE.0.get().cast(), length));
        if next == ABORT && has_room {
            // The stack follows in the log.
            abort();
        }
        libc::_exit(STATUS.load(Ordering::Relaxed));
    }
}
