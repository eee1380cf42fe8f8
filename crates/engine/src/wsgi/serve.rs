//! One request from the call of the application to the last byte of its reply.
//!
//! PEP 3333 *Specification Details*, *Buffering and Streaming*, *Error Handling*.

use std::sync::Arc;

use link::{
    entry::{Code, Entry},
    page::Status,
};
use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyString, PyTuple},
};

use super::{
    ErrorSink, Exchange, Setting,
    environ::Environs,
    errors::{Lines, errors_stream, text_stream},
    fault::Fault,
    file_wrapper::FileWrapper,
    input::Input,
    response::{Flow, Response, type_name},
    traceback::format_exception,
};
use crate::log::Log;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A whole reply was sent: the application's own, or an error page.
    Replied,
    /// The reply was cut.
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
    pub(crate) fn new(py: Python<'_>, setting: Setting, sink: Arc<dyn ErrorSink>) -> PyResult<Self> {
        let (errors, lines) = errors_stream(py, sink.clone())?;
        let environs = Environs::new(py, &setting, &errors)?;
        Ok(Self { setting, sink, errors: errors.unbind(), lines, flushed_at: 0, environs })
    }

    /// Serves `exchange` with the application `application`. Whatever happens, the reply is ended and the log knows why.
    pub(crate) fn serve(&mut self, application: &Bound<'_, PyAny>, exchange: Exchange<'_>) -> Outcome {
        let py = application.py();
        let Exchange { variables, body, data, reply, errors, form, log, interruptible } = exchange;
        let response = Response::new(reply, form, variables.is_head(), log.clone(), interruptible);
        let made = (|| -> PyResult<_> {
            let input = Bound::new(py, Input::new(body))?;
            let response = Bound::new(py, response)?;
            let environ = self.environs.make(py, &variables, log.request_id(), &input)?;
            let data = data.map(|data| Bound::new(py, Input::new(data))).transpose()?;
            if let Some(data) = &data {
                environ.set_item(intern!(py, "wsgate.data"), data)?;
            }
            let errors = errors.map(|sink| text_stream(py, sink)).transpose()?;
            if let Some(errors) = &errors {
                environ.set_item(intern!(py, "wsgi.errors"), errors)?;
            }
            Ok((input, data, errors, response, environ))
        })();
        let (input, data, errors, response, environ) = match made {
            Ok(parts) => parts,
            Err(error) => {
                // Only memory can be short here; the sink went with the response, so the gateway replies.
                log.entry(&Entry::error(Code::Internal, format!("the environ could not be made: {error}")));
                return Outcome::Cut;
            }
        };
        let result = run(application, &environ, &response, &log);
        let mut cut = input.get().close(py);
        if let Some(data) = data {
            cut |= data.get().close(py);
        }
        let response = response.get();
        response.end_interruption();
        let mut abandoned = false;
        let complete = match result {
            Ok(()) => true,
            Err(fault) => {
                let fault = response.cause_of(py, fault, cut);
                abandoned = matches!(fault, Fault::ClientGone);
                let entry = fault.entry(py, &self.setting, response.head_left(py));
                if let Some(entry) = &entry {
                    log.entry(entry);
                }
                let detail = entry.filter(|_| self.setting.debug).map(|entry| entry.for_client());
                response.replace(py, fault.status(py), detail.as_deref())
            }
        };
        match errors {
            // What has no line end yet. The stream never fails, unless the application has taken it apart.
            Some(errors) => drop(errors.call_method0(intern!(py, "flush"))),
            None if self.lines.uses() != self.flushed_at => self.flush_errors(py),
            None => {}
        }
        response.finish(py, complete);
        match (complete, abandoned) {
            (_, true) => Outcome::Abandoned,
            (true, false) => Outcome::Replied,
            (false, false) => Outcome::Cut,
        }
    }

    /// Writes what has no line end yet. The stream never fails, unless the application has taken it apart; then the next request
    /// gets a new one.
    fn flush_errors(&mut self, py: Python<'_>) {
        // This is one more use. A thread of the application's that uses it meanwhile is seen at the next request.
        self.flushed_at = self.lines.uses().wrapping_add(1);
        if self.errors.call_method0(py, intern!(py, "flush")).is_err()
            && let Ok(fresh) = Self::new(py, self.setting.clone(), self.sink.clone())
        {
            *self = fresh;
        }
    }
}

/// Answers a request that no application can serve: logs `entry` and sends the stand-in reply.
pub(crate) fn refuse(py: Python<'_>, response: Response, debug: bool, status: Status, entry: &Entry) -> Outcome {
    response.end_interruption();
    response.log().entry(entry);
    let sent = response.replace(py, status, debug.then(|| entry.for_client()).as_deref());
    response.finish(py, sent);
    if sent { Outcome::Replied } else { Outcome::Cut }
}

fn run(
    application: &Bound<'_, PyAny>,
    environ: &Bound<'_, PyDict>,
    response: &Bound<'_, Response>,
    log: &Log,
) -> Result<(), Fault> {
    let start_response = response.getattr(intern!(application.py(), "start_response"))?;
    let iterable = application.call1((environ, start_response))?;
    let sent = stream(&iterable, response.get());
    response.get().end_interruption();
    let closed = close(&iterable);
    match (sent, closed) {
        (sent, Err(error)) => {
            log.entry(
                &Entry::error(Code::CloseRaised, "`close()` of the response raised an exception")
                    .detail(format_exception(application.py(), &error))
                    .hint("the reply itself was not affected; the last lines of the traceback name the place"),
            );
            sent
        }
        (sent, Ok(())) => sent,
    }
}

/// Sends what the application returned, each block before the next is asked for.
fn stream(iterable: &Bound<'_, PyAny>, response: &Response) -> Result<(), Fault> {
    let py = iterable.py();
    refuse_what_is_no_body(iterable)?;
    if let Ok(wrapper) = iterable.cast_exact::<FileWrapper>()
        && response.is_started(py)
        && let Some(part) = wrapper.get().part(py)?
    {
        response.send_file(py, &part)?;
        return response.complete(py);
    }
    // A length is trusted to be exact where there is one; most iterables have none.
    let count = iterable.len().ok();
    for item in iterable.try_iter()? {
        let item = item?;
        let Ok(block) = item.cast::<PyBytes>() else {
            return Err(Fault::bad_response(
                format!("the application gave a body block of type `{}`; only bytes can be sent", type_name(&item)),
                "encode text before it is sent: text.encode(\"utf-8\")",
            ));
        };
        if block.as_bytes().is_empty() {
            continue;
        }
        let whole = (count == Some(1)).then_some(block.as_bytes().len() as u64);
        if response.send(py, block, whole)? != Flow::Open {
            break;
        }
    }
    response.complete(py)
}

/// The commonest errors of beginners, which iteration would report in words that do not help them.
fn refuse_what_is_no_body(iterable: &Bound<'_, PyAny>) -> Result<(), Fault> {
    if iterable.is_instance_of::<PyString>() {
        return Err(Fault::bad_response(
            "the application returned a `str`; the body must be an iterable of bytes",
            "encode the text and put it into a list: return [text.encode(\"utf-8\")]",
        ));
    }
    if iterable.is_instance_of::<PyBytes>() {
        return Err(Fault::bad_response(
            "the application returned `bytes`, which iterate as numbers; the body must be an iterable of bytes",
            "put them into a list: return [body]",
        ));
    }
    if iterable.is_none() {
        return Err(Fault::bad_response(
            "the application returned `None`; the body must be an iterable of bytes",
            "return [] for an empty body, or look for a missing `return`",
        ));
    }
    Ok(())
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
