//! Handles a CGI invocation: looks up the script, and serves the request cold or warm.

mod script_lookup;
mod warm;

use std::{
    env,
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use wire::{app::App, launch::Work};

pub(crate) use crate::cgi::script_lookup::executed_script;
use crate::{
    cgi::{script_lookup::RequestedScript, warm::WarmAttempt},
    config::{
        missing_path::MissingPath,
        options::{Mode, ScriptOptions},
        script_line,
        settings::{Settings, default_pool_name},
    },
    exit::Exit,
    guard::{
        Channels, {self},
    },
    request::Request,
    system::error_log,
};

/// Has a web server started this process as a CGI program (RFC 3875 4.1.4)?
pub(crate) fn is_invocation() -> bool {
    env::var_os("GATEWAY_INTERFACE")
        .is_some_and(|interface| interface.into_vec().starts_with(b"CGI/"))
}

/// The result of a CGI invocation.
pub(crate) enum Invocation {
    /// A request was served.
    Served(Exit),
    /// The command line is trusted: a program of the administrator started wsgate, not a web
    /// server.
    Arguments,
}

/// Serves the request if the kernel or the web server names the script. Arguments never name the
/// script, because a web server may build them from the query string (RFC 3875 4.4).
pub(crate) fn enter(arguments: &[OsString]) -> Invocation {
    match RequestedScript::find(arguments) {
        RequestedScript::InArguments => Invocation::Arguments,
        RequestedScript::Script(script) => {
            Invocation::Served(serve_script(&script, Request::from_environment()))
        }
        RequestedScript::Handler { script, variables } => {
            let mut request = Request::from_environment();
            request.variables = variables;
            Invocation::Served(serve_script(&script, request))
        }
        RequestedScript::Program => Invocation::Served(refuse(
            Status::Forbidden,
            &LogMessage::new(
                Code::CalledDirectly,
                "the client requested wsgate itself, not a script",
            )
            .hint(
                "give a script the first line `#!` and the path of wsgate, or make wsgate the \
                 handler of .wsgi files with `Action`",
            ),
        )),
        RequestedScript::Unknown => Invocation::Served(refuse(
            Status::InternalServerError,
            &LogMessage::new(
                Code::NoScript,
                "the web server does not name the script: SCRIPT_FILENAME is not set, or names a \
                 file that does not exist",
            )
            .hint(
                "make the script executable and give it the first line `#!` and the path of wsgate",
            ),
        )),
    }
}

/// Serves the request with the application `app` and `options`. Relative paths are relative to
/// `base`.
pub(crate) fn serve(app: App, options: &ScriptOptions, base: &Path) -> Exit {
    serve_request(app, options, base, Request::from_environment())
}

/// Logs `message`, and responds with an error page of `status`.
pub(crate) fn refuse(status: Status, message: &LogMessage) -> Exit {
    let request = Request::from_environment();
    match Channels::standard() {
        Ok(channels) => request.refuse(status, message, channels.response),
        Err(error) => no_channels(&request, &error),
    }
}

/// The application in `script`, the options on its `#!` line, and the directory that their paths
/// are relative to.
///
/// # Errors
/// The log message, if the script cannot be read or its line has a wrong option.
pub(crate) fn script_and_base(script: &Path) -> Result<(App, ScriptOptions, PathBuf), LogMessage> {
    let script = match env::current_dir() {
        Ok(here) => here.join(script),
        Err(_) => script.to_owned(),
    };
    // Removes `.` and doubled slashes, so that each script has one name for the application and one
    // warm pool.
    let script: PathBuf = script.components().collect();
    let base = script.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let options = script_line::options_of(&script)?;
    Ok((App::in_file(script.into_os_string().into_vec()), options, base))
}

fn serve_script(script: &Path, request: Request) -> Exit {
    match script_and_base(script) {
        Ok((app, options, base)) => serve_request(app, &options, &base, request),
        Err(message) => refuse(Status::InternalServerError, &message),
    }
}

fn serve_request(app: App, options: &ScriptOptions, base: &Path, mut request: Request) -> Exit {
    request.debug = options.error_pages.debug;
    let error_log = options.logging.in_directory(base);
    let warning = error_log.and_then(|path| error_log::redirect_stderr(&path));
    options.logging.apply_to_request(default_pool_name(None, &app));
    warning.iter().for_each(|warning| request.log(warning));
    let channels = match Channels::standard() {
        Ok(channels) => channels,
        Err(error) => return no_channels(&request, &error),
    };
    let for_request = options.for_request(&request);
    match Settings::resolve(&for_request, app, base) {
        Ok(settings) => {
            let response_timeout = options.response.limit(&for_request.request);
            let settings = Settings { response_timeout, ..settings };
            let attempt = match options.mode.mode {
                Mode::Cold => WarmAttempt::Cold(channels),
                Mode::Warm | Mode::Resident => {
                    warm::serve(&settings, options, base, &request, channels)
                }
            };
            match attempt {
                WarmAttempt::Served(exit) => exit,
                WarmAttempt::Cold(channels) => {
                    MissingPath::of_loading(&settings)
                        .iter()
                        .for_each(|missing| request.log(&missing.message()));
                    guard::run(&settings, Work::Cgi, &request, channels)
                }
            }
        }
        Err(message) => request.refuse(Status::InternalServerError, &message, channels.response),
    }
}

/// Writes the response to standard output itself, because the file descriptor cannot be duplicated.
fn no_channels(request: &Request, error: &std::io::Error) -> Exit {
    let message = LogMessage::new(
        Code::NoProcess,
        format!("standard input and output cannot be taken over: {error}"),
    )
    .hint("raise the limit of open files (`ulimit -n`), or serve fewer requests at once");
    request.refuse_on(Status::ServiceUnavailable, &message, std::io::stdout().lock())
}
