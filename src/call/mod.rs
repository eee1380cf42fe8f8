//! One request from the shell: composed as a web server composes it, run as a CGI request is run, printed.

mod compose;
mod print;
pub(crate) mod words;

use std::{io, os::fd::OwnedFd, thread};

use link::{
    entry::{Code, Entry},
    launch::Work,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    exit::{Complaint, Exit},
    guard::{self, Channels},
    script_line,
    settings::{Settings, application},
};
use compose::Composed;
use print::Printed;
use words::Call;

/// Makes the request and prints the reply.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn run(words: &Call) -> Result<Exit, Complaint> {
    let (app, base) = application(&words.app).map_err(Complaint::usage)?;
    // Files for the body are opened before the working directory changes.
    let Composed { mut request, body } = Composed::new(words, &app).map_err(|error| {
        Complaint::usage(
            Entry::error(Code::BadSetting, format!("{error:#}")).hint("`wsgate call --help` shows the forms"),
        )
    })?;
    let settings = script_line::complete(words.options.clone(), &app, &base)
        .and_then(|options| Settings::resolve(&options, app, &base))
        .map_err(Complaint::settings)?;
    if words.verbose {
        compose::show(&request);
    }
    request.debug = settings.debug;
    let (printed, exit) = through_pipe(
        body,
        |channels| guard::run(&settings, Work::Cgi, &request, channels),
        |reply| print::reply(reply, words.include, request.is_head()),
    )
    .map_err(not_passed_on)?;
    Ok(match printed.map_err(not_passed_on)? {
        Printed::Reply { status } if status < 400 && exit == Exit::Done => Exit::Done,
        // The page or the log entry has said why.
        Printed::Reply { .. } => Exit::Failed,
        Printed::ReaderGone => Exit::Done,
    })
}

fn not_passed_on(error: io::Error) -> Complaint {
    Complaint::failed(
        Entry::error(Code::NotWritten, format!("the reply could not be passed on: {error}"))
            .hint("look at what standard output is connected to"),
    )
}

/// Runs `work` with the body `body`, while `read` gets its reply through a pipe.
pub(crate) fn through_pipe<T: Send>(
    body: OwnedFd,
    work: impl FnOnce(Channels) -> Exit + Send,
    read: impl FnOnce(OwnedFd) -> T,
) -> io::Result<(T, Exit)> {
    let (ours, reply) = pipe_with(PipeFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| work(Channels { body, reply }));
        let read = read(ours);
        let exit = worker.join().unwrap_or(Exit::Bug);
        Ok((read, exit))
    })
}
