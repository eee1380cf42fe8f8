//! One request from the shell: composed as a web server composes it, run as a CGI request is run,
//! printed.

pub(crate) mod args;
mod compose;
mod print;
mod server;
mod via;

use std::{
    ffi::OsStr,
    fs::File,
    io::{
        BufReader, {self},
    },
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    thread,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use rustix::pipe::{PipeFlags, pipe_with};
use wire::{app::Source, launch::Work};

use crate::{
    call::{args::Call, compose::Composed, print::Printed},
    config::{
        script_line,
        settings::{AT_A_TERMINAL, Settings, application},
    },
    exit::{Complaint, Exit},
    guard::{
        Channels, {self},
    },
};

/// Makes the request and prints the response.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn run(words: &Call) -> Result<Exit, Complaint> {
    if let Some(server) = &words.via {
        return crate::call::via::run(words, server);
    }
    let (app, base) =
        application(words.app.as_deref().unwrap_or_default()).map_err(Complaint::usage)?;
    let script = match &app.source {
        Source::File(path) => Some(OsStr::from_bytes(path)),
        Source::Module(_) => None,
    };
    let options =
        script_line::complete(words.options.clone(), &app, &base).map_err(Complaint::settings)?;
    let words = Call { options, ..words.clone() };
    // Files for the body are opened before the working directory changes.
    let Composed { mut request, body } = composed(&words, words.target.as_deref(), script)?;
    let settings = Settings::resolve(&words.options, app, &base).map_err(Complaint::settings)?;
    let load_timeout =
        words.options.timeout.is_none().then_some(Duration::from_secs(AT_A_TERMINAL));
    let settings = Settings { load_timeout, ..settings };
    request.debug = settings.debug;
    let (printed, exit) = through_pipe(
        body,
        |channels| guard::run(&settings, Work::Cgi, &request, channels),
        |response| {
            crate::call::print::response(
                BufReader::new(File::from(response)),
                words.include,
                request.is_head(),
            )
        },
    )
    .map_err(not_passed_on)?;
    if exit == Exit::Interrupted {
        // The log message has said so.
        return Ok(exit);
    }
    Ok(match printed.map_err(not_passed_on)? {
        Printed::Response { status } if status < 400 && exit == Exit::Done => Exit::Done,
        // The page or the log message has said why.
        Printed::Response { .. } => Exit::Failed,
        // Only a response that could not be made ends here, and the log says why.
        Printed::NoHead(_) => {
            return Err(not_passed_on(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended within its head",
            )));
        }
        Printed::ReaderGone => Exit::Done,
    })
}

/// The request that `words` describe; shown, if they say so.
fn composed(
    words: &Call,
    target: Option<&str>,
    script: Option<&OsStr>,
) -> Result<Composed, Complaint> {
    let composed = Composed::new(words, target.unwrap_or("/"), script)
        .map_err(|error| wrong_words(format!("{error:#}")))?;
    if words.verbose {
        crate::call::compose::show(&composed.request);
    }
    Ok(composed)
}

fn wrong_words(sentence: String) -> Complaint {
    Complaint::usage(
        LogMessage::error(Code::BadSetting, sentence).hint("`wsgate call --help` shows the forms"),
    )
}

fn not_passed_on(error: io::Error) -> Complaint {
    Complaint::failed(
        LogMessage::error(
            Code::NotWritten,
            format!("the response could not be passed on: {error}"),
        )
        .hint("look at what standard output is connected to"),
    )
}

/// Runs `work` with the body `body`, while `read` gets its response through a pipe.
pub(crate) fn through_pipe<T: Send>(
    body: OwnedFd,
    work: impl FnOnce(Channels) -> Exit + Send,
    read: impl FnOnce(OwnedFd) -> T,
) -> io::Result<(T, Exit)> {
    let (ours, response) = pipe_with(PipeFlags::CLOEXEC)?;
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().spawn_scoped(scope, || work(Channels { body, response }))?;
        let read = read(ours);
        let exit = worker.join().unwrap_or(Exit::Bug);
        Ok((read, exit))
    })
}
