//! Answers the supervisor's requests for the Python stacks of this process, in any state of the
//! interpreter and without stopping the process.
//!
//! The supervisor writes a request into [`wire::stacks_file`] and sends SIGURG. By default, a
//! process ignores that signal, so a process without the handler takes no harm. The handler has
//! `faulthandler` write the stacks of all threads.

use std::{
    fmt::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{
        OnceLock,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
};

use pyo3::prelude::*;
use rustix::process::getpid;
use wire::stacks_file;

use crate::process::forks::{
    descriptors::{Descriptor, Identity, identity},
    handlers::{install, look, put},
    numbers::{duplicate, duplicate_beyond},
    standard::HIGH_NUMBER_FLOOR,
};

/// The signal that follows on a request.
const SIGNAL: i32 = libc::SIGURG;

/// Most threads that serve requests: the limit of `--threads`.
const MAX_SERVING_THREADS: usize = 256;

/// The number of the file for the stacks; -1 for none, as in a child that the application has
/// forked.
static FILE: AtomicI32 = AtomicI32::new(-1);

/// The file. The application may close the number and open another file with it.
static FILE_IDENTITY: OnceLock<Identity> = OnceLock::new();

/// The handler of `faulthandler` that writes the stacks.
static FAULTHANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Python's identifier of each thread that serves requests; 0 for none.
static SERVING_THREADS: [AtomicUsize; MAX_SERVING_THREADS] =
    [const { AtomicUsize::new(0) }; MAX_SERVING_THREADS];

/// Answers requests from now on, in this process and in workers that are forked from it. `file` is
/// the file for the stacks. A handler that the application has already installed stays instead.
///
/// # Errors
/// If descriptors are short, or the application has replaced a required function.
pub(crate) fn answer_stack_requests(py: Python<'_>, file: &Descriptor) -> PyResult<()> {
    if look(SIGNAL).is_some_and(|action| action.sa_sigaction > libc::SIG_IGN) {
        return Ok(());
    }
    let number = file.as_raw_fd();
    let file = Descriptor::made(|| {
        duplicate_beyond(number, HIGH_NUMBER_FLOOR).or_else(|_| duplicate(number))
    })?;
    let number = file.as_raw_fd();
    let faulthandler = py.import("faulthandler")?;
    install(&[SIGNAL], || {
        faulthandler.call_method1("register", (SIGNAL, number, true, false))?;
        let handler = look(SIGNAL).map_or(libc::SIG_DFL, |action| action.sa_sigaction);
        FAULTHANDLER.store(handler, Ordering::Relaxed);
        put(SIGNAL, on_request as *const () as usize).map_err(PyErr::from)
    })?;
    name_serving_thread(0);
    if let Some(identity) = identity(file.as_fd()) {
        FILE_IDENTITY.get_or_init(|| identity);
        FILE.store(number, Ordering::Release);
        // The file stays open until the process exits.
        std::mem::forget(file);
    }
    Ok(())
}

/// Gives the calling thread its number among the threads that serve requests.
pub(crate) fn name_serving_thread(thread: u32) {
    let entry = usize::try_from(thread).ok().and_then(|thread| SERVING_THREADS.get(thread));
    if let Some(entry) = entry {
        // SAFETY: the call has no preconditions.
        let identifier = unsafe { libc::pthread_self() };
        entry.store(identifier as usize, Ordering::Relaxed);
    }
}

/// Forgets the file and undoes the registration with `faulthandler`, in a child that the
/// application has forked. The kernel's action was restored before.
pub(super) fn unregister(py: Python<'_>) -> PyResult<()> {
    if FILE.swap(-1, Ordering::Relaxed) < 0 {
        return Ok(());
    }
    py.import("faulthandler")?.call_method1("unregister", (SIGNAL,)).map(drop)
}

extern "C" fn on_request(signal: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let number = FILE.load(Ordering::Acquire);
    if number < 0 {
        return;
    }
    // SAFETY: `errno` is this thread's own. The borrow ends with the handler, and the kernel
    // refuses a number that is not open.
    unsafe {
        let errno = *libc::__errno_location();
        write_stacks(BorrowedFd::borrow_raw(number), signal);
        *libc::__errno_location() = errno;
    }
}

/// Writes the stacks of all threads to `file`, if the supervisor asks this process for them.
fn write_stacks(file: BorrowedFd<'_>, signal: i32) {
    if identity(file).as_ref() != FILE_IDENTITY.get() {
        return;
    }
    let pid = getpid().as_raw_nonzero().get();
    let Some(request) = stacks_file::requested(file, pid) else { return };
    for (thread, entry) in SERVING_THREADS.iter().enumerate() {
        let identifier = entry.load(Ordering::Relaxed);
        if identifier != 0 {
            // Without the line, the thread only has no number in the output.
            let _ = writeln!(Unbuffered(file), "serving {thread} {identifier:#x}");
        }
    }
    let handler = FAULTHANDLER.load(Ordering::Relaxed);
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&handler) {
        // SAFETY: `faulthandler` has installed this handler for this signal.
        unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal) };
    }
    stacks_file::complete(file, request);
}

/// Writes each piece of a text at once: a signal handler must not allocate memory.
struct Unbuffered<'a>(BorrowedFd<'a>);

impl fmt::Write for Unbuffered<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        rustix::io::write(self.0, piece.as_bytes()).map(drop).map_err(|_| fmt::Error)
    }
}
