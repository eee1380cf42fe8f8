//! `start_response`, `write`, and where a response stands (PEP 3333 *The start_response()
//! Callable*).

use std::{
    borrow::Cow,
    os::fd::AsFd as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use diagnostics::{
    error_page::{Page, Status},
    message::{Code, LogMessage},
};
use pyo3::{
    exceptions::{PyConnectionError, PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    sync::MutexExt,
    types::{PyBytes, PyList, PyString, PyTuple},
};
use wire::request::ResponseFormat;
use wire::scoreboard::OneTimeWarning;

use crate::{
    log::Log,
    wsgi::{
        Awaited, Interruptible, ResponseSink,
        error::{Fault, InvalidResponse},
        file_wrapper::FilePart,
        headers::{BadHead, Head},
        text::utf8,
        variables::Variables,
    },
};

/// Bytes of a file that are sent before signals are looked at again.
const FILE_PIECE: u64 = 1 << 20;

/// Bytes that the smallest of a gateway's channels to a web server takes at once, a pipe's:
/// whatever ends the process, all of them have left, or none.
const AT_ONCE: u64 = 65_536;

/// The response to one request. Its methods are what the application is handed.
#[pyclass(frozen, module = "wsgate")]
pub(crate) struct Response {
    state: Mutex<State>,
    form: ResponseFormat,
    /// The response to a `HEAD` request.
    head_only: bool,
    /// A client's connection must not outlive a body that may end before its Content-Length: to the
    /// client the next response on it would be the rest.
    closes_if_incomplete: bool,
    log: Log,
    interruptible: Interruptible,
}

struct State {
    stage: Stage,
    /// `start_response` was called, whether it raised or not.
    called: bool,
    /// Gone when the response has ended: its connection may serve another by then, and an
    /// application may keep the response.
    sink: Option<Box<dyn ResponseSink>>,
    /// Bytes of the body that were sent.
    sent: u64,
    /// The application gave more than may be sent, and the log says so if that is a mistake.
    excess: bool,
    /// The response is a part of something, and says so by its status.
    is_partial: bool,
    /// The body is what `wsgi.file_wrapper` has made of a file.
    is_file: bool,
    /// Nobody reads the response any more.
    client_gone: bool,
    /// Nothing more will be sent. Was the response complete?
    over: Option<bool>,
    /// The body is shorter than its head has announced.
    is_short: bool,
}

impl State {
    /// Will all that the head announced have left with the next `length` bytes?
    fn is_whole_after(&self, length: u64) -> bool {
        matches!(self.stage, Stage::HeadSent { limit: Some(limit), bodiless: false } if self.sent + length == limit)
    }

    fn flow(&self) -> Flow {
        match self.stage {
            Stage::HeadSent { bodiless: true, .. } => Flow::Bodiless,
            // Only a block beyond the limit ends the body: the application may still have something
            // to do after its last.
            Stage::HeadSent { .. } if self.excess => Flow::Cut,
            _ => Flow::Open,
        }
    }

    /// Looks whether the client still waits for what is to come.
    fn look(&mut self, py: Python<'_>) -> Result<(), Fault> {
        // Of a response that is whole the web server takes nothing more, and may close its end.
        let is_whole = self.is_whole_after(0);
        match self.sink.as_mut().filter(|_| !is_whole).map(|sink| sink.look(py)) {
            Some(Err(error)) => Err(self.broken(Fault::of_write(error))),
            _ => Ok(()),
        }
    }

    fn broken(&mut self, fault: Fault) -> Fault {
        self.stage = Stage::Done;
        self.client_gone = matches!(fault, Fault::ClientGone);
        fault
    }
}

/// Where a response stands.
enum Stage {
    /// The application has said nothing.
    Nothing,
    /// `start_response` was called; nothing has left, and it may be called again with `exc_info`.
    Started(Head),
    /// The head has left.
    HeadSent {
        /// Bytes of body that may follow.
        limit: Option<u64>,
        /// No body may follow.
        bodiless: bool,
    },
    /// Nothing more may be sent.
    Done,
}

/// Whether more of the body can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// More may follow.
    Open,
    /// This response has no body.
    Bodiless,
    /// The body was cut at its announced length.
    Cut,
}

#[pymethods]
impl Response {
    /// Applications are to pass positional arguments; some name the last one, and other servers let
    /// them.
    #[pyo3(signature = (status, headers, exc_info = None))]
    fn start_response<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        slf.get().start(py, status, headers, exc_info)?;
        slf.getattr(intern!(py, "write"))
    }

    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(block) = data.cast::<PyBytes>() else {
            return Err(PyTypeError::new_err(format!(
                "write() takes bytes, not `{}`",
                type_name(data)
            )));
        };
        if self.send(py, block, None).map_err(Fault::into_error)? == Flow::Cut {
            return Err(InvalidResponse::new_err(
                "write() was given more bytes than Content-Length announces",
            ));
        }
        Ok(())
    }
}

impl Response {
    /// A response that nothing is known of yet, to be sent to `sink`.
    pub(crate) fn new(
        sink: Box<dyn ResponseSink>,
        form: ResponseFormat,
        head_only: bool,
        log: Log,
        interruptible: Interruptible,
    ) -> Self {
        let sink = Some(sink);
        let state = State {
            stage: Stage::Nothing,
            called: false,
            sink,
            sent: 0,
            excess: false,
            is_partial: false,
            is_file: false,
            client_gone: false,
            over: None,
            is_short: false,
        };
        Self {
            state: Mutex::new(state),
            form,
            head_only,
            closes_if_incomplete: false,
            log,
            interruptible,
        }
    }

    /// The same, to the request of `variables`: its web server may have to close its client's
    /// connection behind it.
    pub(super) fn behind(self, variables: &Variables<'_>) -> Self {
        Self { closes_if_incomplete: variables.front_ignores_short_bodies(self.form), ..self }
    }

    /// Where entries about the request go.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    fn state(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        // No panic happens under this lock that would leave the state half-way.
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let exception = exc_info.map(exception_of).transpose()?;
        {
            let mut state = self.state(py);
            let called_before = std::mem::replace(&mut state.called, true);
            match (&state.stage, exception) {
                (Stage::HeadSent { .. } | Stage::Done, Some(exception)) => return Err(exception),
                (Stage::Nothing | Stage::Started(_), Some(_)) => state.stage = Stage::Nothing,
                (_, None) if called_before => {
                    return Err(PyRuntimeError::new_err(
                        "start_response() was called a second time without exc_info",
                    ));
                }
                (_, None) => {}
            }
        }
        // Looking at the arguments runs no code of the application's, but may raise.
        let head = head_of(self.form, status, headers)?;
        self.state(py).stage = Stage::Started(head);
        Ok(())
    }

    /// Has the application called `start_response` without an exception, or has a response left
    /// already?
    pub(super) fn is_started(&self, py: Python<'_>) -> bool {
        !matches!(self.state(py).stage, Stage::Nothing)
    }

    /// May an error page still be sent?
    pub(super) fn may_be_replaced(&self, py: Python<'_>) -> bool {
        matches!(self.state(py).stage, Stage::Nothing | Stage::Started(_))
    }

    /// Has the head of the response left, and the response not ended?
    pub(super) fn head_left(&self, py: Python<'_>) -> bool {
        matches!(self.state(py).stage, Stage::HeadSent { .. })
    }

    /// Sends a block, with the head before it if that is still here. `whole` is the length of the
    /// whole body in bytes, where that is known.
    pub(super) fn send(
        &self,
        py: Python<'_>,
        block: &Bound<'_, PyBytes>,
        whole: Option<u64>,
    ) -> Result<Flow, Fault> {
        let block = block.as_bytes();
        let mut state = self.state(py);
        let head = self.take_head(&mut state, whole, Some(block.len() as u64))?;
        let room = self.room(&mut state, block.len() as u64);
        // Slices have at most `isize::MAX` bytes, so that the room within one fits `usize`.
        let block = &block[..usize::try_from(room).unwrap_or(block.len())];
        let last = state.is_whole_after(room);
        let mut state = self.transmit(py, state, &head, block, last)?;
        self.note_whole(py, &mut state);
        if head.is_empty() && block.is_empty() {
            state.look(py)?;
        }
        Ok(state.flow())
    }

    /// The application has given nothing that could be sent. Where nothing is written, only a look
    /// shows that the client has gone.
    pub(super) fn look(&self, py: Python<'_>) -> Result<(), Fault> {
        self.state(py).look(py)
    }

    /// The body is what `wsgi.file_wrapper` has made of a file. Such a body is sent as far as
    /// Content-Length says (PEP 3333).
    pub(super) fn body_is_file(&self, py: Python<'_>) {
        self.state(py).is_file = true;
    }

    /// Sends a part of a file, with the head before it.
    pub(super) fn send_file(&self, py: Python<'_>, part: &FilePart) -> Result<(), Fault> {
        let mut state = self.state(py);
        let head = self.take_head(&mut state, Some(part.length), Some(0))?;
        let room = self.room(&mut state, part.length);
        drop(self.transmit(py, state, &head, b"", false)?);
        let mut done = 0;
        while done < room {
            let count = usize::try_from((room - done).min(FILE_PIECE)).unwrap_or(usize::MAX);
            let mut state = self.state(py);
            let Some(sink) = &mut state.sink else {
                return Err(Fault::ClientGone);
            };
            let sent = sink.send_file(py, part.file.as_fd(), part.offset + done, count);
            match sent {
                Ok(0) => break,
                Ok(sent) => {
                    done += sent as u64;
                    state.sent += sent as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(state.broken(self.fault_of_write(py, error))),
            }
            self.note_whole(py, &mut state);
            // Not under the lock: a signal handler of the application's may call write().
            drop(state);
            self.interruptible.heed_signals(py, Awaited::Reader)?;
        }
        Ok(())
    }

    /// Sends the head if it is still here: the application has given all it has.
    pub(super) fn complete(&self, py: Python<'_>) -> Result<(), Fault> {
        let mut state = self.state(py);
        match state.stage {
            Stage::Nothing => {
                return Err(Fault::bad_response(
                    "the application ended without a call of `start_response`",
                    "call start_response(\"200 OK\", [(\"Content-Type\", \"text/html; \
                     charset=utf-8\")]) before it returns",
                ));
            }
            Stage::Started(_) => {
                let head = self.take_head(&mut state, (!self.head_only).then_some(0), None)?;
                state = self.transmit(py, state, &head, b"", false)?;
            }
            Stage::HeadSent { .. } | Stage::Done => {}
        }
        if let Stage::HeadSent { limit: Some(limit), bodiless: false } = state.stage
            && state.sent < limit
        {
            state.is_short = true;
            self.log.entry(
                &LogMessage::error(
                    Code::BodyTooShort,
                    format!(
                        "the body ended after {} of the {limit} bytes that Content-Length \
                         announces",
                        state.sent
                    ),
                )
                .hint(
                    "leave Content-Length out, or compute it from the encoded bytes, not from the \
                     text",
                ),
            );
        }
        Ok(())
    }

    /// Has the application given a body that is shorter than its head has announced?
    pub(super) fn is_short(&self, py: Python<'_>) -> bool {
        self.state(py).is_short
    }

    /// Takes note if all that the head announced has left.
    fn note_whole(&self, py: Python<'_>, state: &mut State) {
        if state.is_whole_after(0) {
            self.end_sending(py, state, true);
        }
    }

    /// Nothing more will be sent: all of the response has left (`complete`), or it has to be cut.
    pub(super) fn is_over(&self, py: Python<'_>, complete: bool) {
        self.end_sending(py, &mut self.state(py), complete);
    }

    fn end_sending(&self, py: Python<'_>, state: &mut State, complete: bool) {
        if state.over.is_none() {
            state.over = Some(complete);
            self.interruptible.answered(py);
            state.sink.iter_mut().for_each(|sink| sink.is_over(py, complete));
        }
    }

    /// Has the client all of the response?
    pub(super) fn is_whole(&self, py: Python<'_>) -> bool {
        self.state(py).over == Some(true)
    }

    /// The request ends because this process was asked to stop: has the client gone?
    pub(super) fn is_abandoned(&self, py: Python<'_>) -> bool {
        let mut state = self.state(py);
        state.over.is_none() && state.sink.as_mut().is_some_and(|sink| sink.is_abandoned(py))
    }

    /// The application has done its part; what follows is not to be interrupted.
    /// Could the deadline interrupt it until now?
    pub(super) fn end_interruption(&self, py: Python<'_>) -> bool {
        self.interruptible.end(py)
    }

    /// `close()` is to come, and the deadline interrupts it.
    pub(super) fn resume_interruption(&self) {
        self.interruptible.resume();
    }

    /// What the request waited for at its deadline, if it waited for its client.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        self.interruptible.awaited()
    }

    /// Ends the response: all of it was sent, or it had to be cut.
    pub(super) fn finish(&self, py: Python<'_>, complete: bool) {
        let mut state = self.state(py);
        state.stage = Stage::Done;
        let Some(mut sink) = state.sink.take() else {
            return;
        };
        if let Err(error) = sink.finish(py, complete) {
            // The caller finds it in what was awaited.
            drop(self.fault_of_write(py, error));
        }
        if sink.had_surplus() {
            self.log.entry_once(OneTimeWarning::SurplusBody, || {
                LogMessage::warning(
                    Code::SurplusBody,
                    "more of a request body came than CONTENT_LENGTH says, and was dropped",
                )
                .hint(
                    "a filter of the web server's changes the body after it was counted, as \
                     Apache's `SetInputFilter DEFLATE` does; switch that off for the application; \
                     a pool logs this once",
                )
            });
        }
    }

    fn fault_of_write(&self, py: Python<'_>, error: std::io::Error) -> Fault {
        match error.kind() {
            std::io::ErrorKind::TimedOut => {
                Fault::Raised(self.interruptible.expire(py, Awaited::Reader))
            }
            _ => Fault::of_write(error),
        }
    }

    /// Sends `page` in place of what the application has begun, if that may still be. Tells whether
    /// it could.
    pub(super) fn replace(&self, py: Python<'_>, status: Status, detail: Option<&str>) -> bool {
        if !self.may_be_replaced(py) {
            return false;
        }
        let page =
            Page { status, request_id: self.log.request_id(), detail, head_only: self.head_only };
        let response = page.render(self.form.around_status());
        let mut state = self.state(py);
        state.stage = Stage::HeadSent { limit: None, bodiless: true };
        state.sink.iter_mut().for_each(|sink| sink.head_leaves());
        self.transmit(py, state, &response, b"", true).is_ok()
    }

    /// The head as it leaves now, if it has not left before.
    ///
    /// `block` is the length of the block that leaves with it; none where no body follows.
    fn take_head(
        &self,
        state: &mut State,
        whole: Option<u64>,
        block: Option<u64>,
    ) -> Result<Vec<u8>, Fault> {
        let mut head = match std::mem::replace(&mut state.stage, Stage::Done) {
            Stage::Started(head) => head,
            stage @ Stage::HeadSent { .. } => {
                state.stage = stage;
                return Ok(Vec::new());
            }
            Stage::Nothing => {
                state.stage = Stage::Nothing;
                return Err(Fault::bad_response(
                    "the application gave a body before it called `start_response`",
                    "call start_response(status, headers) before the first block of the body",
                ));
            }
            Stage::Done => return Err(Fault::ClientGone),
        };
        let bodiless = self.head_only || head.is_bodiless();
        if let Some(whole) = whole
            && head.content_length().is_none()
            && !head.is_bodiless()
        {
            head.set_content_length(whole);
        }
        head.complete_length();
        if head.remove_redirect_of_success() {
            self.log.entry(
                &LogMessage::warning(
                    Code::LocationLeftOut,
                    "a `Location` came with status 200 and was left out",
                )
                .hint(
                    "web servers make such a CGI response a redirect; use a 3xx status to \
                        redirect, \
                     201 for what was created",
                ),
            );
        }
        if block.is_some() && !head.is_bodiless() && !head.has_type() {
            self.log.entry_once(OneTimeWarning::NoContentType, || {
                LogMessage::warning(
                    Code::NoContentType,
                    "the response has a body but no `Content-Type`",
                )
                .hint(
                    "pass (\"Content-Type\", \"text/html; charset=utf-8\") to start_response; a \
                     pool logs this once",
                )
            });
        }
        if self.closes_if_incomplete
            && !bodiless
            && let Some(length) = head.content_length()
            && (length > block.unwrap_or(0) || length > AT_ONCE)
            // A file has its bytes already, and clients of a pool would lose their connections for
            // each.
            && !(state.is_file && self.form == ResponseFormat::FastCgi)
        {
            head.close_connection();
        }
        state.stage = Stage::HeadSent { limit: head.content_length(), bodiless };
        state.is_partial = head.is_partial();
        state.sink.iter_mut().for_each(|sink| sink.head_leaves());
        Ok(head.into_bytes())
    }

    /// How many of `length` bytes may be sent; says so in the log when that is not all.
    fn room(&self, state: &mut State, length: u64) -> u64 {
        let Stage::HeadSent { limit, bodiless } = state.stage else {
            return 0;
        };
        let room = match (bodiless, limit) {
            (true, _) => 0,
            (false, Some(limit)) => limit.saturating_sub(state.sent),
            (false, None) => u64::MAX,
        };
        let is_part_of_file = state.is_file && state.is_partial;
        if length > room
            && !std::mem::replace(&mut state.excess, true)
            && !self.head_only
            && !is_part_of_file
        {
            let entry = match limit {
                Some(limit) if !bodiless => LogMessage::error(
                    Code::BodyTooLong,
                    format!(
                        "the body is longer than the {limit} bytes that Content-Length announces"
                    ),
                )
                .hint(
                    "it was cut there; compute Content-Length from the encoded bytes, not from the \
                     text",
                ),
                _ => LogMessage::warning(
                    Code::UnwantedBody,
                    "a body came with a status that has none",
                )
                .hint("it was left out; return [] with 204, 205 and 304"),
            };
            self.log.entry(&entry);
        }
        length.min(room)
    }

    /// Writes `head` and `block`, however many calls that takes.
    fn transmit<'a>(
        &'a self,
        py: Python<'_>,
        mut state: MutexGuard<'a, State>,
        mut head: &[u8],
        mut block: &[u8],
        last: bool,
    ) -> Result<MutexGuard<'a, State>, Fault> {
        while !head.is_empty() || !block.is_empty() {
            let Some(sink) = &mut state.sink else {
                return Err(Fault::ClientGone);
            };
            let written = sink.write(py, head, block, last);
            if let Ok(count) = written {
                let of_head = count.min(head.len());
                head = &head[of_head..];
                block = &block[count - of_head..];
                state.sent += (count - of_head) as u64;
            }
            match written {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    // Not under the lock: a signal handler of the application's may call write().
                    drop(state);
                    self.interruptible.heed_signals(py, Awaited::Reader)?;
                    state = self.state(py);
                }
                Err(error) => return Err(state.broken(self.fault_of_write(py, error))),
            }
        }
        Ok(state)
    }

    /// What `fault` comes from: an application that `write()`, or a body that did not come (`cut`),
    /// told of a client that went away passes that on.
    pub(super) fn cause_of(&self, py: Python<'_>, fault: Fault, cut: bool) -> Fault {
        let client_gone = self.state(py).client_gone;
        match fault {
            Fault::Raised(error)
                if error.is_instance_of::<PyConnectionError>(py)
                    && (client_gone || (cut && self.is_abandoned(py))) =>
            {
                Fault::ClientGone
            }
            // Web servers end a program when they have lost its client.
            fault if fault.is_termination(py) && self.is_abandoned(py) => Fault::ClientGone,
            fault => fault,
        }
    }
}

/// The exception of an `exc_info` tuple, as it is to be raised again. No reference to it is kept.
fn exception_of(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let wrong = || {
        PyTypeError::new_err(
            "exc_info must be a tuple of type, exception and traceback, as sys.exc_info() gives",
        )
    };
    let tuple = exc_info.cast::<PyTuple>().map_err(|_| wrong())?;
    let (_, exception, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
        tuple.extract().map_err(|_| wrong())?;
    if exception.is_none() {
        return Err(wrong());
    }
    let exception =
        exception.call_method1(intern!(exc_info.py(), "with_traceback"), (traceback,))?;
    Ok(PyErr::from_value(exception))
}

/// Checks what an application gave to `start_response`.
fn head_of(
    form: ResponseFormat,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<Head> {
    let invalid = |bad: BadHead| InvalidResponse::new_err(bad.to_string());
    let status = status.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!("status must be str, not `{}`", type_name(status)))
    })?;
    let headers = headers.cast::<PyList>().map_err(|_| {
        PyTypeError::new_err(format!("headers must be a list, not `{}`", type_name(headers)))
    })?;
    let mut head = Head::new(form, &latin1(status, "status")?).map_err(invalid)?;
    for field in headers {
        let wrong =
            || PyTypeError::new_err("each header must be a tuple of two str: name and value");
        let pair = field.cast::<PyTuple>().map_err(|_| wrong())?;
        if pair.len() != 2 {
            return Err(wrong());
        }
        let text = |index| pair.get_item(index)?.cast_into::<PyString>().map_err(|_| wrong());
        let (name, value) = (text(0)?, text(1)?);
        head.add(&latin1(&name, "a header")?, &latin1(&value, "a header")?).map_err(invalid)?;
    }
    Ok(head)
}

/// A native string of the PEP as the bytes it stands for (*Unicode Issues*).
fn latin1<'a>(text: &'a Bound<'_, PyString>, what: &str) -> PyResult<Cow<'a, [u8]>> {
    // Lone surrogates have no UTF-8, and no latin-1 either.
    let bytes = utf8(text).and_then(|utf8| {
        if utf8.is_ascii() {
            return Some(Cow::Borrowed(utf8.as_bytes()));
        }
        utf8.chars()
            .map(|character| u8::try_from(u32::from(character)).ok())
            .collect::<Option<Vec<u8>>>()
            .map(Cow::Owned)
    });
    bytes.ok_or_else(|| {
        InvalidResponse::new_err(format!(
            "{what} holds characters outside latin-1: {text:?}; encode them first, as \
             urllib.parse.quote does"
        ))
    })
}

/// Name of an object's type, for messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().qualname().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}
