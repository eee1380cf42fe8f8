//! The engine's end of the line to the gateway that guards it.

use std::{os::fd::OwnedFd, sync::Arc};

use link::report::{Report, Stop};
use rustix::{
    net::{RecvFlags, SendFlags, recv, send},
    process::{Pid, getpid},
};

/// Sends reports to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    socket: Arc<OwnedFd>,
    process: Pid,
}

impl Reporter {
    /// Reports on `socket`.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket), process: getpid() }
    }

    /// Is this the process that the gateway has started? An application may fork, and its child may fall out of it.
    pub(crate) fn is_ours(&self) -> bool {
        getpid() == self.process
    }

    /// Tells the gateway. If it is gone there is nobody to tell, and the kernel ends this process soon.
    pub(crate) fn send(&self, report: &Report) {
        if self.is_ours() {
            let _ = send(&self.socket, &report.encode(), SendFlags::NOSIGNAL);
        }
    }

    /// Why the gateway wants the request to end, if it has said so.
    pub(crate) fn stop(&self) -> Option<Stop> {
        let mut packet = [0; 16];
        let (length, _) = recv(&self.socket, &mut packet[..], RecvFlags::DONTWAIT).ok()?;
        Stop::decode(&packet[..length])
    }
}
