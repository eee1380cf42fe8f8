//! The request body of a CGI request. The application's reader and the response share the body: the
//! response spools the body while the web server waits.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{SeekFrom, seek, tell},
    io::{Errno, read},
};

use crate::{
    process::{
        forks::{self, Descriptor},
        poll::is_readable,
    },
    transport::{body_count::BodyCount, spool::Spool},
    wsgi::{BodyLength, BodySource},
};

/// Bytes that are spooled at a time.
const SPOOL_READ_SIZE: usize = 64 * 1024;

/// The request body of a CGI request.
#[derive(Clone)]
pub(crate) struct CgiBody {
    state: Arc<Mutex<CgiBodyState>>,
}

struct CgiBodyState {
    /// Closed after the response, so that the web server sees the end of the connection.
    descriptor: Option<Arc<Descriptor>>,
    count: BodyCount,
    /// The application has got the whole body.
    has_ended: bool,
    /// A thread of the application reads from the descriptor. No other thread may: the parts of the
    /// body would change their order.
    is_being_read: bool,
    /// The body may be longer than CONTENT_LENGTH, if a filter of the web server has changed the
    /// body. Such surplus is read and dropped, because many web servers send the whole body before
    /// they read the response.
    may_have_surplus: bool,
    /// The body is longer than CONTENT_LENGTH.
    had_surplus: bool,
    spool: Spool,
    /// The error that ended spooling.
    failure: Option<(io::ErrorKind, String)>,
}

impl CgiBodyState {
    /// The file offset of a body of known length; `None` if the body is not in a file.
    fn start_in_file(&self) -> Option<u64> {
        self.count.announced()?;
        tell(self.descriptor.as_ref()?).ok()?.checked_sub(self.count.received())
    }

    /// Counts the `count` bytes that a read of the body returned.
    fn add(&mut self, count: usize) -> io::Result<()> {
        if count == 0 && self.count.announced().is_some() {
            return Err(self.count.ended_early());
        }
        self.count.add(count);
        self.has_ended = self.count.is_complete() || count == 0;
        self.may_have_surplus = self.has_ended && count > 0 && self.start_in_file().is_none();
        Ok(())
    }

    /// Counts the `count` bytes that a read after the end of the body returned.
    fn add_surplus(&mut self, count: usize) {
        self.had_surplus |= count > 0;
        self.may_have_surplus = count > 0;
    }
}

impl CgiBody {
    /// The body on `descriptor`, with the length `length`.
    pub(crate) fn new(descriptor: Descriptor, length: BodyLength) -> Self {
        let count = BodyCount::new(length);
        let state = CgiBodyState {
            descriptor: Some(Arc::new(descriptor)),
            has_ended: count.is_complete(),
            count,
            is_being_read: false,
            may_have_surplus: false,
            had_surplus: false,
            spool: Spool::default(),
            failure: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, CgiBodyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file descriptor, while more may have to be read from it.
    pub(super) fn pending(&self) -> Option<Arc<Descriptor>> {
        let state = self.state();
        if state.has_ended && !state.may_have_surplus { None } else { state.descriptor.clone() }
    }

    /// Has the application got all of the body?
    pub(super) fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    /// Does a thread of the application read the body now?
    pub(super) fn is_being_read(&self) -> bool {
        self.state().is_being_read
    }

    /// Is the body longer than CONTENT_LENGTH?
    pub(super) fn had_surplus(&self) -> bool {
        self.state().had_surplus
    }

    /// Spools the bytes that have arrived. An error ends the spooling, and the application's next
    /// read returns the error. This function is not inlined, because the buffer would occupy the
    /// caller's stack.
    #[inline(never)]
    pub(super) fn spool_available(&self, descriptor: &Descriptor) {
        let mut buffer = [0; SPOOL_READ_SIZE];
        let mut state = self.state();
        if state.is_being_read {
            return;
        }
        if state.has_ended {
            match read(descriptor, &mut buffer) {
                Err(Errno::INTR) => {}
                count => state.add_surplus(count.unwrap_or(0)),
            }
            return;
        }
        let allowed = state.count.allowed(buffer.len());
        let spooled = match read(descriptor, &mut buffer[..allowed]) {
            Ok(count) => state.add(count).and_then(|()| state.spool.push(&buffer[..count])),
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = spooled {
            state.failure =
                Some((error.kind(), format!("the request body could not be spooled: {error}")));
            state.descriptor = None;
        }
    }

    /// Checks for bytes beyond CONTENT_LENGTH, without waiting.
    pub(super) fn check_surplus(&self) {
        if self.has_ended()
            && let Some(pending) = self.pending().filter(|pending| is_readable(pending))
        {
            self.spool_available(&pending);
        }
    }

    /// Closes the file descriptor.
    pub(super) fn close(&self) {
        self.state().descriptor = None;
    }
}

impl BodySource for CgiBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        forks::refuse_child()?;
        let (descriptor, allowed) = {
            let mut state = self.state();
            let spooled = state.spool.pop(into)?;
            if spooled > 0 || state.has_ended {
                return Ok(spooled);
            }
            let Some(descriptor) = state.descriptor.clone() else {
                // Either spooling has failed, and this read reports the error to the application;
                // or the request has ended.
                return match &state.failure {
                    Some((kind, reason)) => Err(io::Error::new(*kind, reason.clone())),
                    None => state.add(0).map(|()| 0),
                };
            };
            state.is_being_read = true;
            (descriptor, state.count.allowed(into.len()))
        };
        let received = read(&*descriptor, &mut into[..allowed]);
        let mut state = self.state();
        state.is_being_read = false;
        let count = received?;
        state.add(count)?;
        Ok(count)
    }

    fn length(&self) -> Option<u64> {
        self.state().count.announced()
    }

    fn is_in_file(&self) -> bool {
        self.state().start_in_file().is_some()
    }

    fn seek(&mut self, position: u64) -> bool {
        let mut state = self.state();
        let is_inside = state.count.announced().is_some_and(|length| position <= length);
        let Some(start) = state.start_in_file().filter(|_| is_inside) else {
            return false;
        };
        let is_moved = state
            .descriptor
            .as_ref()
            .is_some_and(|file| seek(file, SeekFrom::Start(start + position)).is_ok());
        if is_moved {
            state.spool = Spool::default();
            state.count.continue_at(position);
            state.has_ended = state.count.is_complete();
        }
        is_moved
    }
}
