//! Ends this process when another has gone: the gateway that guards its request, which is no parent
//! of this one; or its parent, though the application has changed its user.
//!
//! The kernel's signal for the death of a parent (`PR_SET_PDEATHSIG`) is lost with a change of user
//! or group. A pipe that sends a signal when its other end is closed is not.

use std::{io, os::fd::AsRawFd as _};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, fchmod, openat},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal},
    system::uname,
};

use crate::process::forks::{
    Descriptor, {self},
};

/// Has the kernel kill this process when the other end of `pipe` is closed, to which nothing is
/// ever written.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn hold_to(pipe: &Descriptor) -> io::Result<()> {
    // Not SIGIO, which an application could catch.
    hold_by(pipe, Signal::KILL.as_raw())
}

/// Has the kernel send this process `signal` when the other end of `pipe` is closed.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn hold_by(pipe: &Descriptor, signal: i32) -> io::Result<()> {
    let number = pipe.as_raw_fd();
    let asks = [
        (libc::F_SETOWN, getpid().as_raw_nonzero().get()),
        (F_SETSIG, signal),
        (libc::F_SETFL, libc::O_ASYNC),
    ];
    for (command, argument) in asks {
        // SAFETY: each of these takes a number and touches no memory; the descriptor is open.
        if unsafe { libc::fcntl(number, command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // It may have gone before the kernel was asked.
    let mut watched = [PollFd::new(pipe, PollFlags::empty())];
    if !matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0)) {
        // SAFETY: kill(2) touches no memory.
        unsafe { libc::kill(libc::getpid(), signal) };
    }
    Ok(())
}

/// Undoes [`hold_to`].
pub(crate) fn let_go(pipe: &Descriptor) {
    // SAFETY: the call takes numbers and touches no memory; the descriptor is open. It was given
    // what is taken from it here, so it cannot be refused.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, 0) };
}

/// fcntl(2): which signal `O_ASYNC` sends. The number is the same on all architectures of Linux.
const F_SETSIG: libc::c_int = 10;

/// What ties workers to the template that forks them.
pub(crate) struct Cable {
    /// Workers open this end again: the kernel signals one process for each opening.
    workers_end: Descriptor,
    /// In no process but the template.
    templates_end: Descriptor,
}

impl Cable {
    /// In the template.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(crate) fn new() -> io::Result<Self> {
        let (workers_end, templates_end) = forks::without_forks(|| {
            let (one, other) = pipe_with(PipeFlags::CLOEXEC)?;
            // A worker may be another user by the time it opens it: hooks of `fork` come first.
            fchmod(&one, Mode::from_raw_mode(0o666))?;
            Ok::<_, io::Error>((Descriptor::from(one), Descriptor::from(other)))
        })?;
        Ok(Self { workers_end, templates_end })
    }

    /// In a worker: from now on this process ends with its template, the process `template`.
    ///
    /// # Errors
    /// If the kernel does not watch the template.
    pub(crate) fn tie(self, template: Pid) -> io::Result<Tie> {
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
        let tie = Tie { template, pipe };
        tie.hold()?;
        Ok(tie)
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

/// What ties this worker to its template.
pub(crate) struct Tie {
    template: Pid,
    pipe: Option<Descriptor>,
}

impl Tie {
    /// From now on this process ends with its template. If that is gone already, this process ends.
    ///
    /// # Errors
    /// If the kernel does not watch it.
    pub(crate) fn hold(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if !self.has_template() {
            // It ended before the kernel was asked to watch it.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        // The application may have closed it.
        self.pipe.iter().for_each(|pipe| drop(hold_to(pipe)));
        Ok(())
    }

    /// As [`Tie::hold`] while the template lives. A process whose template has gone ends by itself,
    /// soon.
    ///
    /// # Errors
    /// If the kernel does not watch it.
    pub(crate) fn hold_if_it_lives(&self) -> io::Result<()> {
        if self.has_template() { self.hold() } else { Ok(()) }
    }

    /// From now on this process lives on without its template.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn release(&self) -> io::Result<()> {
        self.pipe.iter().for_each(let_go);
        Ok(set_parent_process_death_signal(None)?)
    }

    /// Does the template still live?
    pub(crate) fn has_template(&self) -> bool {
        getppid() == Some(self.template)
    }
}
