//! Runs a request whose response is read by this process.

use std::{io, os::fd::OwnedFd, thread};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{exit::Exit, guard::Channels};

/// Runs `work` with the request body `body`, while `read` reads the response from a pipe.
///
/// # Errors
/// If there is no pipe or no thread.
pub(crate) fn run_with_pipe<T: Send>(
    body: OwnedFd,
    work: impl FnOnce(Channels) -> Exit + Send,
    read: impl FnOnce(OwnedFd) -> T,
) -> io::Result<(T, Exit)> {
    let (reader, response) = pipe_with(PipeFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().spawn_scoped(scope, || work(Channels { body, response }))?;
        let read = read(reader);
        let exit = worker.join().unwrap_or(Exit::Bug);
        Ok((read, exit))
    })
}
