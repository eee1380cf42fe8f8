//! Serves one CGI request in its own process, like the CGI gateway in PEP 3333.

use std::{os::unix::ffi::OsStringExt as _, sync::Arc, time::Duration};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::prelude::*;
use wire::request::ResponseFormat;
use wire::{
    launch::{EXIT_TIMEOUT_SECONDS, Launch},
    report::Report,
};

use crate::{
    loading::{application, import_audit, load_error::LoadError},
    log::Log,
    process,
    process::{
        environment::{
            EnvironmentPairs, {self},
        },
        forks::Descriptor,
        gateway_pipe,
    },
    reporter::Reporter,
    transport::{
        cgi::{CgiBody, CgiResponse, ResponseEnding},
        error_sinks::StandardError,
    },
    wsgi::{
        BadVariable, BodyLength, DuplicatePolicy, Exchange, Interruptible, Response, Server,
        ServerSettings, Variables, refuse,
    },
};

/// Serves the request that the process environment describes. The first request
/// for a future warm pool also reports the import audit.
pub(crate) fn run(
    py: Python<'_>,
    launch: &Launch,
    (body, output): (Descriptor, Descriptor),
    reporter: Reporter,
    interruptible: Interruptible,
    (is_first, lifeline): (bool, Option<Arc<Descriptor>>),
) -> PyResult<()> {
    let audit = is_first.then(|| reporter.clone());
    let watcher = reporter.clone();
    let tell = {
        let (reporter, gateway) = (reporter.clone(), launch.gateway_pid);
        let limit = match launch.request.timeout_seconds {
            0 => EXIT_TIMEOUT_SECONDS,
            seconds => seconds,
        };
        let message =
            Log::new(&launch.request.id, &launch.request.line).text(&closing_hangs(limit));
        // Web servers kill the gateway after the response, but `close()` still has to run.
        move |complete| {
            let watched = (gateway, lifeline.as_deref());
            let signal = process::outlive_gateway(watched, Duration::from_secs(limit), &message);
            lifeline
                .iter()
                .for_each(|lifeline| drop(gateway_pipe::signal_when_closed(lifeline, signal)));
            reporter.send(&Report::ResponseEnded { complete });
        }
    };
    let asked = CgiRequest {
        log: Log::new(&launch.request.id, &launch.request.line),
        variables: std::env::vars_os()
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect(),
        body,
        output,
        reporter,
        interruptible,
        form: launch.request.response_format,
        part: ResponseEnding { tell: Box::new(tell), is_guarded: true, exits: true },
    };
    let setting = ServerSettings {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: launch.debug,
        timeout_seconds: launch.request.timeout_seconds,
        response_timeout_seconds: launch.request.response_timeout_seconds,
        socket_timeout_seconds: 0,
        is_cgi: true,
        script_name: launch.script_name.as_deref().map(Into::into),
    };
    serve(py, asked, setting, |setting| {
        let load = || {
            // As in any CGI script, `environ` includes the changes that loading made to the
            // environment.
            let loaded = application::load(py, launch, setting);
            watcher.send(&Report::Loaded);
            loaded.map(|loaded| (loaded.application, environment::variables(py).ok()))
        };
        match audit {
            None => load(),
            Some(reporter) => import_audit::report(py, launch, &reporter, load),
        }
    })
}

/// A CGI request and everything that belongs to it.
pub(crate) struct CgiRequest {
    pub(crate) log: Log,
    pub(crate) variables: EnvironmentPairs,
    pub(crate) body: Descriptor,
    pub(crate) output: Descriptor,
    pub(crate) reporter: Reporter,
    pub(crate) interruptible: Interruptible,
    pub(crate) form: ResponseFormat,
    /// Steps before the end of the response.
    pub(crate) part: ResponseEnding,
}

/// Serves one request with the application that `load` returns. Calls `load` once the request is
/// known to be valid. If loading may have changed the variables of the request, `load` returns the
/// new variables as well.
pub(crate) fn serve<'py>(
    py: Python<'py>,
    asked: CgiRequest,
    setting: ServerSettings,
    load: impl FnOnce(
        &ServerSettings,
    ) -> Result<(Bound<'py, PyAny>, Option<EnvironmentPairs>), LoadError>,
) -> PyResult<()> {
    let CgiRequest { log, variables: received, body, output, reporter, interruptible, form, part } =
        asked;
    let is_head =
        received.iter().any(|(name, value)| name == b"REQUEST_METHOD" && value == b"HEAD");
    let variables = match checked(&received, &setting) {
        Ok(variables) => variables,
        Err(bad) => {
            let sink = Box::new(CgiResponse::new(
                output,
                CgiBody::new(body, BodyLength::Exactly(0)),
                reporter,
                part,
            ));
            let response = Response::new(sink, form, is_head, log, interruptible);
            refuse(py, response, setting.debug, Status::BadRequest, &bad.log_message());
            return Ok(());
        }
    };
    let body = CgiBody::new(body, variables.body_length());
    let software = received.iter().find(|(name, _)| name == b"SERVER_SOFTWARE");
    let software = software.map_or(&b""[..], |(_, value)| value);
    let sink =
        Box::new(CgiResponse::new(output, body.clone(), reporter, part).for_server(software));
    match load(&setting) {
        Ok((application, changed)) => {
            let changed = changed.filter(|changed| *changed != received);
            let changed = changed.as_ref().and_then(|changed| checked(changed, &setting).ok());
            let variables = changed.unwrap_or(variables);
            let exchange = Exchange {
                variables,
                body: Box::new(body),
                response: sink,
                errors: None,
                form,
                log,
                interruptible,
            };
            Server::new(py, setting, Arc::new(StandardError))?.serve(&application, exchange);
        }
        Err(failure) => {
            let response = Response::new(sink, form, variables.is_head(), log, interruptible);
            refuse(py, response, setting.debug, failure.status, &failure.message);
        }
    }
    Ok(())
}

/// The log message for a `close()` that ignores its interruption.
pub(crate) fn closing_hangs(seconds: u64) -> LogMessage {
    let sentence = format!(
        "the request took longer than {seconds} s: `close()` of its response has not returned"
    );
    LogMessage::new(Code::TimedOut, sentence).hint(
        "the client has the response; `close()` did not react to SIGTERM, and its stack may stand \
         just below",
    )
}

/// The variables `received` as the application sees them.
fn checked<'a>(
    received: &'a EnvironmentPairs,
    setting: &ServerSettings,
) -> Result<Variables<'a>, BadVariable> {
    let received = received.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let mut variables = Variables::new(received, DuplicatePolicy::First)?;
    setting.script_name.iter().for_each(|script_name| variables.mount_at(script_name));
    Ok(variables)
}
