//! The bytes on `FCGI_STDOUT` for a request, complete or cut.

use crate::support::{
    fastcgi_client::{FastcgiRequest, Received},
    pool::Pool,
};

/// The bytes on `FCGI_STDOUT`, and how they ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    /// The request ended as FastCGI says, rather than with the connection.
    pub(crate) ended: bool,
}

impl Pool {
    /// The output of a request in the role with the number `role`, whose parameters are those of an
    /// ordinary one but for `params`.
    #[track_caller]
    pub(crate) fn output(&self, role: u16, params: &[(&str, &str)], body: &[u8]) -> Output {
        let request = params
            .iter()
            .fold(FastcgiRequest::get("/").role(role).body(body), |request, (name, value)| {
                request.param(name, value)
            });
        let mut connection = self.connect();
        let sent = connection.send_beside(request.bytes());
        let (mut stdout, mut ended) = (Vec::new(), false);
        while !ended {
            match connection.try_next() {
                Ok(Some(Received::Stdout(_, bytes))) => stdout.extend(bytes),
                Ok(Some(Received::End(..))) => ended = true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // A request that was refused may be cut while it is sent.
        drop(sent.join().unwrap());
        Output { stdout, ended }
    }
}
