//! A FastCGI request whose parameters have arrived.

use fastcgi_server::{Params, RequestId};

use crate::transport::Request;

/// A request that can be served.
pub(crate) struct FastCgiRequest {
    id: RequestId,
    params: Params,
    has_body: bool,
}

impl FastCgiRequest {
    /// The request `id`. `has_body` if its role has a body.
    pub(super) fn new(id: RequestId, params: Params, has_body: bool) -> Self {
        Self { id, params, has_body }
    }

    /// The request's id on its connection.
    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    /// May the request have a body?
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// The parameters, to reuse their buffer.
    pub(super) fn into_params(self) -> Params {
        self.params
    }
}

impl Request for FastCgiRequest {
    /// Go's HTTP server uses the length -1 for a body of unknown length, and Caddy passes that on.
    /// The stream has its own end (FastCGI 1.0, 5.3).
    fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.params.iter().filter(|pair| *pair != (b"CONTENT_LENGTH", b"-1"))
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.params.get(name)
    }

    fn has_nul(&self) -> bool {
        self.params.with_nul().is_some()
    }
}
