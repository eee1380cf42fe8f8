//! A FastCGI request as bytes, whole or in parts.

use fastcgi_server::{RequestId, client::Request, pairs};

use crate::support::probe::ORDINARY;

/// Types of records (FastCGI 1.0, 8).
pub(crate) const BEGIN_REQUEST: u8 = 1;

pub(crate) const ABORT_REQUEST: u8 = 2;

pub(crate) const PARAMS: u8 = 4;

pub(crate) const STDIN: u8 = 5;

pub(crate) const GET_VALUES: u8 = 9;

/// A request in the making.
#[derive(Clone)]
pub(crate) struct FastcgiRequest {
    pub(crate) id: u16,
    role: u16,
    keep: bool,
    pub(crate) params: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl FastcgiRequest {
    /// A `GET` over a connection that is closed afterwards.
    pub(crate) fn get(path: &str) -> Self {
        let request = Self { id: 1, role: 1, keep: false, params: Vec::new(), body: Vec::new() };
        let ordinary =
            ORDINARY.into_iter().filter(|(name, _)| !["PATH", "SCRIPT_FILENAME"].contains(name));
        let request = ordinary.fold(request, |request, (name, value)| request.param(name, value));
        request.param("SCRIPT_NAME", "").param("PATH_INFO", path).param("REQUEST_URI", path)
    }

    /// A `POST` with this body.
    pub(crate) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let request = Self::get(path)
            .param("REQUEST_METHOD", "POST")
            .param("CONTENT_LENGTH", body.len().to_string());
        Self { body, ..request }
    }

    /// Sets another id than 1.
    pub(crate) fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// Sets another role than responder.
    pub(crate) fn role(self, role: u16) -> Self {
        Self { role, ..self }
    }

    /// Asks for a keep-alive connection.
    pub(crate) fn keep(self) -> Self {
        Self { keep: true, ..self }
    }

    /// Sets the body and leaves the parameters unchanged.
    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Sets a parameter.
    pub(crate) fn param(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.params.retain(|(known, _)| known != name);
        self.params.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes a parameter.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.params.retain(|(known, _)| known != name);
        self
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.before_body();
        if self.role != 2 {
            bytes.extend(self.stdin(&self.body));
            bytes.extend(self.end_of_stdin());
        }
        bytes
    }

    /// All before the body.
    pub(crate) fn before_body(&self) -> Vec<u8> {
        let mut bytes = self.begin();
        Request::new(RequestId::new(self.id).unwrap())
            .append_params(self.params.iter().map(|(name, value)| (name, value)), &mut bytes)
            .unwrap();
        bytes
    }

    /// `FCGI_BEGIN_REQUEST`.
    pub(crate) fn begin(&self) -> Vec<u8> {
        let [high, low] = self.role.to_be_bytes();
        record(BEGIN_REQUEST, self.id, &[high, low, u8::from(self.keep), 0, 0, 0, 0, 0])
    }

    /// The parameters as they stand in their stream.
    pub(crate) fn pairs(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in &self.params {
            pairs::append(name.as_bytes(), value, &mut bytes).unwrap();
        }
        bytes
    }

    /// `content` as records of `FCGI_STDIN`.
    pub(crate) fn stdin(&self, content: &[u8]) -> Vec<u8> {
        content.chunks(0xffff).flat_map(|piece| record(STDIN, self.id, piece)).collect()
    }

    /// The end of `FCGI_STDIN`.
    pub(crate) fn end_of_stdin(&self) -> Vec<u8> {
        record(STDIN, self.id, b"")
    }

    /// `FCGI_ABORT_REQUEST`.
    pub(crate) fn abort(&self) -> Vec<u8> {
        record(ABORT_REQUEST, self.id, b"")
    }
}

/// A record.
pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let mut record = vec![1, kind];
    record.extend(id.to_be_bytes());
    record.extend(length.to_be_bytes());
    record.extend([0, 0]);
    record.extend(content);
    record
}
