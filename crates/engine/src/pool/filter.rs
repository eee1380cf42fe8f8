//! What a request in the role of a filter needs before it can be served (FastCGI 1.0, 6.4).

use std::io;

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::Params;
use pyo3::Python;

use crate::{
    log::Log,
    transport::fastcgi::FastCgiConnection,
    wsgi::{Awaited, Setting, decimal, interruption, stalled},
};

/// What a filter's file has to be as long as, if the web server says so.
///
/// # Errors
/// If it says no number: the entry for that.
pub(crate) fn data_length(params: &Params) -> Result<Option<u64>, LogMessage> {
    let Some(digits) = params.get(b"FCGI_DATA_LENGTH").filter(|digits| !digits.is_empty()) else {
        return Ok(None);
    };
    match decimal(digits) {
        Some(length) => Ok(Some(length)),
        None => {
            let text = String::from_utf8_lossy(digits);
            let sentence = format!(
                "the variable FCGI_DATA_LENGTH is `{text}`, which is not a number of bytes"
            );
            Err(LogMessage::error(Code::BadRequest, sentence)
                .hint("the request was answered with 400"))
        }
    }
}

/// Waits for the body of a filter's request, before whose end nothing may be said. Tells whether it
/// is here.
pub(crate) fn await_body(py: Python<'_>, peer: &FastCgiConnection, log: &Log, setting: &Setting) -> bool {
    loop {
        match py.detach(|| peer.await_body()) {
            Ok(is_here) => return is_here,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                log.entry(&stalled(Awaited::Body, setting));
                return false;
            }
            // A signal came. Handlers of the application's run here, and so does the one that ends
            // what takes too long.
            Err(_) => {
                if let Err(error) = py.check_signals() {
                    match interruption(py, &error, setting) {
                        Some((entry, _)) => log.entry(&entry),
                        None => error.print(py),
                    }
                    return false;
                }
            }
        }
    }
}
