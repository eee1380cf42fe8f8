//! The error log: entries, each in one write, and bytes that applications print.

use std::{
    fmt,
    io::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

use link::entry::Entry;
use rustix::process::getpid;

/// Writes entries about one request to the error log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    about: Arc<About>,
    kept: Option<Arc<Mutex<String>>>,
}

/// Which request an entry is about.
#[derive(Debug)]
struct About {
    /// Id, method and target.
    line: String,
    id_length: usize,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pid {}", self.line, getpid().as_raw_nonzero())
    }
}

impl Log {
    /// Entries about the request with the id `request_id`; `request` is its method and target.
    pub(crate) fn new(request_id: &str, request: &str) -> Self {
        let line = [request_id, " ", request].concat();
        Self { about: Arc::new(About { line, id_length: request_id.len() }), kept: None }
    }

    /// A log that keeps its entries in place of writing them, and what it keeps.
    pub(crate) fn kept() -> (Self, Arc<Mutex<String>>) {
        let entries = Arc::new(Mutex::new(String::new()));
        let log = Self { kept: Some(entries.clone()), ..Self::new("check", "GET /") };
        (log, entries)
    }

    /// Writes one entry.
    pub(crate) fn entry(&self, entry: &Entry) {
        match &self.kept {
            Some(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&entry.for_client()),
            None => write_all(entry.for_log(&*self.about).as_bytes()),
        }
    }

    /// Names the request on error pages.
    pub(crate) fn request_id(&self) -> &str {
        &self.about.line[..self.about.id_length]
    }

    /// Id, method and target of the request.
    pub(crate) fn line(&self) -> &str {
        &self.about.line
    }
}

/// Writes `bytes` to the error log.
pub(crate) fn write_all(bytes: &[u8]) {
    // A log that cannot be written leaves nowhere to say so, and no reason to fail the request.
    let _ = io::stderr().lock().write_all(bytes);
}
