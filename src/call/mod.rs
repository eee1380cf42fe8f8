//! `wsgate call`: makes one request as a web server does, serves it as a CGI request, and prints
//! the response.

pub(crate) mod args;
mod body;
mod body_files;
mod body_options;
mod compose;
mod cookies;
mod curl_options;
mod exchange;
mod multipart;
mod output;
mod request_options;
mod request_plan;
mod response_failure;
mod server;
mod transfer;
mod url;
mod via;
mod write_out;

use std::{
    ffi::OsStr,
    fs::File,
    io::{
        BufReader, {self},
    },
    os::unix::ffi::OsStrExt as _,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use wire::{app::Source, launch::Work};

use crate::{
    call::{args::CallArgs, request_plan::ComposedRequest},
    config::{
        missing_path::MissingPath,
        script_line,
        settings::{INTERACTIVE_TIMEOUT_SECS, Settings, application},
    },
    exit::{CommandError, Exit},
    guard::{
        start_error, {self},
    },
};

/// Makes the request, and prints the response.
///
/// # Errors
/// If the request cannot be made.
pub(crate) fn run(args: &CallArgs) -> Result<Exit, CommandError> {
    if let Some(server) = &args.via.via {
        return via::run(args, server);
    }
    let (app, base) = application(args.app.as_deref().unwrap_or_default())?;
    let script = match &app.source {
        Source::File(path) => Some(OsStr::from_bytes(path).to_owned()),
        Source::Module(_) => None,
    };
    let options = script_line::complete(args.script_options(), &app, &base)
        .map_err(CommandError::settings)?;
    let args = CallArgs { request: options.request.clone(), ..args.clone() };
    let load_timeout =
        options.request.timeout.is_none().then_some(Duration::from_secs(INTERACTIVE_TIMEOUT_SECS));
    transfer::run(&args, args.target.as_deref(), script.as_deref(), |composed, receive| {
        let ComposedRequest { mut request, body } = composed;
        let options = options.for_request(&request);
        let settings =
            Settings::resolve(&options, app.clone(), &base).map_err(CommandError::settings)?;
        // No web server would send the file.
        let settings = Settings { load_timeout, offload: None, ..settings };
        request.debug = settings.debug;
        MissingPath::of_loading(&settings)
            .iter()
            .for_each(|missing| request.log(&missing.message()));
        let (printed, exit) = guard::run_with_pipe(
            body,
            |channels| guard::run(&settings, Work::Cgi, &request, channels),
            |response| receive(&mut BufReader::new(File::from(response))),
        )
        .map_err(|error| CommandError::failed(start_error::message(&settings, &error)))?;
        if exit == Exit::Interrupted {
            // A log message has reported the failure.
            return Ok((output::Printed::OutputClosed, exit));
        }
        Ok((printed.map_err(not_passed_on)?, exit))
    })
}

fn wrong_argument(sentence: String) -> CommandError {
    CommandError::usage(
        LogMessage::new(Code::BadSetting, sentence)
            .hint("`wsgate call --help` shows the forms of each option"),
    )
}

fn not_passed_on(error: io::Error) -> CommandError {
    let is_of_file = error.get_ref().is_some_and(|cause| cause.is::<output::UnwritableOutput>());
    let hint = if is_of_file {
        "name a file with -o whose directory exists, where this user may write, on a disk with \
         space"
    } else {
        "check what standard output is connected to"
    };
    CommandError::failed(
        LogMessage::new(Code::NotWritten, format!("the response could not be passed on: {error}"))
            .hint(hint),
    )
}
