//! The body of a FastCGI request, for the application.

use std::{io, sync::Arc};

use crate::{
    transport::fastcgi::shared::{ConnectionState, SharedConnection},
    wsgi::BodySource,
};

/// The body of a request.
pub(crate) struct FastCgiBody {
    shared: Arc<SharedConnection>,
}

impl FastCgiBody {
    /// The body of the request that the connection serves.
    pub(super) fn of(shared: &Arc<SharedConnection>) -> Self {
        Self { shared: shared.clone() }
    }
}

impl BodySource for FastCgiBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let socket = self.shared.own_socket()?;
        let mut state = self.shared.state();
        let ConnectionState { records, request, socket_timeout, .. } = &mut *state;
        match request {
            Some(request) => request.read(records, socket, *socket_timeout, into),
            None => Ok(0),
        }
    }

    fn length(&self) -> Option<u64> {
        let mut state = self.shared.state();
        let ConnectionState { records, request, .. } = &mut *state;
        request.as_mut()?.length(records, self.shared.socket())
    }
}
