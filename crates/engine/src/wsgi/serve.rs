//! Serves one request: calls the application and sends its response (PEP 3333 *Specification
//! Details*, *Buffering and Streaming*, *Error Handling*).

use std::sync::Arc;

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    exceptions::{PyException, PyTypeError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyMemoryView, PyString, PyTuple},
};
use wire::report::StopReason;

use crate::{
    advice,
    log::Log,
    process::forks::is_child,
    wsgi::{
        ErrorSink, Exchange, Interruptible, ServerSettings,
        child::end_if_child,
        environ::Environs,
        error::{Refusal, ServeError, client_wait_timed_out, closing_interrupted},
        error_stream::{LineBuffer, errors_stream, settle},
        file_wrapper::FileWrapper,
        input::Input,
        response::{BodyFlow, Response, type_name},
        standard_streams,
        stream::register,
        traceback::{ExceptionText, format_exception},
    },
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    /// A complete response was sent: the application's own, or an error page.
    Complete,
    /// The response was cut.
    Cut,
    /// The client had closed the connection.
    Abandoned,
}

/// A request that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) outcome: RequestOutcome,
    /// The status of the response; `None` if no header was sent.
    pub(crate) status: Option<u16>,
}

/// The server of one thread, in the PEP's sense: the state that all its requests share.
pub(crate) struct Server {
    setting: ServerSettings,
    /// The destination of `wsgi.errors`.
    sink: Arc<dyn ErrorSink>,
    errors: Py<PyAny>,
    lines: Arc<LineBuffer>,
    /// The use count of the stream at its last flush.
    flushed_at: usize,
    environs: Environs,
}

impl Server {
    /// A server with `setting`, whose `wsgi.errors` writes to `sink`.
    ///
    /// # Errors
    /// If memory is short.
    pub(crate) fn new(
        py: Python<'_>,
        setting: ServerSettings,
        sink: Arc<dyn ErrorSink>,
    ) -> PyResult<Self> {
        static INPUT: PyOnceLock<()> = PyOnceLock::new();
        register::<Input>(py, &INPUT)?;
        let (errors, lines) = errors_stream(py, sink.clone())?;
        let environs = Environs::new(py, &setting, &errors)?;
        Ok(Self { setting, sink, errors: errors.unbind(), lines, flushed_at: 0, environs })
    }

    /// Serves `exchange` by `application`. Always ends the response, and logs every failure.
    pub(crate) fn serve(
        &mut self,
        application: &Bound<'_, PyAny>,
        exchange: Exchange<'_>,
    ) -> Served {
        let py = application.py();
        let Exchange { variables, body, response: sink, errors, form, log, interruptible } =
            exchange;
        let response =
            Response::new(sink, form, variables.is_head(), log.clone(), interruptible.clone());
        let response = response.for_request(&variables, &self.setting);
        let made = (|| -> PyResult<_> {
            let input = Bound::new(py, Input::new(body, interruptible.clone()))?;
            let response = Bound::new(py, response)?;
            let environ =
                self.environs.make(py, &variables, log.request_id(), &input, &interruptible)?;
            let errors = errors.map(|sink| errors_stream(py, sink)).transpose()?;
            if let Some((errors, _)) = &errors {
                environ.set_item(intern!(py, "wsgi.errors"), errors)?;
            }
            Ok((input, errors, response, environ))
        })();
        let (input, errors, response, environ) = match made {
            Ok(parts) => parts,
            Err(error) => {
                // Only memory can be short here. The sink is dropped with the response, so the
                // gateway sends an error page.
                log.write(&LogMessage::new(
                    Code::Internal,
                    format!("the environ could not be made: {error}"),
                ));
                return Served { outcome: RequestOutcome::Cut, status: None };
            }
        };
        standard_streams::begin_request();
        let _serving = log.enter();
        let mut described = None;
        let (iterable, result) = run(application, &environ, &response, &log, &mut described);
        let response = response.get();
        let mut abandoned = false;
        let complete = match result {
            // A body that is too short is cut, since the client would wait for the rest.
            Ok(()) => !response.is_short(py),
            Err(fault) => {
                let was_running = response.end_interruption(py);
                let awaited = response.awaited();
                let cut = input.get().was_cut(py);
                let fault = response.cause_of(py, fault, cut);
                abandoned = matches!(fault, ServeError::ClientDisconnected);
                let message = fault.log_message(
                    py,
                    &self.setting_of(&interruptible),
                    response.headers_sent(py),
                    awaited,
                    described,
                );
                if let Some(message) = &message {
                    log.write(message);
                }
                let detail =
                    message.filter(|_| self.setting.debug).map(|message| message.for_client());
                let complete = response.replace(py, fault.status(py), detail.as_deref())
                    || response.is_complete(py);
                if was_running {
                    response.resume_interruption();
                }
                complete
            }
        };
        // The client does not have to wait for `close()`.
        response.sending_ended(py, complete);
        if let Some(iterable) = iterable {
            self.close(&iterable, &log, &interruptible);
        }
        response.end_interruption(py);
        let awaited = response.awaited();
        input.get().end(py);
        standard_streams::end_request(py);
        match errors {
            Some((_, lines)) => lines.end_line(),
            None if self.lines.uses() != self.flushed_at => self.flush_errors(py),
            None => {}
        }
        response.finish(py, complete);
        if let Some(awaited) = response.awaited().filter(|_| awaited.is_none()) {
            log.write(&client_wait_timed_out(
                awaited,
                StopReason::Timeout,
                &self.setting_of(&interruptible),
            ));
        }
        let outcome = match (complete, abandoned) {
            (_, true) => RequestOutcome::Abandoned,
            (true, false) => RequestOutcome::Complete,
            (false, false) => RequestOutcome::Cut,
        };
        Served { outcome, status: response.status(py) }
    }

    /// The settings with the timeout of this request, for log messages.
    fn setting_of(&self, request: &Interruptible) -> ServerSettings {
        let mut setting = self.setting.clone();
        if let Some(seconds) = request.own_timeout_seconds() {
            setting.timeout_seconds = seconds;
            setting.response_timeout_seconds = seconds.max(setting.response_timeout_seconds);
        }
        setting
    }

    /// Closes the iterable that the application returned (PEP 3333 *Specification Details*). A
    /// failure is logged and does not change the response.
    fn close(&self, iterable: &Bound<'_, PyAny>, log: &Log, interruptible: &Interruptible) {
        let py = iterable.py();
        let Err(error) = end_if_child(py, log, close(iterable)) else {
            return;
        };
        log
            .write(&closing_interrupted(py, &error, &self.setting_of(interruptible)).unwrap_or_else(
            || {
                LogMessage::new(Code::CloseRaised, "`close()` of the response raised an exception")
                .traceback(format_exception(py, &error))
                .hint(
                    "the response itself was not affected; the last lines of the traceback name \
                     the place",
                )
            },
        ));
    }

    /// Writes and ends an unfinished line of `wsgi.errors`. The stream fails only if the
    /// application has detached its buffer; then the next request gets a new stream.
    fn flush_errors(&mut self, py: Python<'_>) {
        self.lines.end_line();
        // Flushing counts as a use. If another thread uses the stream at this moment, the next
        // request notices.
        self.flushed_at = self.lines.uses().wrapping_add(1);
        if settle(self.errors.bind(py)).is_err()
            && let Ok(fresh) = Self::new(py, self.setting.clone(), self.sink.clone())
        {
            *self = fresh;
        }
    }
}

/// Answers a request that no application can serve: logs `refusal` and sends its error page.
pub(crate) fn refuse(py: Python<'_>, response: Response, debug: bool, refusal: &Refusal) -> Served {
    let Refusal { message, status } = refusal;
    response.end_interruption(py);
    if message.code() == Code::Terminated && response.is_abandoned(py) {
        // The web server has stopped the process because the client closed the connection.
        response.finish(py, false);
        return Served { outcome: RequestOutcome::Abandoned, status: None };
    }
    response.log().write(message);
    let sent = response.replace(py, *status, debug.then(|| message.for_client()).as_deref());
    response.finish(py, sent);
    let outcome = if sent { RequestOutcome::Complete } else { RequestOutcome::Cut };
    Served { outcome, status: response.status(py) }
}

/// Calls the application and sends the iterable that it returns, which the caller has to close.
fn run<'py>(
    application: &Bound<'py, PyAny>,
    environ: &Bound<'py, PyDict>,
    response: &Bound<'py, Response>,
    log: &Log,
    described: &mut Option<ExceptionText>,
) -> (Option<Bound<'py, PyAny>>, Result<(), ServeError>) {
    let py = application.py();
    // `__str__` of an exception may take time, which belongs to the request.
    let mut describe = |fault: ServeError| {
        if !is_child() {
            *described = fault.describe(py);
        }
        fault
    };
    let called = response
        .getattr(intern!(py, "start_response"))
        .and_then(|start_response| application.call1((environ, start_response)));
    let iterable = match end_if_child(py, log, called) {
        Ok(iterable) => iterable,
        Err(error) => return (None, Err(describe(error.into()))),
    };
    let sent = stream(&iterable, response.get(), log).map_err(describe);
    // A child must not continue, even if sending has failed in it.
    let sent = end_if_child(py, log, Ok(())).map_err(ServeError::from).and(sent);
    (Some(iterable), sent)
}

/// Sends each block of the iterable before it asks for the next (PEP 3333 *Buffering and
/// Streaming*).
fn stream(iterable: &Bound<'_, PyAny>, response: &Response, log: &Log) -> Result<(), ServeError> {
    let py = iterable.py();
    if iterable.is_none() {
        return Err(ServeError::bad_response(
            "the application returned `None`; the body must be an iterable of bytes",
            "return [] for an empty body, or look for a missing `return`",
        ));
    }
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && response.is_started(py)
    {
        response.body_is_file(py);
        if let Some(part) = wrapper.get().part(py)? {
            response.send_file(py, &part)?;
            return response.complete(py);
        }
    }
    let count = exact_count(iterable)?;
    let items = iterable.try_iter().map_err(|error| {
        let is_type_error = error.is_instance_of::<PyTypeError>(py);
        match advice::returned(iterable).filter(|_| is_type_error) {
            Some((sentence, hint)) => ServeError::bad_response(sentence, hint),
            None => error.into(),
        }
    })?;
    for item in items {
        let item = end_if_child(py, log, item)?;
        let Ok(block) = item.cast::<PyBytes>() else {
            return Err(invalid_block(iterable, &item));
        };
        if block.as_bytes().is_empty() {
            response.look(py)?;
            continue;
        }
        let whole = (count == Some(1)).then_some(block.as_bytes().len() as u64);
        if response.send(py, block, whole)? != BodyFlow::Open {
            break;
        }
    }
    response.complete(py)
}

/// The number of blocks, if `iterable` has a length, which the PEP trusts to be exact.
fn exact_count(iterable: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    match iterable.len() {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.is_instance_of::<PyException>(iterable.py()) => Ok(None),
        // The request is interrupted.
        Err(error) => Err(error),
    }
}

/// The error for an `item` of `iterable` that is not a block of a body. Explains the most common
/// mistake, a body without a list around it. An empty `str` has no items, and is an empty body.
fn invalid_block(iterable: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> ServeError {
    if iterable.is_instance_of::<PyString>() && item.is_instance_of::<PyString>() {
        return ServeError::bad_response(
            "the application returned a `str`; the body must be an iterable of bytes",
            "encode the text and put it into a list: return [text.encode(\"utf-8\")]",
        );
    }
    let numbers = [
        (
            iterable.is_instance_of::<PyBytes>(),
            "`bytes`, which iterate",
            "put them into a list: return [body]",
        ),
        (
            iterable.is_instance_of::<PyByteArray>(),
            "a `bytearray`, which iterates",
            "put bytes into a list: return [bytes(body)]",
        ),
        (
            iterable.is_instance_of::<PyMemoryView>(),
            "a `memoryview`, which iterates",
            "put bytes into a list: return [bytes(body)]",
        ),
    ];
    if let Some((_, what, hint)) =
        numbers.into_iter().find(|(is_that, ..)| *is_that && item.is_instance_of::<PyInt>())
    {
        return ServeError::bad_response(
            format!(
                "the application returned {what} as numbers; the body must be an iterable of bytes"
            ),
            hint,
        );
    }
    ServeError::bad_response(
        format!(
            "the application gave a body block of type `{}`; only bytes can be sent",
            type_name(item)
        ),
        "encode text before it is sent: text.encode(\"utf-8\")",
    )
}

/// Calls `close()` of the iterable, if it has the method. Must be called only once.
fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    // Looking for a missing attribute costs an exception, and these types never have it.
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    let name = intern!(iterable.py(), "close");
    if iterable.hasattr(name)? {
        iterable.call_method0(name)?;
    }
    Ok(())
}
