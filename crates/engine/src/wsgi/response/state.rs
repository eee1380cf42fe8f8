//! The state of a response, and how much of its body was sent.

use pyo3::prelude::*;

use crate::wsgi::{ResponseSink, error::ServeError, headers::ResponseHeaders};

/// The recorded state of a response.
pub(super) struct ResponseState {
    pub(super) stage: ResponseStage,
    /// The application has called `start_response`, which may have raised.
    pub(super) called: bool,
    /// The status whose headers were sent; 0 before.
    pub(super) status: u16,
    /// Removed when the response has ended: the application may keep the response object, and the
    /// connection serves other requests.
    pub(super) sink: Option<Box<dyn ResponseSink>>,
    /// How many bytes of the body were sent.
    pub(super) sent: u64,
    /// The application returned more than may be sent; logged if that is a mistake.
    pub(super) excess: bool,
    /// The status says that the body is a part of the representation (206).
    pub(super) is_partial: bool,
    /// `wsgi.file_wrapper` made the body from a file.
    pub(super) is_file: bool,
    /// The client has closed the connection.
    pub(super) client_disconnected: bool,
    /// Set once nothing more will be sent: was the response complete?
    pub(super) outcome: Option<bool>,
    /// The body is shorter than the Content-Length that was sent.
    pub(super) is_short: bool,
}

impl ResponseState {
    /// A response that has not begun.
    pub(super) fn new(sink: Box<dyn ResponseSink>) -> Self {
        Self {
            stage: ResponseStage::Nothing,
            called: false,
            status: 0,
            sink: Some(sink),
            sent: 0,
            excess: false,
            is_partial: false,
            is_file: false,
            client_disconnected: false,
            outcome: None,
            is_short: false,
        }
    }

    /// Is the body complete, according to its Content-Length, after `length` more bytes?
    pub(super) fn is_complete_after(&self, length: u64) -> bool {
        match self.stage {
            ResponseStage::HeadersSent { limit: Some(limit), bodiless: false } => {
                self.sent + length == limit
            }
            _ => false,
        }
    }

    /// Can more of the body be sent?
    pub(super) fn flow(&self) -> BodyFlow {
        match self.stage {
            ResponseStage::HeadersSent { bodiless: true, .. } => BodyFlow::Bodiless,
            // Only a block beyond the limit cuts the body: an application may do more work after
            // its last block.
            ResponseStage::HeadersSent { .. } if self.excess => BodyFlow::Cut,
            _ => BodyFlow::Open,
        }
    }

    /// Checks that the client still waits for the rest.
    pub(super) fn look(&mut self, py: Python<'_>) -> Result<(), ServeError> {
        // The web server may close its end after a complete response.
        let is_complete = self.is_complete_after(0);
        match self.sink.as_mut().filter(|_| !is_complete).map(|sink| sink.look(py)) {
            Some(Err(error)) => Err(self.broken(ServeError::of_write(error))),
            _ => Ok(()),
        }
    }

    /// Ends the response because of `error`, and returns that error.
    pub(super) fn broken(&mut self, error: ServeError) -> ServeError {
        self.stage = ResponseStage::Done;
        self.client_disconnected = matches!(error, ServeError::ClientDisconnected);
        error
    }
}

/// The stage of a response.
pub(super) enum ResponseStage {
    /// The application has not called `start_response`.
    Nothing,
    /// `start_response` was called; no header was sent, and it may be called again with `exc_info`.
    Started(ResponseHeaders),
    /// The headers were sent.
    HeadersSent {
        /// How many bytes of the body may follow.
        limit: Option<u64>,
        /// No body may follow.
        bodiless: bool,
    },
    /// Nothing more may be sent.
    Done,
}

/// The answer to the question whether more of the body can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wsgi) enum BodyFlow {
    /// More may follow.
    Open,
    /// This response has no body.
    Bodiless,
    /// The body was cut at its announced length.
    Cut,
}
