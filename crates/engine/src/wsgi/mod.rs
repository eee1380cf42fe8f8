//! PEP 3333: serves one request with an application, for any transport.
//!
//! A transport creates an [`Exchange`]. A [`Server`] creates the environ, calls the application and
//! sends its response. This module does not know the transport. The rules, by sections of the PEP:
//!
//! - environ: *environ Variables* → `names`, `variables`, `environ`
//! - `wsgi.input`, `wsgi.errors`: *Input and Error Streams* → `input`, `error_stream`, and
//!   `standard_streams`
//! - `start_response`, `write`: *The start_response() Callable*, *The write() Callable* →
//!   `headers`, `response`
//! - the iterable and its `close()`: *Specification Details*, *Buffering and Streaming* → `serve`
//! - `wsgi.file_wrapper`: *Optional Platform-Specific File Handling* → `file_wrapper`, `offload`

mod child;
mod environ;
mod error;
mod error_stream;
mod exceptions;
mod extend_timeout;
mod file_wrapper;
mod forwarded;
mod headers;
mod input;
mod interruptible;
mod names;
mod offload;
mod response;
mod serve;
mod standard_streams;
mod stream;
mod traceback;
mod variables;

use std::{io, os::fd::BorrowedFd, sync::Arc};

use pyo3::Python;
use wire::{offload::Offload, request::ResponseFormat, trusted_proxies::TrustedProxies};

pub(crate) use crate::wsgi::{
    child::end_if_child,
    error::{Refusal, interruption},
    exceptions::Interrupted,
    forwarded::trust_proxies,
    interruptible::{ClientWait, Clock, Enforcer, Interruptible, MoreTime},
    names::KnownVariable,
    response::{Response, type_name},
    serve::{RequestOutcome, Server, refuse},
    standard_streams::{end_lines, install as install_streams, note as remember_streams},
    traceback::{ExceptionText, text_of},
    variables::{BadVariable, BodyLength, DuplicatePolicy, Variables},
};

use crate::log::Log;

/// One request as its transport received it.
pub(crate) struct Exchange<'a> {
    /// The checked variables of the request.
    pub(crate) variables: Variables<'a>,
    /// The source of the request body.
    pub(crate) body: Box<dyn BodySource>,
    /// The destination of the response.
    pub(crate) response: Box<dyn ResponseSink>,
    /// The destination of `wsgi.errors`, if it differs from that of other requests.
    pub(crate) errors: Option<Arc<dyn ErrorSink>>,
    /// The form of the response headers.
    pub(crate) form: ResponseFormat,
    /// The log of the request.
    pub(crate) log: Log,
    /// Says whether the application may be interrupted.
    pub(crate) interruptible: Interruptible,
}

/// Settings that all requests of a process share.
#[derive(Clone, Debug)]
pub(crate) struct ServerSettings {
    /// `wsgi.multithread`: another thread of this process may call the application at the same
    /// time.
    pub(crate) multithread: bool,
    /// `wsgi.multiprocess`: another process may call an equivalent application at the same time.
    pub(crate) multiprocess: bool,
    /// `wsgi.run_once`: the application is called once in this process.
    pub(crate) run_once: bool,
    /// Clients may see tracebacks.
    pub(crate) debug: bool,
    /// The time limit of a request in seconds, for log messages; 0 for none.
    pub(crate) timeout_seconds: u64,
    /// The time limit until the response begins in seconds, for log messages; 0 for none.
    pub(crate) response_timeout_seconds: u64,
    /// The time limit of one wait for the client in seconds, for log messages; 0 for none.
    pub(crate) socket_timeout_seconds: u64,
    /// The response goes to the standard output of a gateway (CGI).
    pub(crate) is_cgi: bool,
    /// The proxies that say where a request came from.
    pub(crate) proxies: Arc<TrustedProxies>,
    /// The files that the web server sends in place of the application.
    pub(crate) offload: Option<Arc<Offload>>,
    /// The mount of the application (`--script-name`), if the web server does not send it.
    pub(crate) script_name: Option<Arc<str>>,
}

/// A request body. Reading stops at the end that the request announces.
pub(crate) trait BodySource: Send {
    /// Reads at least one byte, unless the body has ended.
    ///
    /// # Errors
    /// `UnexpectedEof` if the client sent less than announced, `Interrupted` if a signal arrived
    /// first, `TimedOut` at the deadline of the request.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// The length of the whole body in bytes, if it is known in advance.
    fn length(&self) -> Option<u64>;

    /// Is the body in a file, so that it can be read again?
    fn is_in_file(&self) -> bool {
        false
    }

    /// Continues reading at `position`, if the body is in a file. Returns whether the body is in a
    /// file.
    fn seek(&mut self, _position: u64) -> bool {
        false
    }
}

/// The destination of a response. Bytes are sent in the order of the calls. Methods that may block
/// let other threads of the application run meanwhile.
pub(crate) trait ResponseSink: Send {
    /// Called once, before the first byte: from here on no error page can replace the response.
    fn headers_leave(&mut self);

    /// Sends some bytes of `headers` and then `block` in one call. With `last`,
    /// the response ends once all of them are sent.
    ///
    /// # Errors
    /// `Interrupted` if a signal arrived first, `TimedOut` at the deadline of the request. Any
    /// other error means that the client no longer reads the response.
    fn write(
        &mut self,
        py: Python<'_>,
        headers: &[u8],
        block: &[u8],
        last: bool,
    ) -> io::Result<usize>;

    /// Sends up to `count` bytes of the regular file `file` from `offset` on. Returns 0 at the end
    /// of the file.
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

    /// Checks occasionally that the client is still connected. Never blocks.
    ///
    /// # Errors
    /// If the client has closed the connection or aborted the request.
    fn look(&mut self, py: Python<'_>) -> io::Result<()>;

    /// Called once after the last byte, before `close()` of the response body. The response is
    /// `complete` or has to be cut. The client should see the end of the response even if `close()`
    /// takes long.
    fn sending_ended(&mut self, py: Python<'_>, complete: bool);

    /// Has the other end closed the connection? Called when this process was asked to stop. The web
    /// server closes its end just before or just after that, so this method waits briefly.
    fn is_abandoned(&mut self, py: Python<'_>) -> bool;

    /// Ends the response, which is `complete` or was cut.
    ///
    /// # Errors
    /// `TimedOut` if the end could not be sent by the deadline of the request.
    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()>;

    /// Was more of the request body received than the request announced? Only bytes received by the
    /// end of the response count.
    fn had_surplus(&self) -> bool {
        false
    }
}

/// The destination of `wsgi.errors`. Bytes that cannot be written are lost: an application must not
/// fail when the disk of the log is full.
pub(crate) trait ErrorSink: Send + Sync {
    /// Writes all of `bytes`.
    fn write(&self, bytes: &[u8]);

    /// Writes buffered bytes.
    fn flush(&self) {}

    /// The descriptor of the destination, if there is one.
    fn descriptor(&self) -> Option<i32>;
}
