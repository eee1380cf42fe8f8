//! `wsgate call`: makes one request as a web server does, serves it as a CGI request, and prints
//! the response.

pub(crate) mod args;
mod compose;
mod exchange;
mod print;
mod response_failure;
mod server;
mod via;

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
    call::{
        args::CallArgs,
        compose::{ComposedRequest, UnusableBody},
        print::Printed,
    },
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
        Source::File(path) => Some(OsStr::from_bytes(path)),
        Source::Module(_) => None,
    };
    let options = script_line::complete(args.script_options(), &app, &base)
        .map_err(CommandError::settings)?;
    let args = CallArgs { request: options.request.clone(), ..args.clone() };
    // Files for the body are opened before the working directory changes.
    let composed = compose(&args, args.target.as_deref(), script)?;
    let ComposedRequest { mut request, body } = composed;
    let options = options.for_request(&request);
    let settings = Settings::resolve(&options, app, &base).map_err(CommandError::settings)?;
    let load_timeout =
        options.request.timeout.is_none().then_some(Duration::from_secs(INTERACTIVE_TIMEOUT_SECS));
    // No web server would send the file.
    let settings = Settings { load_timeout, offload: None, ..settings };
    request.debug = settings.debug;
    MissingPath::of_loading(&settings).iter().for_each(|missing| request.log(&missing.message()));
    let (printed, exit) = guard::run_with_pipe(
        body,
        |channels| guard::run(&settings, Work::Cgi, &request, channels),
        |response| {
            print::response(
                BufReader::new(File::from(response)),
                args.call.include,
                request.is_head(),
            )
        },
    )
    .map_err(|error| CommandError::failed(start_error::message(&settings, &error)))?;
    if exit == Exit::Interrupted {
        // A log message has reported the failure.
        return Ok(exit);
    }
    Ok(match printed.map_err(not_passed_on)? {
        Printed::Response { status } if status < 400 && exit == Exit::Success => Exit::Success,
        // The error page or a log message gives the reason.
        Printed::Response { .. } => Exit::Failure,
        // The response could not be sent, and a log message gives the reason.
        Printed::NotAResponse(_) => {
            return Err(not_passed_on(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it ended within its headers",
            )));
        }
        Printed::OutputClosed => Exit::Success,
    })
}

/// The request that `args` describe, printed if `--verbose` is given.
fn compose(
    args: &CallArgs,
    target: Option<&str>,
    script: Option<&OsStr>,
) -> Result<ComposedRequest, CommandError> {
    let composed = ComposedRequest::new(args, target.unwrap_or("/"), script).map_err(|error| {
        match error.downcast_ref::<UnusableBody>() {
            Some(_) => CommandError::settings(
                LogMessage::new(Code::BadSetting, format!("{error:#}"))
                    .hint("check the path after `@`, and the permissions of the file"),
            ),
            None => wrong_argument(format!("{error:#}")),
        }
    })?;
    if args.call.verbose {
        compose::print_variables(&composed.request);
    }
    Ok(composed)
}

fn wrong_argument(sentence: String) -> CommandError {
    CommandError::usage(
        LogMessage::new(Code::BadSetting, sentence)
            .hint("`wsgate call --help` shows the forms of each option"),
    )
}

fn not_passed_on(error: io::Error) -> CommandError {
    CommandError::failed(
        LogMessage::new(Code::NotWritten, format!("the response could not be passed on: {error}"))
            .hint("check what standard output is connected to"),
    )
}
