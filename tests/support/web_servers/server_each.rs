//! A web server for each script that is asked for, where a configuration is for one application.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, PoisonError},
};

use crate::support::web_servers::{
    Habits, WebServer,
    pools::{Pools, script_of},
    server::ServerProcess,
    site::WebSite,
};

/// Starts the server of a script, whose pool has a port if it is not at a Unix socket.
pub(crate) type Start = fn(&WebSite, &str, Option<u16>) -> ServerProcess;

/// Running web servers, by the names of their scripts.
pub(crate) struct ServerEach {
    servers: Mutex<BTreeMap<String, ServerProcess>>,
    start: Start,
    /// For servers that start no processes of their own.
    pools: Option<Pools>,
    /// The script that is at the root, if it is not each at its own address.
    at_the_root: Option<String>,
    site: WebSite,
    habits: Habits,
}

impl ServerEach {
    /// Creates the set without a server. `start` starts the server of a script. All servers share
    /// the log `run/error.log`.
    pub(crate) fn new(site: WebSite, start: Start, pools: Option<Pools>, habits: Habits) -> Self {
        fs::File::options().create(true).append(true).open(site.path("run/error.log")).unwrap();
        Self { servers: Mutex::default(), start, pools, at_the_root: None, site, habits }
    }

    /// Sets `script` as the only application, for all paths.
    pub(crate) fn at_the_root(mut self, script: &str) -> Self {
        self.at_the_root = Some(script.to_owned());
        self
    }
}

impl WebServer for ServerEach {
    fn site(&self) -> &WebSite {
        &self.site
    }

    fn url(&self, path: &str) -> String {
        let script = self.at_the_root.as_deref().or_else(|| script_of(&self.site, path));
        let script = script.unwrap_or_else(|| panic!("{path} asks for no script"));
        if let Some(pools) = &self.pools {
            pools.want(&self.site, script);
        }
        let port = self.pools.as_ref().and_then(|pools| pools.port(script));
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers
            .entry(script.to_owned())
            .or_insert_with(|| (self.start)(&self.site, script, port))
            .url(path)
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.site.path("run/error.log")).unwrap()).into_owned()
    }

    fn stop(&mut self) -> String {
        self.servers.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(pools) = &mut self.pools {
            pools.stop();
        }
        self.log()
    }

    fn habits(&self) -> Habits {
        self.habits
    }
}
