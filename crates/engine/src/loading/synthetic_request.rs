//! A synthetic request: `wsgate check` tries one, and `--warm-up` sends one before forking. The
//! response is discarded.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use wire::request::ResponseFormat;

use crate::{
    log::Log,
    transport::error_sinks::StandardError,
    wsgi::{
        BodySource, DuplicatePolicy, Exchange, Interruptible, RequestOutcome, ResponseSink, Server,
        ServerSettings, Variables,
    },
};

/// The result of a synthetic request.
pub(crate) struct SyntheticResponse {
    /// Path and query of the request.
    pub(crate) target: String,
    /// The status line of the response, such as `200 OK`; empty without a response.
    pub(crate) status: String,
    /// The log messages of the request.
    pub(crate) messages: String,
    /// A complete response was sent: the application's own, or an error page.
    pub(crate) is_complete: bool,
    /// The duration of the request.
    pub(crate) time: Duration,
}

/// Calls `application` for `GET target` on `host`, below the mount that `setting` names. The
/// request has no body.
///
/// # Errors
/// If Python raises an error for which the application is not responsible.
pub(crate) fn ask(
    application: &Bound<'_, PyAny>,
    setting: ServerSettings,
    request_id: &str,
    (scheme, host, target): (&str, &str, &str),
    interruptible: Interruptible,
) -> PyResult<SyntheticResponse> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let script_name = setting.script_name.clone().unwrap_or_default();
    let described = wire::synthetic_request::SyntheticRequest {
        method: "GET",
        is_https: scheme == "https",
        host,
        script_name: &script_name,
        path,
        query,
    };
    let request_uri = described.request_uri();
    let described = described.variables();
    let received: Vec<_> =
        described.iter().map(|(name, value)| (name.as_bytes(), &**value)).collect();
    let variables = Variables::new(received, DuplicatePolicy::First)
        .map_err(|bad| PyRuntimeError::new_err(bad.to_string()))?;
    let (log, collected) = Log::collecting(request_id, &format!("GET {request_uri}"));
    let response = HeadersSink::default();
    let begin = Instant::now();
    let exchange = Exchange {
        variables,
        body: Box::new(EmptyBody),
        errors: None,
        response: Box::new(response.clone()),
        form: ResponseFormat::Cgi,
        log,
        interruptible,
    };
    let served = Server::new(application.py(), setting, Arc::new(StandardError))?
        .serve(application, exchange);
    let time = begin.elapsed();
    let messages = collected.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let bytes = response.bytes.lock().unwrap_or_else(PoisonError::into_inner);
    let headers = String::from_utf8_lossy(&bytes);
    let status =
        headers.strip_prefix("Status: ").and_then(|rest| rest.lines().next()).unwrap_or_default();
    Ok(SyntheticResponse {
        target: request_uri,
        status: status.to_owned(),
        messages,
        is_complete: served.outcome == RequestOutcome::Complete,
        time,
    })
}

/// An empty request body.
struct EmptyBody;

impl BodySource for EmptyBody {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn length(&self) -> Option<u64> {
        Some(0)
    }
}

/// A response sink that keeps only the response headers.
#[derive(Clone, Default)]
struct HeadersSink {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl ResponseSink for HeadersSink {
    fn headers_leave(&mut self) {}

    fn write(
        &mut self,
        _: Python<'_>,
        headers: &[u8],
        block: &[u8],
        _last: bool,
    ) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(headers);
        Ok(headers.len() + block.len())
    }

    fn send_file(
        &mut self,
        _: Python<'_>,
        _: BorrowedFd<'_>,
        _: u64,
        count: usize,
    ) -> io::Result<usize> {
        Ok(count)
    }

    fn look(&mut self, _: Python<'_>) -> io::Result<()> {
        Ok(())
    }

    fn sending_ended(&mut self, _: Python<'_>, _: bool) {}

    fn is_abandoned(&mut self, _: Python<'_>) -> bool {
        false
    }

    fn finish(&mut self, _: Python<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}
