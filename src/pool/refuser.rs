//! Answers requests with 503 Service Unavailable while no worker can serve them, or all workers are
//! busy for too long.

use std::{os::fd::OwnedFd, time::Instant};

use diagnostics::{
    error_page::{Page, Status},
    message::LogMessage,
    request_id,
};
use fastcgi_server::Params;
use rustix::event::PollFd;
use wire::request::ResponseFormat;

use crate::{pool::responder::Responder, request::Request};

/// Connections whose requests are refused.
pub(super) struct Refuser(Responder);

impl Refuser {
    /// A refuser of up to `max_connections` connections at a time.
    pub(super) fn new(max_connections: usize) -> Self {
        Self(Responder::new(max_connections))
    }

    /// May another connection be added?
    pub(super) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// Is no request being refused?
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, socket: OwnedFd) {
        self.0.add(socket);
    }

    /// Sockets to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.watched()
    }

    /// Time of the next connection timeout.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.next_due()
    }

    /// Continues all connections without blocking. `reason` says why requests are refused; clients
    /// see it if `debug` is set. Returns the requests that were refused now. The log does not
    /// identify a request whose parameters are too long or damaged.
    pub(super) fn proceed(&mut self, reason: &LogMessage, debug: bool) -> Vec<Request> {
        let detail = debug.then(|| reason.for_client());
        let mut refused = Vec::new();
        self.0.proceed(|params| {
            let unknown = || Request::synthetic("-", "-", Vec::new());
            let request = params.map_or_else(unknown, request_of);
            let page = Page {
                status: Status::ServiceUnavailable,
                request_id: &request.id,
                detail: detail.as_deref(),
                head_only: request.is_head(),
            };
            let page = page.render(ResponseFormat::FastCgi.around_status());
            refused.push(request);
            page
        });
        refused
    }
}

/// The request with these parameters, named in the log as a worker would name it.
fn request_of(params: &Params) -> Request {
    let text = |name: &[u8]| {
        let value = params.get(name).filter(|value| !value.is_empty());
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let target = text(b"REQUEST_URI").unwrap_or_else(|| {
        [&b"SCRIPT_NAME"[..], b"PATH_INFO"].into_iter().filter_map(text).collect()
    });
    let mut request =
        Request::synthetic(&text(b"REQUEST_METHOD").unwrap_or_default(), &target, Vec::new());
    if let Some(id) = text(b"UNIQUE_ID").filter(|id| request_id::is_request_id(id)) {
        request.id = id;
    }
    request
}
