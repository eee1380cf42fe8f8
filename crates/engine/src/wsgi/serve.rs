//! One request from the call of the application to the last byte of its reply.
//!
//! PEP 3333 *Specification Details*, *Buffering and Streaming*, *Error Handling*.

use link::{
    entry::{Code, Entry},
    page::Status,
};
use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyString},
};

use super::{
    Exchange, environ,
    errors::text_stream,
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
    /// The reply was cut, or nobody was there to read it.
    Cut,
}

/// Serves `exchange` with the application `application`. Whatever happens, the reply is ended and the log knows why.
pub(crate) fn serve(application: &Bound<'_, PyAny>, exchange: Exchange) -> Outcome {
    let py = application.py();
    let Exchange { variables, body, data, reply, errors, form, setting, log, interruptible } = exchange;
    let response = Response::new(reply, form, variables.is_head(), log.clone(), interruptible);
    let served = (|| -> PyResult<_> {
        let input = Bound::new(py, Input::new(body))?;
        let data = data.map(|data| Bound::new(py, Input::new(data))).transpose()?;
        let response = Bound::new(py, response)?;
        let errors = text_stream(py, errors)?;
        let environ =
            environ::dictionary(py, &variables, &setting, errors.clone(), log.request_id(), input.clone().into_any())?;
        if let Some(data) = &data {
            environ.set_item(intern!(py, "wsgate.data"), data)?;
        }
        Ok((input, data, response, errors, environ))
    })();
    let (input, data, response, errors, environ) = match served {
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
    let complete = match result {
        Ok(()) => true,
        Err(fault) => {
            let fault = response.cause_of(py, fault, cut);
            let entry = fault.entry(py, &setting, response.head_left(py));
            if let Some(entry) = &entry {
                log.entry(entry);
            }
            let detail = entry.filter(|_| setting.debug).map(|entry| entry.for_client());
            response.replace(py, fault.status(py), detail.as_deref())
        }
    };
    // What has no line end yet. The stream never fails, unless the application has closed it.
    let _ = errors.call_method0(intern!(py, "flush"));
    response.finish(py, complete);
    if complete { Outcome::Replied } else { Outcome::Cut }
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
    environ: &Bound<'_, PyAny>,
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
    if !response.is_started(py) {
        return Err(Fault::bad_response(
            "the application ended without a call of `start_response`",
            "call start_response(\"200 OK\", [(\"Content-Type\", \"text/html; charset=utf-8\")]) before it returns",
        ));
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
    let name = intern!(iterable.py(), "close");
    if iterable.hasattr(name)? {
        iterable.call_method0(name)?;
    }
    Ok(())
}
