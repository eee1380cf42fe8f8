//! A web server for each script that is asked for, where a configuration is for one application.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, PoisonError},
};

use crate::support::web_servers::{
    Habits, WebServer,
    pools::{Pools, script_of},
    server::Server,
    site::Site,
};

/// Starts the server of a script, whose pool has a port if it is not at a Unix socket.
pub(crate) type Start = fn(&Site, &str, Option<u16>) -> Server;

/// Running web servers, by the names of their scripts.
pub(crate) struct ServerEach {
    servers: Mutex<BTreeMap<String, Server>>,
    start: Start,
    /// For servers that start no processes of their own.
    pools: Option<Pools>,
    /// The script that is at the root, if it is not each at its own address.
    at_the_root: Option<String>,
    site: Site,
    habits: Habits,
}

impl ServerEach {
    /// None yet: `start` starts the one of a script. All have the log `run/error.log`.
    pub(crate) fn new(site: Site, start: Start, pools: Option<Pools>, habits: Habits) -> Self {
        fs::File::options().create(true).append(true).open(site.path("run/error.log")).unwrap();
        Self { servers: Mutex::default(), start, pools, at_the_root: None, site, habits }
    }

    /// With `script` alone, whatever is asked for.
    pub(crate) fn at_the_root(mut self, script: &str) -> Self {
        self.at_the_root = Some(script.to_owned());
        self
    }
}

impl WebServer for ServerEach {
    fn site(&self) -> &Site {
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
