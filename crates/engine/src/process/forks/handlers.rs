//! Signal handlers of the engine, and the action that each has replaced.
//!
//! The engine never ignores a signal, since programs that the application starts would inherit
//! that. Programs do not inherit handlers. A child that the application forks gets back the
//! replaced actions.

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

use crate::process::forks::{
    descriptors::{Descriptor, without_forks},
    standard::log_number,
};

/// The highest signal number plus one.
const SIGNALS_END: usize = 65;

/// The engine's action for each signal. Changed while no thread forks.
static ACTIONS: [Action; SIGNALS_END] = [const { Action::none() }; SIGNALS_END];

/// The engine's handlers that Python knows. Threads that are attached to the interpreter lock the
/// list briefly.
static HANDLERS: Mutex<Vec<Handler>> = Mutex::new(Vec::new());

/// The socket that [`on_wake`] writes to, and its owner.
static BELL: AtomicI32 = AtomicI32::new(-1);
static BELL_OWNER: Mutex<Option<Descriptor>> = Mutex::new(None);

/// [`on_wake`] also calls the handler that it has replaced.
static CALLS_NEXT: AtomicBool = AtomicBool::new(false);

/// A bit for each signal that [`on_wake`] has handled since [`forget_signals`].
static CAME: AtomicU64 = AtomicU64::new(0);

/// The address of the function that [`on_wake`] calls; 0 for none.
static WHEN_WOKEN: AtomicUsize = AtomicUsize::new(0);

/// The address of the handler that Python installs for every signal.
static PYTHON: AtomicUsize = AtomicUsize::new(0);

/// The engine has enabled crash reports, and stack reports at this signal; 0 for none.
static REPORTS_CRASHES: AtomicBool = AtomicBool::new(false);
static STACKS_SIGNAL: AtomicI32 = AtomicI32::new(0);

struct Action {
    /// The address of the engine's handler; 0 for none.
    ours: AtomicUsize,
    /// The handler that the engine's handler calls.
    next: AtomicUsize,
    previous: UnsafeCell<Option<libc::sigaction>>,
}

// SAFETY: only a thread that has shut the gate touches `previous`, or a child whose only thread was
// forked with the gate shut.
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

/// Has Python call `handler` at `signal`.
///
/// # Errors
/// If this is not the main thread.
pub(crate) fn handle(py: Python<'_>, signal: i32, handler: &Bound<'_, PyAny>) -> PyResult<()> {
    let found = py.import("_signal")?.call_method1("getsignal", (signal,))?;
    let installed =
        Handler { signal, ours: handler.clone().unbind(), previous: found.clone().unbind() };
    install(&[signal], || {
        py.import("_signal")?.call_method1("signal", (signal, handler))?;
        Ok::<_, PyErr>(stand_before_python(signal)?)
    })?;
    let mut handlers = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    match handlers.iter_mut().find(|known| known.signal == signal) {
        // The handler replaces another handler of the engine. The application's earlier handler
        // stays recorded.
        Some(known) if known.ours.is(&found) => known.ours = installed.ours,
        Some(known) => *known = installed,
        None => handlers.push(installed),
    }
    Ok(())
}

impl Handler {
    fn restore(&self, py: Python<'_>) -> PyResult<()> {
        let module = py.import("_signal")?;
        if module.call_method1("getsignal", (self.signal,))?.is(&self.ours) {
            // `None` means a handler that Python has not installed.
            let previous = Some(self.previous.bind(py)).filter(|previous| !previous.is_none());
            let default = module.getattr("SIG_DFL")?;
            module.call_method1("signal", (self.signal, previous.unwrap_or(&default)))?;
        }
        Ok(())
    }
}

/// Logs the Python stack when C code crashes.
///
/// # Errors
/// If the application has replaced a required function.
pub(crate) fn report_crashes(py: Python<'_>) -> PyResult<()> {
    let faulthandler = py.import("faulthandler")?;
    if !faulthandler.call_method0("is_enabled")?.is_truthy()? {
        REPORTS_CRASHES.store(true, Ordering::Relaxed);
    }
    let crashes = [libc::SIGSEGV, libc::SIGFPE, libc::SIGABRT, libc::SIGBUS, libc::SIGILL];
    install(&crashes, || faulthandler.call_method1("enable", (log_number(),)).map(drop))
}

/// Writes the stacks of all threads to the log at `signal`, in any state of the interpreter. Also
/// calls a Python function that the application has installed for this signal. Any other handler of
/// the application, such as its own `faulthandler.register`, stays instead.
///
/// # Errors
/// If the application has replaced a required function.
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

/// Undoes [`handle`] and the reports in Python's tables, in a child that the application has
/// forked. [`restore_actions`] has already restored the kernel's actions.
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

/// Makes each of `signals` write a byte to `bell`, which this module keeps open. With `call_next`,
/// the application's handler is called as well.
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

/// Repeats [`wake`] with the same bell, after [`handle`] was called for `signals`.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn wake_again(signals: &[i32]) -> io::Result<()> {
    install(signals, || {
        signals.iter().try_for_each(|&signal| put(signal, on_wake as *const () as usize))
    })
}

/// Calls `call`, which must be async-signal-safe, at each signal of [`wake`].
pub(crate) fn call_when_woken(call: extern "C" fn()) {
    WHEN_WOKEN.store(call as usize, Ordering::Release);
}

/// Installs `action` for `signal`. In a child that the application forks the replaced action is
/// restored.
///
/// # Errors
/// If the kernel refuses.
///
/// # Safety
/// The handler of `action` has the signature that its flags say, and is async-signal-safe.
pub(crate) unsafe fn install_action(signal: i32, action: &libc::sigaction) -> io::Result<()> {
    install(&[signal], || {
        // SAFETY: the caller answers for the action.
        let done = unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

/// Undoes [`wake`] for `signals`.
pub(crate) fn stop_waking(signals: &[i32]) {
    without_forks(|| signals.iter().for_each(|&signal| restore_action(signal)));
    BELL.store(-1, Ordering::Relaxed);
    drop(BELL_OWNER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Runs `change`, which installs handlers of the engine for `signals`, and notes the actions that
/// these replace.
///
/// # Errors
/// As `change`.
pub(super) fn install<E>(signals: &[i32], change: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
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

/// Restores the replaced action of each signal, unless the application has changed the action. For
/// a child that the application has forked; async-signal-safe.
pub(crate) fn restore_actions() {
    (1..).take(SIGNALS_END - 1).for_each(restore_action);
}

/// Must be called with the gate shut.
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

/// The present action of `signal`.
pub(super) fn look(signal: i32) -> Option<libc::sigaction> {
    // SAFETY: all-zero is a valid action, which the kernel overwrites.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut found) == 0).then_some(found)
    }
}

/// Installs the handler at the address `handler` for `signal`. Restarts system calls where
/// possible. No other signal interrupts the handler, since several frames would not fit on the
/// alternate stack of `faulthandler`.
pub(super) fn put(signal: i32, handler: usize) -> io::Result<()> {
    // SAFETY: all-zero is a valid action, whose mask is then filled; the handlers of this file have
    // the signature that the flags say.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigfillset(&raw mut action.sa_mask);
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts the engine's handler before the one that Python has just installed for `signal`. So
/// [`restore_action`] can distinguish it from a handler that Python installs for the application.
fn stand_before_python(signal: i32) -> io::Result<()> {
    let Some(mut action) = look(signal).filter(|found| found.sa_sigaction > libc::SIG_IGN) else {
        return Ok(());
    };
    PYTHON.store(action.sa_sigaction, Ordering::Relaxed);
    action.sa_sigaction = call_python as *const () as usize;
    // SAFETY: Python has installed the action, and the handler has the same signature as Python's.
    let done = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn call_python(signal: i32) {
    // SAFETY: Python had installed a handler of this signature at this address before.
    unsafe {
        std::mem::transmute::<usize, extern "C" fn(i32)>(PYTHON.load(Ordering::Relaxed))(signal)
    };
}

/// The signature of a signal handler with `SA_SIGINFO`.
type WithInformation = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Forgets which signals of [`wake`] have arrived.
pub(crate) fn forget_signals() {
    CAME.store(0, Ordering::Relaxed);
}

/// Has this signal of [`wake`] arrived since [`forget_signals`]?
pub(crate) fn has_come(signal: i32) -> bool {
    CAME.load(Ordering::Relaxed) & (1 << (signal & 63)) != 0
}

/// Sends the signals that have arrived since [`forget_signals`] to this thread again. A signal
/// stays pending while the thread blocks it.
pub(crate) fn repeat_signals() {
    let came = CAME.swap(0, Ordering::Relaxed);
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        if came & (1 << signal) != 0 {
            // SAFETY: the call sends a signal to this thread, and touches no memory.
            unsafe { libc::raise(signal) };
        }
    }
}

extern "C" fn on_wake(signal: i32, information: *mut libc::siginfo_t, context: *mut libc::c_void) {
    CAME.fetch_or(1 << (signal & 63), Ordering::Relaxed);
    // SAFETY: `errno` is this thread's own. The call reads one byte, and may fail.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(BELL.load(Ordering::Relaxed), b"x".as_ptr().cast(), 1, flags);
        *libc::__errno_location() = errno;
    }
    let call = WHEN_WOKEN.load(Ordering::Acquire);
    if call != 0 {
        // SAFETY: the address is that of a function of this signature, and functions do not move.
        unsafe { std::mem::transmute::<usize, extern "C" fn()>(call)() };
    }
    let Some(action) = action_of(signal) else { return };
    let next = action.next.load(Ordering::Relaxed);
    if !CALLS_NEXT.load(Ordering::Relaxed) || next == libc::SIG_DFL || next == libc::SIG_IGN {
        return;
    }
    // SAFETY: the kernel had this address as a handler, and gets the kernel's arguments. On Linux a
    // handler that takes only the number may be given more.
    unsafe { std::mem::transmute::<usize, WithInformation>(next)(signal, information, context) };
}
