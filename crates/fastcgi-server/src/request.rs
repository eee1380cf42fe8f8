//! An active request of a connection, and its next input (FastCGI 1.0, 6.1 to 6.3).

use std::mem;

use crate::{
    bodies::Role,
    events::Event,
    limits::Limits,
    params::{Params, ParamsError},
    record::RequestId,
};

/// A request whose id is active.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    pub(crate) id: RequestId,
    pub(crate) role: Role,
    pub(crate) keep_connection: bool,
    pub(crate) aborted: bool,
    pub(crate) phase: Phase,
    pub(crate) params: Vec<u8>,
    /// Bytes of the body that have arrived.
    pub(crate) length: u64,
}

/// The next input of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Params,
    /// Parameters above the limit, which are dropped.
    Overlong,
    Body,
    Over,
}

impl ActiveRequest {
    /// A request that has just begun, with an empty buffer for its parameters.
    pub(crate) fn new(id: RequestId, role: Role, keep_connection: bool, params: Vec<u8>) -> Self {
        Self { id, role, keep_connection, aborted: false, phase: Phase::Params, params, length: 0 }
    }

    /// Ends the parameters.
    pub(crate) fn end_params<'i>(&mut self, limits: Limits) -> Event<'i> {
        let id = self.id;
        let params = match self.phase {
            Phase::Overlong => Err(ParamsError::TooLong { limit: limits.params_bytes }),
            _ => Params::new(mem::take(&mut self.params), limits.params_count),
        };
        match params {
            Ok(params) => {
                self.phase = if self.role.has_stdin() { Phase::Body } else { Phase::Over };
                Event::Params { id, params }
            }
            Err(error) => {
                self.phase = Phase::Over;
                Event::BadParams { id, error }
            }
        }
    }

    /// Ends the body.
    pub(crate) fn end_body<'i>(&mut self) -> Event<'i> {
        self.phase = Phase::Over;
        Event::StdinEnd { id: self.id, length: self.length }
    }
}
