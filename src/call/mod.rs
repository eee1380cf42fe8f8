//! One request from the shell: composed as a web server composes it, run as a CGI request is run, printed.

mod compose;
mod print;

use std::{io, os::fd::OwnedFd, path::Path, thread};

use link::{
    app::App,
    entry::{Code, Entry},
    launch::Work,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    cli::{call::Call, complain},
    exit::Exit,
    guard::{self, Channels},
    settings::Settings,
};
use compose::Composed;
use print::Printed;

/// Makes the request and prints the reply.
pub(crate) fn run(call: &Call, app: App, base: &Path) -> Exit {
    // Before the working directory or anything else is looked at: the words themselves.
    let composed = match Composed::new(call, &app) {
        Ok(composed) => composed,
        Err(error) => {
            complain(
                &Entry::error(Code::BadSetting, format!("{error:#}")).hint("`wsgate call --help` shows the forms"),
            );
            return Exit::Usage;
        }
    };
    let resolved =
        call.options.clone().with_script_line(&app, base).and_then(|options| Settings::resolve(&options, app, base));
    let settings = match resolved {
        Ok(settings) => settings,
        Err(entry) => {
            complain(&entry);
            return Exit::Settings;
        }
    };
    if call.verbose {
        composed.show();
    }
    let Composed { mut request, body } = composed;
    request.debug = settings.debug;
    let printed = through_pipe(
        body,
        |channels| guard::run(&settings, Work::Cgi, &request, channels),
        |reply| print::reply(reply, call.include, request.is_head()),
    );
    match printed {
        Ok((Ok(Printed::Reply { status }), Exit::Done)) if status < 400 => Exit::Done,
        Ok((Ok(Printed::ReaderGone), _)) => Exit::Done,
        // The page or the log entry has said why.
        Ok((Ok(Printed::Reply { .. }), _)) => Exit::Failed,
        Ok((Err(error), _)) | Err(error) => {
            complain(&Entry::error(Code::NotWritten, format!("the reply could not be passed on: {error}")));
            Exit::Failed
        }
    }
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
