//! Connections that workers have given away and none has taken ([`wire::connection_queue`]).

use std::os::fd::AsFd as _;

use rustix::net::{RecvFlags, recv};
use wire::connection_queue::{ConnectionHistory, QueuedConnection};

use crate::pool::supervisor::Supervisor;

impl Supervisor<'_> {
    /// While there is no worker: closes the connections that nothing more has come on, since nobody
    /// would notice it if something did. Tells whether there are others, on which requests wait or
    /// are about to come; these stay.
    pub(super) fn sort_given(&self) -> bool {
        let Some(handover) = &self.handover else {
            return false;
        };
        let mut waiting = Vec::new();
        while let Ok(Some(given)) = handover.pop() {
            waiting.extend(
                Some(given)
                    .filter(|given| given.history == ConnectionHistory::New || has_more(given)),
            );
        }
        // What cannot be given back is closed, as it would be by a worker.
        waiting.retain(|given| handover.push(given.socket.as_fd(), given.history).is_ok());
        !waiting.is_empty()
    }

    /// Closes them all: the application's own children, which may live on, have the socket that
    /// holds them, too.
    pub(super) fn close_given(&self) {
        if let Some(handover) = &self.handover {
            while let Ok(Some(given)) = handover.pop() {
                drop(given);
            }
        }
    }
}

/// Has something come on it that nobody has read?
fn has_more(given: &QueuedConnection) -> bool {
    matches!(recv(&given.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((1.., _)))
}
