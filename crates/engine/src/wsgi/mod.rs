//! PEP 3333: one request through an application, whatever brought it here.
//!
//! A transport hands over an [`Exchange`]; a [`Server`] makes the environ, calls the application,
//! and sends what it answers. Nothing here knows which transport that was. The rules and the
//! section of the PEP each comes from:
//!
//! - environ: *environ Variables* → `remembered`, `variables`, `environ`
//! - `wsgi.input`, `wsgi.errors`: *Input and Error Streams* → `input`, `errors`, and
//!   `standard_streams` beside them
//! - `start_response`, `write`: *The start_response() Callable*, *The write() Callable* → `head`,
//!   `response`
//! - the iterable and its `close()`: *Specification Details*, *Buffering and Streaming* → `serve`
//! - `wsgi.file_wrapper`: *Optional Platform-Specific File Handling* → `file_wrapper`

mod environ;
mod error;
mod errors;
mod file_wrapper;
mod headers;
mod input;
mod interruptible;
mod remembered;
mod response;
mod serve;
mod standard_streams;
mod stream;
mod text;
mod traceback;
mod variables;

use std::{io, os::fd::BorrowedFd, sync::Arc};

use pyo3::Python;
use wire::request::ResponseFormat;

pub(crate) use crate::wsgi::{
    error::{Interrupted, interruption},
    interruptible::{Awaited, Clock, Interruptible},
    remembered::Remembered,
    response::{Response, type_name},
    serve::{Outcome, Server, refuse},
    standard_streams::{end_lines, install as install_streams, note as note_streams},
    traceback::{Described, text_of},
    variables::{BadVariable, BodyLength, Known, Twice, Variables},
};

use crate::log::Log;

/// One request as a transport hands it over.
pub(crate) struct Exchange<'a> {
    /// The variables of the request, checked.
    pub(crate) variables: Variables<'a>,
    /// Where the request body comes from.
    pub(crate) body: Box<dyn BodySource>,
    /// Where the response goes.
    pub(crate) response: Box<dyn ResponseSink>,
    /// Where `wsgi.errors` of this request writes to, if not to where that of others does.
    pub(crate) errors: Option<Arc<dyn ErrorSink>>,
    /// How the head of the response is written.
    pub(crate) form: ResponseFormat,
    /// Where entries about this request go.
    pub(crate) log: Log,
    /// Whether the application may be interrupted now.
    pub(crate) interruptible: Interruptible,
}

/// What is true of every request of a process.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// May another thread of this process call the application meanwhile?
    pub(crate) multithread: bool,
    /// May another process call an equivalent application meanwhile?
    pub(crate) multiprocess: bool,
    /// Will the application be called this once only?
    pub(crate) run_once: bool,
    /// May the client see tracebacks?
    pub(crate) debug: bool,
    /// Seconds that a request may take, for the message when they are over.
    pub(crate) timeout_seconds: u64,
    /// Seconds that one wait for the client may take, for the message when they are over.
    pub(crate) socket_timeout_seconds: u64,
    /// The response goes to the standard output of a gateway.
    pub(crate) is_cgi: bool,
    /// Where the application is mounted, if the web server does not say so.
    pub(crate) script_name: Option<Arc<str>>,
}

/// A request body. It ends by itself where the request says that it ends.
pub(crate) trait BodySource: Send {
    /// Reads some bytes, at least one unless the body is over.
    ///
    /// # Errors
    /// `UnexpectedEof` if the client sent less than it announced, `Interrupted` if a signal came
    /// first, `TimedOut` at the deadline of the request.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Bytes of the whole body, if that is known before it has come.
    fn length(&self) -> Option<u64>;

    /// Does the body lie in a file, so that it can be read again?
    fn is_in_file(&self) -> bool {
        false
    }

    /// Reads at `position` from now on, if the body lies in a file. Tells whether it does.
    fn seek(&mut self, _position: u64) -> bool {
        false
    }
}

/// Where a response goes. Bytes leave in the order in which they are given. Whatever may have to
/// wait lets other threads of the application run meanwhile.
pub(crate) trait ResponseSink: Send {
    /// Called once, before the first byte: from here on no other response can be sent.
    fn head_leaves(&mut self);

    /// Sends some bytes of `head` and then `block` in one go. With `last`, the response is over
    /// when all of them are sent.
    ///
    /// # Errors
    /// `Interrupted` if a signal came first, `TimedOut` at the deadline of the request; anything
    /// else means that nobody reads the response any more.
    fn write(&mut self, py: Python<'_>, head: &[u8], block: &[u8], last: bool)
    -> io::Result<usize>;

    /// Sends up to `count` bytes of the regular file `file` from `offset` on; 0 if the file ends
    /// there.
    ///
    /// # Errors
    /// As [`ResponseSink::write`].
    fn send_file(
        &mut self,
        py: Python<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize>;

    /// Looks now and then whether the client still waits. Never waits itself.
    ///
    /// # Errors
    /// If the client has gone, or has aborted its request.
    fn look(&mut self, py: Python<'_>) -> io::Result<()>;

    /// Called once when nothing more will be sent, before `close()` of the response body: all of
    /// the response has left (`complete`), or it has to be cut. What the application does
    /// afterwards should not keep the end of the response from the client.
    fn is_over(&mut self, py: Python<'_>, complete: bool);

    /// Has the other end gone? To be asked when this process was asked to stop: whoever does that
    /// closes the other end just before or just after, so this waits a moment.
    fn is_abandoned(&mut self, py: Python<'_>) -> bool;

    /// Ends the response: all of it was sent (`complete`), or it had to be cut.
    ///
    /// # Errors
    /// `TimedOut` if the end could not be sent by the deadline of the request.
    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()>;

    /// Did more of the request body come than the request says, as far as it was looked at? To be
    /// asked when the response has ended.
    fn had_surplus(&self) -> bool {
        false
    }
}

/// Where `wsgi.errors` writes to. What cannot be written is lost: an application must not fail for
/// a full log disk.
pub(crate) trait ErrorSink: Send + Sync {
    /// Writes all of `bytes`.
    fn write(&self, bytes: &[u8]);

    /// Writes what it has held back.
    fn flush(&self) {}

    /// The descriptor behind it, if there is one.
    fn descriptor(&self) -> Option<i32>;
}
