//! The progress of a request, as reported by the engine.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use wire::report::{MAX_REPORT_BYTES, Report};

use crate::guard::{Audit, ServingProcess};

/// How long a process may take to exit after the kernel has closed its file descriptors.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The reports of the engine.
#[derive(Default)]
pub(super) struct Progress {
    /// The engine is loaded.
    pub(super) engine_loaded: bool,
    /// The application is loaded, or cannot be.
    pub(super) app_loaded: bool,
    /// The response headers have been sent.
    pub(super) headers_sent: bool,
    /// Nothing more of the response will be sent; is it complete?
    pub(super) response_ended: Option<bool>,
    /// The request is done; is its response complete?
    pub(super) done: Option<bool>,
    /// The process needs no guard any more.
    pub(super) released: bool,
    /// Why the engine cannot be loaded.
    pub(super) unfit: Option<String>,
    /// The application has closed file descriptors of its response.
    pub(super) descriptors_lost: bool,
    /// The other end is closed: no report can follow.
    pub(super) channel_closed: bool,
    audit: Option<Audit>,
    /// How much more time the application has asked for.
    more_time: Option<Duration>,
}

impl Progress {
    /// The progress of a worker that has the application loaded.
    pub(super) fn of_pool_worker() -> Self {
        Self { engine_loaded: true, app_loaded: true, ..Self::default() }
    }

    /// The audit of the application, once.
    pub(super) fn take_audit(&mut self) -> Option<Audit> {
        self.audit.take()
    }

    /// How much more time the application has asked for since the last call.
    pub(super) fn take_more_time(&mut self) -> Option<Duration> {
        self.more_time.take()
    }

    /// Is the response complete, while the application still runs `close()`?
    pub(super) fn is_closing(&self) -> bool {
        self.response_ended.is_some() && self.done.is_none()
    }

    /// Reads the reports of `process` that have arrived at `channel`.
    pub(super) fn read(&mut self, channel: &OwnedFd, process: &ServingProcess) {
        let mut packet = [0; MAX_REPORT_BYTES];
        loop {
            match recv(channel, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    // An exiting process closes all file descriptors a moment before its exit.
                    let has_exited = self.channel_closed
                        || self.done.is_some()
                        || process.exits_within(EXIT_TIMEOUT);
                    self.descriptors_lost |= !has_exited;
                    self.channel_closed = true;
                    return;
                }
                Ok((length, _)) => {
                    // Any other message is not from the engine: an application may have written to
                    // the file descriptor.
                    if let Some(report) = Report::decode(&packet[..length]) {
                        self.apply(report);
                    }
                }
                // Python has exited without reading the last message. The kernel reports this error
                // once, before the last reports of python.
                Err(Errno::CONNRESET | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn apply(&mut self, report: Report) {
        match report {
            Report::Ready => self.engine_loaded = true,
            Report::Loaded => self.app_loaded = true,
            Report::ResponseStarts => self.headers_sent = true,
            Report::ResponseEnded { complete } => self.response_ended = Some(complete),
            Report::RequestEnded { complete } => {
                self.response_ended = Some(complete);
                self.done = Some(complete);
            }
            Report::Released { complete } => {
                self.response_ended = Some(complete);
                self.done = Some(complete);
                self.released = true;
            }
            Report::EngineFailed(reason) => self.unfit = Some(reason),
            Report::DescriptorsLost => self.descriptors_lost = true,
            Report::TimeExtended(milliseconds) => {
                self.more_time = self.more_time.max(Some(Duration::from_millis(milliseconds)));
            }
            Report::Audited => self.audit = Some(Audit::ManyProcesses),
            Report::OneProcess(findings) => self.audit = Some(Audit::OneProcess(findings)),
        }
    }
}
