//! A web server in front of a pool for each script.

use crate::support::web_servers::{
    Habits, WebServer, pools::Pools, server::ServerProcess, site::WebSite,
};

/// A running web server and its pools.
pub(crate) struct BehindPools {
    server: ServerProcess,
    pools: Pools,
    site: WebSite,
    habits: Habits,
}

impl BehindPools {
    /// Wraps a started web server and its pools.
    pub(crate) fn new(server: ServerProcess, pools: Pools, site: WebSite, habits: Habits) -> Self {
        Self { server, pools, site, habits }
    }

    /// Adds arguments for the pools.
    pub(crate) fn with_words(self, args: &[&str]) -> Self {
        Self { pools: self.pools.with_words(args), ..self }
    }

    /// Sets `script` as the application at the root, and starts its pool.
    pub(crate) fn at_the_root(self, script: &str) -> Self {
        self.pools.want(&self.site, script);
        self
    }
}

impl WebServer for BehindPools {
    fn site(&self) -> &WebSite {
        &self.site
    }

    fn url(&self, path: &str) -> String {
        self.pools.want_for(&self.site, path);
        self.server.url(path)
    }

    fn log(&self) -> String {
        self.server.log()
    }

    fn stop(&mut self) -> String {
        self.server.stop();
        self.pools.stop();
        self.server.log()
    }

    fn habits(&self) -> Habits {
        self.habits
    }

    fn ports(&self) -> Vec<u16> {
        self.pools.ports()
    }
}
