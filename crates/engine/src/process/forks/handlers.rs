//! Signal handlers that are the engine's own, and what was there before each.
//!
//! No signal is ever ignored for the engine's sake: programs that the application starts would
//! inherit that. A handler they do not inherit, and a child that the application forks gets back
//! what was there before.

use std::{
    cell::UnsafeCell,
    io,
    os::fd::AsRawFd as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
};

use pyo3::prelude::*;

use crate::process::forks::descriptors::{Descriptor, log_number, without_forks};

/// Signals have the numbers below this one.
const END: usize = 65;

/// What the kernel is to do for each signal. Changed while no thread forks.
static ACTIONS: [Action; END] = [const { Action::none() }; END];

/// Handlers that Python knows of. Locked by threads that are attached to the interpreter, for a
/// moment.
static HANDLERS: Mutex<Vec<Handler>> = Mutex::new(Vec::new());

/// Where [`waken`] writes, and what keeps that open.
static BELL: AtomicI32 = AtomicI32::new(-1);
static BELL_OWNER: Mutex<Option<Descriptor>> = Mutex::new(None);

/// [`waken`] calls the handlers that it stands before.
static CALLS_NEXT: AtomicBool = AtomicBool::new(false);

/// A bit for each signal that has come to [`waken`] since [`forget_signals`].
static CAME: AtomicU64 = AtomicU64::new(0);

/// What [`waken`] calls: the address of a function; 0 for none.
static WHEN_WOKEN: AtomicUsize = AtomicUsize::new(0);

/// Address of the handler that Python installs for every signal.
static PYTHON: AtomicUsize = AtomicUsize::new(0);

/// Crashes are reported for the engine's sake, and on which signal stacks are; 0 if on none.
static REPORTS_CRASHES: AtomicBool = AtomicBool::new(false);
static STACKS_SIGNAL: AtomicI32 = AtomicI32::new(0);

struct Action {
    /// Address of the engine's handler; 0 if there is none.
    ours: AtomicUsize,
    /// The handler that ours calls.
    next: AtomicUsize,
    previous: UnsafeCell<Option<libc::sigaction>>,
}

// SAFETY: `previous` is touched only by a thread that has shut the gate, or in a child whose only
// thread was forked with it shut.
unsafe impl Sync for Action {}

impl Action {
    const fn none() -> Self {
        Self {
            ours: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            previous: UnsafeCell::new(None),
        }
    }
}

struct Handler {
    signal: i32,
    ours: Py<PyAny>,
    previous: Py<PyAny>,
}

/// Has `handler` called by Python when `signal` comes.
///
/// # Errors
/// If this is not the main thread.
pub(crate) fn handle(py: Python<'_>, signal: i32, handler: &Bound<'_, PyAny>) -> PyResult<()> {
    let found = py.import("_signal")?.call_method1("getsignal", (signal,))?;
    let entry =
        Handler { signal, ours: handler.clone().unbind(), previous: found.clone().unbind() };
    install(&[signal], || {
        py.import("_signal")?.call_method1("signal", (signal, handler))?;
        Ok::<_, PyErr>(stand_before_python(signal)?)
    })?;
    let mut handlers = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    match handlers.iter_mut().find(|known| known.signal == signal) {
        // One of ours in the place of another: what was there before both is what counts.
        Some(known) if known.ours.is(&found) => known.ours = entry.ours,
        Some(known) => *known = entry,
        None => handlers.push(entry),
    }
    Ok(())
}

impl Handler {
    fn restore(&self, py: Python<'_>) -> PyResult<()> {
        let module = py.import("_signal")?;
        if module.call_method1("getsignal", (self.signal,))?.is(&self.ours) {
            // None stands for a handler that is not Python's.
            let previous = Some(self.previous.bind(py)).filter(|previous| !previous.is_none());
            let default = module.getattr("SIG_DFL")?;
            module.call_method1("signal", (self.signal, previous.unwrap_or(&default)))?;
        }
        Ok(())
    }
}

/// Writes the Python stack to the log when C code crashes, and all stacks when `stacks` comes.
///
/// # Errors
/// If the application's own code is in the way.
pub(crate) fn report_crashes(py: Python<'_>) -> PyResult<()> {
    let faulthandler = py.import("faulthandler")?;
    if !faulthandler.call_method0("is_enabled")?.is_truthy()? {
        REPORTS_CRASHES.store(true, Ordering::Relaxed);
    }
    let crashes = [libc::SIGSEGV, libc::SIGFPE, libc::SIGABRT, libc::SIGBUS, libc::SIGILL];
    install(&crashes, || faulthandler.call_method1("enable", (log_number(),)).map(drop))
}

/// Writes the stacks of all threads to the log when `signal` comes, in whatever thread the
/// interpreter is. A function of Python's that the application has for this signal is called as
/// well; another handler, such as its own `faulthandler.register`, stays instead.
///
/// # Errors
/// If the application's own code is in the way.
pub(crate) fn report_stacks(py: Python<'_>, signal: i32) -> PyResult<()> {
    let has_function = py.import("_signal")?.call_method1("getsignal", (signal,))?.is_callable();
    let is_handled = look(signal).is_some_and(|action| action.sa_sigaction > libc::SIG_IGN);
    if is_handled && !has_function {
        return Ok(());
    }
    let faulthandler = py.import("faulthandler")?;
    STACKS_SIGNAL.store(signal, Ordering::Relaxed);
    let arguments = (signal, log_number(), true, has_function);
    install(&[signal], || faulthandler.call_method1("register", arguments).map(drop))
}

/// In a child that the application has forked: Python's own table becomes what it was before
/// [`handle`], and ends reports. What the kernel knows was restored before.
pub(crate) fn restore_handlers(py: Python<'_>) -> PyResult<()> {
    let handlers = std::mem::take(&mut *HANDLERS.lock().unwrap_or_else(PoisonError::into_inner));
    handlers.iter().try_for_each(|handler| handler.restore(py))?;
    let faulthandler = py.import("faulthandler")?;
    if REPORTS_CRASHES.swap(false, Ordering::Relaxed) {
        faulthandler.call_method0("disable")?;
    }
    match STACKS_SIGNAL.swap(0, Ordering::Relaxed) {
        0 => Ok(()),
        signal => faulthandler.call_method1("unregister", (signal,)).map(drop),
    }
}

/// Has each of `signals` write a byte to `bell`, which stays open for that. With `call_next` a
/// handler that the application has installed is called as well.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn wake(signals: &[i32], bell: Descriptor, call_next: bool) -> io::Result<()> {
    CALLS_NEXT.store(call_next, Ordering::Relaxed);
    BELL.store(bell.as_raw_fd(), Ordering::Relaxed);
    let old = BELL_OWNER.lock().unwrap_or_else(PoisonError::into_inner).replace(bell);
    drop(old);
    wake_again(signals)
}

/// Does what [`wake`] did once more, with the same bell, after Python has had a handler of the
/// engine's for `signals`.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn wake_again(signals: &[i32]) -> io::Result<()> {
    install(signals, || {
        signals.iter().try_for_each(|&signal| put(signal, waken as *const () as usize))
    })
}

/// Has `call` called when one of the signals comes that [`wake`] is for. It may do what a signal
/// handler may.
pub(crate) fn call_when_woken(call: extern "C" fn()) {
    WHEN_WOKEN.store(call as usize, Ordering::Release);
}

/// Has the kernel do what `action` says for `signal`. A child that the application forks gets back
/// what was there before.
///
/// # Errors
/// If the kernel refuses.
///
/// # Safety
/// The handler of `action` has the form that its flags say, and does only what a signal handler
/// may.
pub(crate) unsafe fn install_action(signal: i32, action: &libc::sigaction) -> io::Result<()> {
    install(&[signal], || {
        // SAFETY: the caller answers for the action.
        let done = unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// Takes back what [`wake`] did to `signals`.
pub(crate) fn stop_waking(signals: &[i32]) {
    without_forks(|| signals.iter().for_each(|&signal| restore_action(signal)));
    BELL.store(-1, Ordering::Relaxed);
    drop(BELL_OWNER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Runs `change`, which installs handlers of the engine's for `signals`, and notes what was there
/// before.
///
/// # Errors
/// As `change`.
fn install<E>(signals: &[i32], change: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let before: Vec<_> = signals.iter().map(|&signal| (signal, look(signal))).collect();
    change()?;
    without_forks(|| {
        for (signal, before) in before {
            let (Some(action), Some(now)) = (action_of(signal), look(signal)) else { continue };
            let ours = action.ours.load(Ordering::Relaxed);
            let is_first = ours == 0 || before.is_none_or(|before| ours != before.sa_sigaction);
            if is_first {
                action.next.store(
                    before.map_or(libc::SIG_DFL, |before| before.sa_sigaction),
                    Ordering::Relaxed,
                );
                // SAFETY: this thread has shut the gate.
                unsafe { *action.previous.get() = before };
            }
            action.ours.store(now.sa_sigaction, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// In a child that the application has forked: the kernel does for each signal what it did before
/// [`install`], unless the application has changed that. Only calls that such a child may make.
pub(crate) fn restore_actions() {
    (1..).take(END - 1).for_each(restore_action);
}

/// With the gate shut.
fn restore_action(signal: i32) {
    let Some(action) = action_of(signal) else { return };
    let ours = action.ours.swap(0, Ordering::Relaxed);
    if ours == 0 || look(signal).is_none_or(|now| now.sa_sigaction != ours) {
        return;
    }
    // SAFETY: the caller has shut the gate; the call reads an action that the kernel has filled.
    unsafe {
        if let Some(previous) = &*action.previous.get() {
            libc::sigaction(signal, previous, std::ptr::null_mut());
        }
    }
}

fn action_of(signal: i32) -> Option<&'static Action> {
    ACTIONS.get(usize::try_from(signal).ok()?)
}

/// What the kernel does for `signal` now.
fn look(signal: i32) -> Option<libc::sigaction> {
    // SAFETY: all-zero is a valid action, which the kernel overwrites.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut found) == 0).then_some(found)
    }
}

/// Has the kernel call the handler at the address `handler` for `signal`, which interrupts no call
/// that can go on. No other signal interrupts the handler: frames of several would not fit on the
/// alternate stack that `faulthandler` has made.
fn put(signal: i32, handler: usize) -> io::Result<()> {
    // SAFETY: all-zero is a valid action, whose mask is then filled; the handlers of this file have
    // the form that the flags say.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigfillset(&raw mut action.sa_mask);
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts a handler before the one that Python has just installed for `signal`. It can be told from
/// the one that Python installs for the application.
fn stand_before_python(signal: i32) -> io::Result<()> {
    let Some(mut action) = look(signal).filter(|found| found.sa_sigaction > libc::SIG_IGN) else {
        return Ok(());
    };
    PYTHON.store(action.sa_sigaction, Ordering::Relaxed);
    action.sa_sigaction = call_python as *const () as usize;
    // SAFETY: the action is the one that Python has installed, and the handler has the same form as
    // Python's.
    let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn call_python(signal: i32) {
    // SAFETY: Python installed the handler with this address before this one could be called, and
    // in this form.
    unsafe {
        std::mem::transmute::<usize, extern "C" fn(i32)>(PYTHON.load(Ordering::Relaxed))(signal)
    };
}

/// A signal handler of the form that `SA_SIGINFO` gives.
type WithInformation = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Begins to take note of the signals that [`wake`] is for.
pub(crate) fn forget_signals() {
    CAME.store(0, Ordering::Relaxed);
}

/// Has those signals come once more, to this thread, that have come since [`forget_signals`]: they
/// are pending if it blocks them.
pub(crate) fn repeat_signals() {
    let came = CAME.swap(0, Ordering::Relaxed);
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        if came & (1 << signal) != 0 {
            // SAFETY: the call sends a signal to this thread, and touches no memory.
            unsafe { libc::raise(signal) };
        }
    }
}

extern "C" fn waken(signal: i32, information: *mut libc::siginfo_t, context: *mut libc::c_void) {
    CAME.fetch_or(1 << (signal & 63), Ordering::Relaxed);
    // SAFETY: `errno` is this thread's own. The call reads one byte; if nobody is at the other end,
    // nothing happens.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(BELL.load(Ordering::Relaxed), b"x".as_ptr().cast(), 1, flags);
        *libc::__errno_location() = errno;
    }
    let call = WHEN_WOKEN.load(Ordering::Acquire);
    if call != 0 {
        // SAFETY: the address is that of such a function, and functions stay where they are.
        unsafe { std::mem::transmute::<usize, extern "C" fn()>(call)() };
    }
    let Some(action) = action_of(signal) else { return };
    let next = action.next.load(Ordering::Relaxed);
    if !CALLS_NEXT.load(Ordering::Relaxed) || next == libc::SIG_DFL || next == libc::SIG_IGN {
        return;
    }
    // SAFETY: the kernel had this address as a handler, and what is passed on is what it gave. On
    // Linux a handler that takes only the number may be given more.
    unsafe { std::mem::transmute::<usize, WithInformation>(next)(signal, information, context) };
}

/// Blocks all signals in this thread, and gives the mask from before.
pub(crate) fn block_all() -> libc::sigset_t {
    // SAFETY: all-zero is a valid signal set; the calls take pointers to live sets.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        before
    }
}

/// Makes `mask` the signal mask of this thread.
pub(crate) fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: the call reads a live set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}
