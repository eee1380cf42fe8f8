//! The settings that all FastCGI connections of a worker share.

use std::time::Duration;

use fastcgi_server::Limits;
use rustix::net::{SocketAddrUnix, getsockname};
use wire::launch::Service;

use crate::process::forks::Descriptor;

/// The settings of a worker's connections.
pub(crate) struct FastCgiSettings {
    limits: Limits,
    socket_timeout: Option<Duration>,
    is_started_by_mod_fcgid: bool,
}

impl FastCgiSettings {
    /// The settings of a worker of `service`. `may_move` if its connections can go to other
    /// workers, which is possible only in a pool of wsgate.
    pub(super) fn new(service: &Service, listeners: &[Descriptor], may_move: bool) -> Self {
        let max_requests = service.workers.max(1).saturating_mul(service.threads.max(1));
        let socket_timeout = Some(service.socket_timeout_seconds).filter(|&seconds| seconds > 0);
        Self {
            limits: Limits { max_reqs: Some(max_requests), ..Limits::default() },
            socket_timeout: socket_timeout.map(Duration::from_secs),
            is_started_by_mod_fcgid: !may_move && listeners.iter().any(is_socket_of_mod_fcgid),
        }
    }

    /// Limits of parameters, and the response to `FCGI_GET_VALUES`.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Timeout of one wait for the web server during a request.
    pub(super) fn socket_timeout(&self) -> Option<Duration> {
        self.socket_timeout
    }

    /// Did mod_fcgid start this process?
    pub(super) fn is_started_by_mod_fcgid(&self) -> bool {
        self.is_started_by_mod_fcgid
    }
}

/// Did mod_fcgid create this listening socket? mod_fcgid names a socket by its process ID, a dot
/// and another number.
fn is_socket_of_mod_fcgid(listener: &Descriptor) -> bool {
    let address = getsockname(listener).and_then(SocketAddrUnix::try_from);
    let path = address
        .ok()
        .and_then(|address| address.path_bytes().map(<[u8]>::to_vec))
        .unwrap_or_default();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut numbers = name.split(|&byte| byte == b'.');
    let mut is_number =
        || numbers.next().is_some_and(|it| !it.is_empty() && it.iter().all(u8::is_ascii_digit));
    is_number() && is_number() && numbers.next().is_none()
}
