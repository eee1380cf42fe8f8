//! Log messages of a request for the web server: `FCGI_STDERR` (FastCGI 1.0, 5.3 and 6.1).
//!
//! Web servers treat a message before the response headers as a failure, so messages are sent after
//! the headers.

use std::{mem, sync::Arc};

use fastcgi_server::{Output, Stream};

use crate::log::Transcript;

/// The messages of a request, and the records for them.
pub(super) struct ErrorRecords {
    /// `None` if no messages go to the web server.
    transcript: Option<Arc<Transcript>>,
    /// Records that could not be sent yet.
    late: Vec<u8>,
    is_used: bool,
}

impl ErrorRecords {
    pub(super) fn new(transcript: Option<Arc<Transcript>>) -> Self {
        Self { transcript, late: Vec::new(), is_used: false }
    }

    /// Takes the records that can be sent now, between two records of the response. Each message
    /// has its own record if it fits. `have_headers_left` is false before the headers were sent,
    /// and there are no records then.
    pub(super) fn take(&mut self, output: &Output, have_headers_left: bool) -> Vec<u8> {
        let mut records = mem::take(&mut self.late);
        if let Some(transcript) = self.transcript.as_ref().filter(|_| have_headers_left) {
            for message in transcript.take() {
                output.append(Stream::Stderr, &message, &mut records);
            }
            self.is_used |= !records.is_empty();
        }
        records
    }

    /// Puts back records that were taken but not sent.
    pub(super) fn put_back(&mut self, records: Vec<u8>) {
        self.late = records;
    }

    /// Was anything sent?
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// The end of the stream, if anything was sent (FastCGI 1.0, 6.1).
    pub(super) fn end(&self, output: &Output) -> Vec<u8> {
        if self.is_used { output.end_of(Stream::Stderr).to_vec() } else { Vec::new() }
    }
}
