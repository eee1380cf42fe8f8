//! One web server in front of a pool for each script.

use crate::support::web_servers::{Habits, WebServer, pools::Pools, server::Server, site::Site};

/// A running web server and its pools.
pub(crate) struct BehindPools {
    server: Server,
    pools: Pools,
    site: Site,
    habits: Habits,
}

impl BehindPools {
    /// What has been started, and what is to be known of it.
    pub(crate) fn new(server: Server, pools: Pools, site: Site, habits: Habits) -> Self {
        Self { server, pools, site, habits }
    }

    /// With more words for the command lines of the pools.
    pub(crate) fn with_words(self, words: &[&str]) -> Self {
        Self { pools: self.pools.with_words(words), ..self }
    }

    /// With the pool of `script`, which is at the root.
    pub(crate) fn at_the_root(self, script: &str) -> Self {
        self.pools.want(&self.site, script);
        self
    }
}

impl WebServer for BehindPools {
    fn site(&self) -> &Site {
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
