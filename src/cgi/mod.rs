//! One CGI invocation: who called us for which script, and the run of it.

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
    cgi::{script_lookup::Origin, warm::Attempt},
    config::{
        options::{Mode, Options},
        script_line,
        settings::Settings,
    },
    exit::Exit,
    guard::{
        Channels, {self},
    },
    request::Request,
};

/// Were we started by a web server, as a CGI program (RFC 3875 4.1.4)?
pub(crate) fn is_invocation() -> bool {
    env::var_os("GATEWAY_INTERFACE")
        .is_some_and(|interface| interface.into_vec().starts_with(b"CGI/"))
}

/// What a CGI invocation comes to.
pub(crate) enum Invocation {
    /// A request was served.
    Served(Exit),
    /// The arguments were written by the deployer, in a program of his that started us.
    Arguments,
}

/// Serves the request if the script is told by the kernel or the web server; the arguments are not
/// looked at for that (RFC 3875 4.4 lets a query string become arguments).
pub(crate) fn enter(arguments: &[OsString]) -> Invocation {
    match Origin::find(arguments) {
        Origin::Arguments => Invocation::Arguments,
        Origin::Script(script) => {
            Invocation::Served(serve_script(&script, Request::from_environment()))
        }
        Origin::Handler { script, variables } => {
            let mut request = Request::from_environment();
            request.variables = variables;
            Invocation::Served(serve_script(&script, request))
        }
        Origin::Program => Invocation::Served(refuse(
            Status::Forbidden,
            &LogMessage::error(
                Code::CalledDirectly,
                "wsgate itself was requested, not a \
                script",
            )
            .hint(
                "give a script the first line `#!` and wsgate's path, or make wsgate the handler \
                 of .wsgi files by `Action`",
            ),
        )),
        Origin::Unknown => Invocation::Served(refuse(
            Status::InternalServerError,
            &LogMessage::error(
                Code::NoScript,
                "the web server does not say which script is meant: SCRIPT_FILENAME is not set, or \
                 names none that is there",
            )
            .hint("make the script executable and give it the first line `#!` and wsgate's path"),
        )),
    }
}

/// Serves the request with the application `app`, as `options` say. Relative paths are taken from
/// `base`.
pub(crate) fn serve(app: App, options: &Options, base: &Path) -> Exit {
    serve_request(app, options, base, Request::from_environment())
}

/// Answers a request that cannot be served with `status`, and logs why.
pub(crate) fn refuse(status: Status, entry: &LogMessage) -> Exit {
    let request = Request::from_environment();
    match Channels::standard() {
        Ok(channels) => request.refuse(status, entry, channels.response),
        Err(error) => no_channels(&request, &error),
    }
}

/// The application in `script`, the options on its `#!` line, and the directory that their paths
/// are taken from.
///
/// # Errors
/// The log message, if that line cannot be used.
pub(crate) fn script_and_base(script: &Path) -> Result<(App, Options, PathBuf), LogMessage> {
    let script = match env::current_dir() {
        Ok(here) => here.join(script),
        Err(_) => script.to_owned(),
    };
    // Without `.` and doubled slashes, which lead nowhere: one script has one name for the
    // application, and one warm pool.
    let script: PathBuf = script.components().collect();
    let base = script.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let options = script_line::options_of(&script)?;
    Ok((App::in_file(script.into_os_string().into_vec()), options, base))
}

fn serve_script(script: &Path, request: Request) -> Exit {
    match script_and_base(script) {
        Ok((app, options, base)) => serve_request(app, &options, &base, request),
        Err(entry) => refuse(Status::InternalServerError, &entry),
    }
}

fn serve_request(app: App, options: &Options, base: &Path, mut request: Request) -> Exit {
    request.debug = options.debug;
    let channels = match Channels::standard() {
        Ok(channels) => channels,
        Err(error) => return no_channels(&request, &error),
    };
    match Settings::resolve(options, app, base) {
        Ok(settings) => {
            let attempt = match options.mode {
                Mode::Cold => Attempt::Cold(channels),
                Mode::Warm | Mode::Resident => {
                    crate::cgi::warm::serve(&settings, options, base, &request, channels)
                }
            };
            match attempt {
                Attempt::Served(exit) => exit,
                Attempt::Cold(channels) => guard::run(&settings, Work::Cgi, &request, channels),
            }
        }
        Err(entry) => request.refuse(Status::InternalServerError, &entry, channels.response),
    }
}

/// Answers on standard output itself, of which no copy can be made.
fn no_channels(request: &Request, error: &std::io::Error) -> Exit {
    let entry = LogMessage::error(
        Code::NoProcess,
        format!("standard input and output cannot be taken over: {error}"),
    )
    .hint("too few files may be open: raise the limit, or serve fewer requests at once");
    request.refuse_on(Status::ServiceUnavailable, &entry, std::io::stdout().lock())
}
