//! One CGI request: checks its variables, and serves it with an application.

use std::sync::Arc;

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use wire::request::ResponseFormat;

use crate::{
    log::Log,
    process::{environment::EnvironmentPairs, forks::Descriptor},
    reporter::Reporter,
    transport::{
        cgi::{CgiBody, CgiResponse, ResponseEnding},
        error_sinks::StandardError,
    },
    wsgi::{
        BadVariable, BodyLength, DuplicatePolicy, Exchange, Interruptible, Refusal, Response,
        Server, ServerSettings, Variables, refuse, trust_proxies,
    },
};

/// A CGI request and everything that belongs to it.
pub(crate) struct CgiRequest {
    pub(crate) log: Log,
    pub(crate) variables: EnvironmentPairs,
    /// The request body is read from here.
    pub(crate) body: Descriptor,
    /// The response is written here.
    pub(crate) output: Descriptor,
    pub(crate) reporter: Reporter,
    pub(crate) interruptible: Interruptible,
    pub(crate) response_format: ResponseFormat,
    /// Steps before the end of the response.
    pub(crate) ending: ResponseEnding,
}

impl CgiRequest {
    /// Serves the request with the application that `load` returns. Calls `load` once the request
    /// is known to be valid. If loading may have changed the variables of the request, `load`
    /// returns the new variables as well. Returns the status of the response, if one was sent.
    ///
    /// # Errors
    /// If Python is short of memory.
    pub(crate) fn serve<'py>(
        self,
        py: Python<'py>,
        setting: ServerSettings,
        load: impl FnOnce(
            &ServerSettings,
        ) -> Result<(Bound<'py, PyAny>, Option<EnvironmentPairs>), Refusal>,
    ) -> PyResult<Option<u16>> {
        let Self {
            log,
            variables: received,
            body,
            output,
            reporter,
            interruptible,
            response_format: form,
            ending,
        } = self;
        let variable = |wanted: &[u8]| {
            received.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice())
        };
        let variables = match checked(&received, &setting) {
            Ok(variables) => variables,
            Err(bad) => {
                let body = CgiBody::new(body, BodyLength::Exactly(0));
                let sink = Box::new(CgiResponse::new(output, body, reporter, ending));
                let is_head = variable(b"REQUEST_METHOD") == Some(b"HEAD");
                let response = Response::new(sink, form, is_head, log, interruptible);
                let refusal = Refusal::bad_request(bad.log_message());
                return Ok(refuse(py, response, setting.debug, &refusal).status);
            }
        };
        let body = CgiBody::new(body, variables.body_length());
        let software = variable(b"SERVER_SOFTWARE").unwrap_or_default();
        let sink = CgiResponse::new(output, body.clone(), reporter, ending).for_server(software);
        let sink = Box::new(sink);
        let served = match load(&setting) {
            Ok((application, changed)) => {
                let changed = changed.filter(|changed| *changed != received);
                let changed = changed.as_ref().and_then(|changed| checked(changed, &setting).ok());
                let exchange = Exchange {
                    variables: changed.unwrap_or(variables),
                    body: Box::new(body),
                    response: sink,
                    errors: None,
                    form,
                    log,
                    interruptible,
                };
                Server::new(py, setting, Arc::new(StandardError))?.serve(&application, exchange)
            }
            Err(refusal) => {
                let response = Response::new(sink, form, variables.is_head(), log, interruptible);
                refuse(py, response, setting.debug, &refusal)
            }
        };
        Ok(served.status)
    }
}

/// The log message for a `close()` that ignores its interruption.
pub(crate) fn close_hangs(seconds: u64) -> LogMessage {
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
    trust_proxies(&mut variables, &setting.proxies);
    Ok(variables)
}
