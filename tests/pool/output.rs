//! What comes on a pool's standard output for a request, whole or cut.

use crate::support::{
    fastcgi_client::{Ask, Said},
    pool::Pool,
};

/// What came on `FCGI_STDOUT`.
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
        let ask = params
            .iter()
            .fold(Ask::get("/").role(role).body(body), |ask, (name, value)| ask.param(name, value));
        let mut wire = self.connect();
        let sent = wire.send_beside(ask.bytes());
        let (mut stdout, mut ended) = (Vec::new(), false);
        while !ended {
            match wire.try_next() {
                Ok(Some(Said::Stdout(_, bytes))) => stdout.extend(bytes),
                Ok(Some(Said::End(..))) => ended = true,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        // A request that was refused may be cut while it is sent.
        drop(sent.join().unwrap());
        Output { stdout, ended }
    }
}
