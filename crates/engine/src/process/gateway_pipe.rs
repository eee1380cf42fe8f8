//! Pipes that end this process when the other end is closed. The first pipe ends the process when
//! the gateway of its request exits, since the gateway is not its parent. The second ends the
//! process when its parent exits, even if the application has changed the user.
//!
//! The kernel drops the parent death signal (`PR_SET_PDEATHSIG`) when the user or group changes. A
//! pipe that sends a signal when its other end is closed works for both cases.

use std::{io, os::fd::AsRawFd as _};

use rustix::{
    event::PollFlags,
    fs::{CWD, Mode, OFlags, fchmod, openat},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal},
    system::uname,
};

use crate::process::{
    forks::{
        Descriptor, {self},
    },
    poll::events_now,
};

/// Makes the kernel kill this process when the other end of `pipe` is closed. No process ever
/// writes to that end.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn kill_when_closed(pipe: &Descriptor) -> io::Result<()> {
    // An application could catch SIGIO.
    signal_when_closed(pipe, Signal::KILL.as_raw())
}

/// Makes the kernel send `signal` to this process when the other end of `pipe` is closed.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn signal_when_closed(pipe: &Descriptor, signal: i32) -> io::Result<()> {
    let number = pipe.as_raw_fd();
    let settings = [
        (libc::F_SETOWN, getpid().as_raw_nonzero().get()),
        (F_SETSIG, signal),
        (libc::F_SETFL, libc::O_ASYNC),
    ];
    for (command, argument) in settings {
        // SAFETY: each command takes a number and touches no memory; the descriptor is open.
        if unsafe { libc::fcntl(number, command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // The other end may already be closed.
    if events_now(pipe, PollFlags::empty()).map_or(true, |events| !events.is_empty()) {
        // SAFETY: kill(2) touches no memory.
        unsafe { libc::kill(libc::getpid(), signal) };
    }
    Ok(())
}

/// Undoes [`kill_when_closed`] and [`signal_when_closed`].
pub(crate) fn cancel_signal(pipe: &Descriptor) {
    // SAFETY: the call takes numbers and touches no memory; the descriptor is open. The kernel
    // allowed the flag, so it does not refuse to remove it.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, 0) };
}

/// fcntl(2): which signal `O_ASYNC` sends. The number is the same on all architectures of Linux.
const F_SETSIG: libc::c_int = 10;

/// The template's end of the pipe that ends its workers.
pub(crate) struct TemplatePipe {
    /// Each worker reopens this end: the kernel signals one process for each open file.
    workers_end: Descriptor,
    /// Only the template keeps this end.
    templates_end: Descriptor,
}

impl TemplatePipe {
    /// Creates the pipe, in the template.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(crate) fn new() -> io::Result<Self> {
        let (workers_end, templates_end) = forks::without_forks(|| {
            let (one, other) = pipe_with(PipeFlags::CLOEXEC)?;
            // Hooks of `fork` run first, and may change the user of a worker before the worker
            // opens the pipe.
            fchmod(&one, Mode::from_raw_mode(0o666))?;
            Ok::<_, io::Error>((Descriptor::from(one), Descriptor::from(other)))
        })?;
        Ok(Self { workers_end, templates_end })
    }

    /// Makes this worker exit with its template, the process `template`.
    ///
    /// # Errors
    /// If the kernel cannot watch the template.
    pub(crate) fn tie(self, template: Pid) -> io::Result<TemplateLink> {
        let Self { workers_end, templates_end } = self;
        drop(templates_end);
        let path = format!("/proc/self/fd/{}", workers_end.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Without the pipe, the parent death signal still works unless the user changes.
        let pipe = if is_shared_pipe_safe() {
            Descriptor::made(|| openat(CWD, path, flags, Mode::empty())).ok()
        } else {
            None
        };
        let link = TemplateLink { template, pipe };
        link.attach()?;
        Ok(link)
    }
}

/// Does the kernel signal the workers only when the last writer of their pipe closes it?
///
/// Before Linux 5.6 the exit of any worker that had opened the pipe would kill all the others.
fn is_shared_pipe_safe() -> bool {
    let system = uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|part: char| !part.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    (major, minor) >= (5, 6)
}

/// Makes a worker exit with its template.
pub(crate) struct TemplateLink {
    template: Pid,
    pipe: Option<Descriptor>,
}

impl TemplateLink {
    /// Makes this process exit with its template; at once if the template has exited.
    ///
    /// # Errors
    /// If the kernel cannot watch the template.
    pub(crate) fn attach(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if !self.has_template() {
            // The template exited before the kernel watched it.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        // The application may have closed the pipe.
        self.pipe.iter().for_each(|pipe| drop(kill_when_closed(pipe)));
        Ok(())
    }

    /// As [`TemplateLink::attach`], unless the template has exited: then the process exits soon by
    /// itself.
    ///
    /// # Errors
    /// If the kernel cannot watch the template.
    pub(crate) fn attach_if_template_lives(&self) -> io::Result<()> {
        if self.has_template() { self.attach() } else { Ok(()) }
    }

    /// Lets this process outlive its template.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn detach(&self) -> io::Result<()> {
        self.pipe.iter().for_each(cancel_signal);
        Ok(set_parent_process_death_signal(None)?)
    }

    /// Is the template still running?
    pub(crate) fn has_template(&self) -> bool {
        getppid() == Some(self.template)
    }
}
