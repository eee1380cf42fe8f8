//! What a request says in the error log, on its way to the web server: `FCGI_STDERR` (FastCGI 1.0,
//! 5.3 and 6.1).
//!
//! Web servers take a message that comes before the head of a response for a failure, so all of
//! them wait for the head.

use std::sync::Arc;

use fastcgi_server::Stream;

use crate::{
    log::{
        Transcript, {self},
    },
    transport::fastcgi::FastCgiResponse,
    wsgi::ErrorSink,
};

/// What an application writes to `wsgi.errors`, with a copy for the web server.
pub(crate) struct CopiedErrors(pub(crate) Arc<Transcript>);

impl ErrorSink for CopiedErrors {
    fn write(&self, bytes: &[u8]) {
        log::write_all(bytes);
        self.0.add(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}

impl FastCgiResponse {
    /// Sends what `transcript` comes to hold, once the head has left.
    pub(crate) fn with_errors(self, transcript: Option<Arc<Transcript>>) -> Self {
        Self { transcript, ..self }
    }

    /// What there is to be sent of it now, as records; each piece has one of its own as far as it
    /// fits. Only between records of the response.
    pub(super) fn errors(&mut self) -> Vec<u8> {
        let mut records = std::mem::take(&mut self.late);
        if let Some(transcript) = self.transcript.as_ref().filter(|_| self.begun) {
            for piece in transcript.take() {
                self.output.append(Stream::Stderr, &piece, &mut records);
            }
            self.stderr_used |= !records.is_empty();
        }
        records
    }

    /// The end of `FCGI_STDERR`, if anything was sent there (FastCGI 1.0, 6.1).
    pub(super) fn end_of_errors(&self) -> Vec<u8> {
        if self.stderr_used { self.output.end_of(Stream::Stderr).to_vec() } else { Vec::new() }
    }
}
