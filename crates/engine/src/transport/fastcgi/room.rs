//! Waiting for room in a socket, while the web server may wait for a reader of the request body.

use std::io;

use rustix::event::PollFlags;

use crate::transport::fastcgi::{
    shared::{ConnectionState, SharedConnection},
    socket::wait_for_socket,
};

/// Bytes can be sent, or have arrived.
const READ_OR_WRITE: PollFlags = PollFlags::OUT.union(PollFlags::IN);

/// Waits until bytes can be sent, and spools the body that arrives meanwhile.
pub(super) fn wait_and_spool(shared: &SharedConnection) -> io::Result<()> {
    let socket = shared.own_socket()?;
    loop {
        let (may_continue, interruptible, limit) = {
            let mut state = shared.state();
            let ConnectionState { records, request, socket_timeout, .. } = &mut *state;
            let may_continue = match request {
                Some(request) => request.may_continue(records, socket)?,
                None => false,
            };
            let interruptible = request.as_ref().map(|request| request.interruptible().clone());
            (may_continue, interruptible, *socket_timeout)
        };
        let events = if may_continue { READ_OR_WRITE } else { PollFlags::OUT };
        let ready = wait_for_socket(socket, events, interruptible.as_ref(), limit)?;
        if ready.contains(PollFlags::IN) {
            let mut state = shared.state();
            let ConnectionState { records, request, .. } = &mut *state;
            request.iter_mut().try_for_each(|request| request.spool_available(records, socket))?;
        }
        if ready != PollFlags::IN {
            return Ok(());
        }
    }
}
