//! One request from the call of the application to the last byte of its response.
//!
//! PEP 3333 *Specification Details*, *Buffering and Streaming*, *Error Handling*.

use std::sync::Arc;

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::{
    exceptions::PyException,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyInt, PyList, PyMemoryView, PyString, PyTuple},
};

use crate::{
    log::Log,
    process::forks,
    wsgi::{
        ErrorSink, Exchange, Setting,
        environ::Environs,
        error::{Fault, closing_interrupted, stalled},
        errors::{Lines, errors_stream, settle},
        file_wrapper::FileWrapper,
        input::Input,
        response::{Flow, Response, type_name},
        standard_streams,
        stream::register,
        traceback::{Described, format_exception},
    },
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole response was sent: the application's own, or an error page.
    Replied,
    /// The response was cut.
    Cut,
    /// Nobody was there to read it.
    Abandoned,
}

/// The server, in the PEP's sense, that one thread is: what is the same for all its requests.
pub(crate) struct Server {
    setting: Setting,
    /// What `wsgi.errors` writes to.
    sink: Arc<dyn ErrorSink>,
    errors: Py<PyAny>,
    lines: Arc<Lines>,
    /// How often it had been used when it was flushed last.
    flushed_at: usize,
    environs: Environs,
}

impl Server {
    /// A server of which `setting` is true, and whose `wsgi.errors` writes to `sink`.
    ///
    /// # Errors
    /// If memory is short.
    pub(crate) fn new(
        py: Python<'_>,
        setting: Setting,
        sink: Arc<dyn ErrorSink>,
    ) -> PyResult<Self> {
        static INPUT: PyOnceLock<()> = PyOnceLock::new();
        register::<Input>(py, &INPUT)?;
        let (errors, lines) = errors_stream(py, sink.clone())?;
        let environs = Environs::new(py, &setting, &errors)?;
        Ok(Self { setting, sink, errors: errors.unbind(), lines, flushed_at: 0, environs })
    }

    /// Serves `exchange` with the application `application`. Whatever happens, the response is
    /// ended and the log knows why.
    pub(crate) fn serve(
        &mut self,
        application: &Bound<'_, PyAny>,
        exchange: Exchange<'_>,
    ) -> Outcome {
        let py = application.py();
        let Exchange { variables, body, response: sink, errors, form, log, interruptible } =
            exchange;
        let response =
            Response::new(sink, form, variables.is_head(), log.clone(), interruptible.clone());
        let response = response.behind(&variables);
        let made = (|| -> PyResult<_> {
            let input = Bound::new(py, Input::new(body, interruptible))?;
            let response = Bound::new(py, response)?;
            let environ = self.environs.make(py, &variables, log.request_id(), &input)?;
            let errors = errors.map(|sink| errors_stream(py, sink)).transpose()?;
            if let Some((errors, _)) = &errors {
                environ.set_item(intern!(py, "wsgi.errors"), errors)?;
            }
            Ok((input, errors, response, environ))
        })();
        let (input, errors, response, environ) = match made {
            Ok(parts) => parts,
            Err(error) => {
                // Only memory can be short here; the sink went with the response, so the gateway
                // replies.
                log.entry(&LogMessage::error(
                    Code::Internal,
                    format!("the environ could not be made: {error}"),
                ));
                return Outcome::Cut;
            }
        };
        standard_streams::begin_request();
        let mut described = None;
        let (iterable, result) = run(application, &environ, &response, &log, &mut described);
        let response = response.get();
        let mut abandoned = false;
        let complete = match result {
            // One that is too short is cut: the client would wait for the rest.
            Ok(()) => !response.is_short(py),
            Err(fault) => {
                let was_running = response.end_interruption(py);
                let awaited = response.awaited();
                let cut = input.get().was_cut(py);
                let fault = response.cause_of(py, fault, cut);
                abandoned = matches!(fault, Fault::ClientGone);
                let entry =
                    fault.entry(py, &self.setting, response.head_left(py), awaited, described);
                if let Some(entry) = &entry {
                    log.entry(entry);
                }
                let detail = entry.filter(|_| self.setting.debug).map(|entry| entry.for_client());
                let complete = response.replace(py, fault.status(py), detail.as_deref())
                    || response.is_whole(py);
                if was_running {
                    response.resume_interruption();
                }
                complete
            }
        };
        // Nobody but the application waits for `close()`.
        response.is_over(py, complete);
        if let Some(iterable) = iterable {
            self.close(&iterable, &log);
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
            log.entry(&stalled(awaited, &self.setting));
        }
        match (complete, abandoned) {
            (_, true) => Outcome::Abandoned,
            (true, false) => Outcome::Replied,
            (false, false) => Outcome::Cut,
        }
    }

    /// Ends what the application returned (PEP 3333 *Specification Details*). What comes of that
    /// changes nothing about the response.
    fn close(&self, iterable: &Bound<'_, PyAny>, log: &Log) {
        let py = iterable.py();
        let Err(error) = forks::end_if_child(py, log, close(iterable)) else {
            return;
        };
        log.entry(&closing_interrupted(py, &error, &self.setting).unwrap_or_else(|| {
            LogMessage::error(Code::CloseRaised, "`close()` of the response raised an exception")
                .detail(format_exception(py, &error))
                .hint(
                    "the response itself was not affected; the last lines of the traceback name \
                        the \
                     place",
                )
        }));
    }

    /// Writes and ends the line that has no end yet. The stream never fails, unless the application
    /// has taken it apart; then the next request gets a new one.
    fn flush_errors(&mut self, py: Python<'_>) {
        self.lines.end_line();
        // This is one more use. A thread of the application's that uses it meanwhile is seen at the
        // next request.
        self.flushed_at = self.lines.uses().wrapping_add(1);
        if settle(self.errors.bind(py)).is_err()
            && let Ok(fresh) = Self::new(py, self.setting.clone(), self.sink.clone())
        {
            *self = fresh;
        }
    }
}

/// Answers a request that no application can serve: logs `entry` and sends the stand-in response.
pub(crate) fn refuse(
    py: Python<'_>,
    response: Response,
    debug: bool,
    status: Status,
    entry: &LogMessage,
) -> Outcome {
    response.end_interruption(py);
    if entry.code() == Code::Terminated && response.is_abandoned(py) {
        // The web server has ended the process since its client has gone.
        response.finish(py, false);
        return Outcome::Abandoned;
    }
    response.log().entry(entry);
    let sent = response.replace(py, status, debug.then(|| entry.for_client()).as_deref());
    response.finish(py, sent);
    if sent { Outcome::Replied } else { Outcome::Cut }
}

/// Calls the application and sends what it returns, which is the caller's to close.
fn run<'py>(
    application: &Bound<'py, PyAny>,
    environ: &Bound<'py, PyDict>,
    response: &Bound<'py, Response>,
    log: &Log,
    described: &mut Option<Described>,
) -> (Option<Bound<'py, PyAny>>, Result<(), Fault>) {
    let py = application.py();
    // Whatever an exception says of itself may take time, which the request has until now.
    let mut describe = |fault: Fault| {
        if !forks::is_child() {
            *described = fault.describe(py);
        }
        fault
    };
    let called = response
        .getattr(intern!(py, "start_response"))
        .and_then(|start_response| application.call1((environ, start_response)));
    let iterable = match forks::end_if_child(py, log, called) {
        Ok(iterable) => iterable,
        Err(error) => return (None, Err(describe(error.into()))),
    };
    let sent = stream(&iterable, response.get(), log).map_err(describe);
    // Nothing can be sent there.
    let sent = forks::end_if_child(py, log, Ok(())).map_err(Fault::from).and(sent);
    (Some(iterable), sent)
}

/// Sends what the application returned, each block before the next is asked for.
fn stream(iterable: &Bound<'_, PyAny>, response: &Response, log: &Log) -> Result<(), Fault> {
    let py = iterable.py();
    if iterable.is_none() {
        return Err(Fault::bad_response(
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
    for item in iterable.try_iter()? {
        let item = forks::end_if_child(py, log, item)?;
        let Ok(block) = item.cast::<PyBytes>() else {
            return Err(no_block(iterable, &item));
        };
        if block.as_bytes().is_empty() {
            response.look(py)?;
            continue;
        }
        let whole = (count == Some(1)).then_some(block.as_bytes().len() as u64);
        if response.send(py, block, whole)? != Flow::Open {
            break;
        }
    }
    response.complete(py)
}

/// How many blocks `iterable` gives, if it says so: a length is trusted to be exact, and most
/// iterables have none.
fn exact_count(iterable: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    match iterable.len() {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.is_instance_of::<PyException>(iterable.py()) => Ok(None),
        // That is no answer of the iterable's: the request is interrupted.
        Err(error) => Err(error),
    }
}

/// Why `item`, which `iterable` gave, is no block of a body. The commonest errors of beginners,
/// which have forgotten the list around their body, are explained as what they are. An empty `str`
/// gives no item at all, and is an empty body.
fn no_block(iterable: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> Fault {
    if iterable.is_instance_of::<PyString>() && item.is_instance_of::<PyString>() {
        return Fault::bad_response(
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
        return Fault::bad_response(
            format!(
                "the application returned {what} as numbers; the body must be an iterable of bytes"
            ),
            hint,
        );
    }
    Fault::bad_response(
        format!(
            "the application gave a body block of type `{}`; only bytes can be sent",
            type_name(item)
        ),
        "encode text before it is sent: text.encode(\"utf-8\")",
    )
}

/// Calls `close()` where there is one; whoever gets here does so once.
fn close(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    // To find out that an attribute is missing costs an exception, and these never have it.
    if iterable.is_exact_instance_of::<PyList>() || iterable.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    let name = intern!(iterable.py(), "close");
    if iterable.hasattr(name)? {
        iterable.call_method0(name)?;
    }
    Ok(())
}
