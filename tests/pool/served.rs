//! A pool for tests of what an application answers, whichever mode it runs in.

use std::os::unix::net::UnixListener;

use super::{
    process::{Pool, Setup},
    wire::{Ask, Said},
};

/// A pool or a lone worker that runs.
pub(crate) struct Served {
    pool: Pool,
}

/// What came on `FCGI_STDOUT`.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    /// The request ended as FastCGI says, rather than with the connection.
    pub(crate) ended: bool,
}

impl Served {
    /// A pool with more words on its command line.
    pub(crate) fn start(code: &str, words: &[&str]) -> Self {
        Self { pool: Setup::new(code).words(words).start() }
    }

    /// One worker on a listening standard input, as process managers start it.
    pub(crate) fn start_lone(code: &str) -> Self {
        let setup = Setup::new(code);
        let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
        Self { pool: setup.dynamic(&[]).start_on(listener) }
    }

    /// What comes of a request in the role with the number `role`, whose parameters are those of an ordinary one but for `params`.
    #[track_caller]
    pub(crate) fn ask(&self, role: u16, params: &[(&str, &str)], body: &[u8]) -> Output {
        let ask = params.iter().fold(Ask::get("/").role(role).body(body), |ask, (name, value)| ask.param(name, value));
        let mut wire = self.pool.connect();
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

    /// What the log says in the end.
    pub(crate) fn stop(self) -> String {
        self.pool.stop()
    }
}
