//! The engine's end of the report socket to the gateway.

use std::sync::Arc;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use wire::{
    message::PACKET_BYTES,
    report::{Report, StopReason},
};

use crate::process::forks::{
    Descriptor, {self},
};

/// Sends reports to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    socket: Arc<Descriptor>,
}

impl Reporter {
    /// Reports on `socket`.
    pub(crate) fn new(socket: Descriptor) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// Sends a report to the gateway. If the gateway has exited, the kernel soon kills this
    /// process.
    pub(crate) fn send(&self, report: &Report) {
        self.try_send(report);
    }

    /// Sends a report to the gateway. Returns whether that was possible: the application may have
    /// closed the socket.
    pub(crate) fn try_send(&self, report: &Report) -> bool {
        !forks::is_child()
            && report
                .encode()
                .is_ok_and(|packet| send(&self.socket, &packet, SendFlags::NOSIGNAL).is_ok())
    }

    /// The socket, which the gateway's exit closes.
    pub(crate) fn socket(&self) -> &Descriptor {
        &self.socket
    }

    /// The reason for which the gateway wants the request to end, if any.
    pub(crate) fn stop(&self) -> Option<StopReason> {
        let mut packet = [0; PACKET_BYTES];
        let (length, _) = recv(&self.socket, &mut packet[..], RecvFlags::DONTWAIT).ok()?;
        StopReason::decode(&packet[..length])
    }
}
