//! Real web servers with the built binary behind them, started and ended by the test that wants
//! one.
//!
//! A test gets a server of its own: its log is the test's alone, and nothing outlives it.

pub(crate) mod apache;
pub(crate) mod apache_fastcgi;
pub(crate) mod behind_pools;
pub(crate) mod caddy;
pub(crate) mod client;
pub(crate) mod haproxy;
pub(crate) mod lighttpd;
pub(crate) mod lighttpd_fastcgi;
pub(crate) mod nginx;
pub(crate) mod pools;
pub(crate) mod server;
pub(crate) mod server_each;
pub(crate) mod site;
pub(crate) mod warm;

use std::path::{Path, PathBuf};

use crate::support::web_servers::server::ServerProcess;
pub(crate) use crate::support::{
    waiting::{eventually, exists, exits_within, wait_for_exit},
    web_servers::{
        apache::{Apache, ApacheSetup, CgiModule},
        apache_fastcgi::{ApacheFcgid, ApacheProxyFcgi},
        caddy::Caddy,
        client::{HttpClient, HttpResponse},
        haproxy::Haproxy,
        lighttpd::Lighttpd,
        lighttpd_fastcgi::LighttpdFastcgi,
        nginx::Nginx,
        site::WebSite,
        warm::Warm,
    },
};

/// A web server that runs WSGI files.
pub(crate) trait WebServer {
    /// The files that it serves.
    fn site(&self) -> &WebSite;

    /// The address of `path`, which begins with a slash.
    fn url(&self, path: &str) -> String;

    /// What stands in its error log by now.
    fn log(&self) -> String;

    /// Ends the server, so that nothing is written to the log any more, and reads it.
    fn stop(&mut self) -> String;

    /// The properties in which this server differs.
    fn habits(&self) -> Habits {
        Habits::default()
    }

    /// The ports of what is behind it, over TCP.
    fn ports(&self) -> Vec<u16> {
        Vec::new()
    }

    /// Asks for a script of cgi-bin: `rest` is the script's name and all that comes after it.
    fn script(&self, rest: &str) -> String {
        self.url(&format!("/cgi-bin/{rest}"))
    }
}

/// A web server of one process, which starts all others by itself.
pub(crate) trait SingleServer {
    /// The files that it serves.
    fn site(&self) -> &WebSite;

    fn server(&self) -> &ServerProcess;

    fn server_mut(&mut self) -> &mut ServerProcess;
}

impl<T: SingleServer> WebServer for T {
    fn site(&self) -> &WebSite {
        SingleServer::site(self)
    }

    fn url(&self, path: &str) -> String {
        self.server().url(path)
    }

    fn log(&self) -> String {
        self.server().log()
    }

    fn stop(&mut self) -> String {
        self.server_mut().stop();
        self.server().log()
    }
}

/// The properties in which web servers differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The values of a header that comes more than once are joined (RFC 3875 4.1.18).
    pub(crate) joins_repeated_headers: bool,
    /// A connection to a process behind it serves more than one request (FastCGI 1.0, 5.1).
    pub(crate) keeps_connections: bool,
    /// Bytes of a body in chunks that pass for certain, where larger ones are refused.
    pub(crate) most_in_chunks: Option<usize>,
}

impl Default for Habits {
    fn default() -> Self {
        Self { joins_repeated_headers: true, keeps_connections: false, most_in_chunks: None }
    }
}

/// A file of the source tree.
pub(crate) fn source(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The virtualenv with Flask and Django that `tests/setup.sh` makes.
pub(crate) fn venv() -> PathBuf {
    let venv = std::env::var_os("WSGATE_TEST_VENV").map_or_else(
        || {
            PathBuf::from(format!(
                "/var/tmp/wsgate-test-{}/venv",
                rustix::process::getuid().as_raw()
            ))
        },
        PathBuf::from,
    );
    assert!(
        venv.join("bin/python").exists(),
        "no virtualenv in {}: run tests/setup.sh",
        venv.display()
    );
    venv
}
