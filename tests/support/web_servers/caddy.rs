//! Caddy, configured by `web-servers/caddy.Caddyfile` as it stands, in front of pools.

use std::{
    fmt::Write as _,
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
};

use crate::support::web_servers::{
    Habits,
    behind_pools::BehindPools,
    pools::{Pools, scripts},
    server::{Server, command},
    site::{ServerUser, Site},
    source,
};

/// Caddy.
pub(crate) struct Caddy;

impl Caddy {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> BehindPools {
        let site = Site::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, _| {
            let line = |script: &String| {
                let socket = Pools::socket(site, script);
                format!("\timport wsgate /cgi-bin/{script} unix/{}\n", socket.display())
            };
            scripts(site).iter().map(line).collect()
        })
    }

    /// With `script` alone, at the root, over TCP.
    pub(crate) fn at_the_root(script: &str) -> BehindPools {
        let site = Site::new();
        let pools = Pools::over_tcp(&site, &site.path("run/error.log"));
        let line = |_: &Site, pools: &Pools| {
            let port = pools.port(script).unwrap();
            format!("\timport wsgate_at_root 127.0.0.1:{port}\n")
        };
        Self::with(site, pools, line).at_the_root(script)
    }

    fn with(site: Site, pools: Pools, lines: impl Fn(&Site, &Pools) -> String) -> BehindPools {
        let log = site.path("run/error.log");
        // It writes its pid file as the user that it runs as, and the configuration that it has had
        // last.
        let own = site.path("run/caddy");
        fs::create_dir(&own).unwrap();
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            chown(&own, Some(uid), Some(gid)).unwrap();
        }
        let server = Server::start(&own.join("pid"), &log, |port| {
            let configuration = site.path("run/Caddyfile");
            fs::write(&configuration, caddyfile(port, &lines(&site, &pools))).unwrap();
            let mut command = command("caddy", &log);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(configuration);
            command.arg("--pidfile").arg(own.join("pid"));
            for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
                command.env(name, &own);
            }
            // It changes no user by itself.
            if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
                command.uid(uid).gid(gid);
            }
            command
        });
        // Each request has a connection of its own.
        BehindPools::new(server, pools, site, Habits::default())
    }
}

/// All that is the test's own: where, and which pool at which address. Nothing is fetched, and
/// nothing else listens.
fn caddyfile(port: u16, lines: &str) -> String {
    let mut text = "{\n\tadmin off\n\tauto_https off\n\tlog {\n\t\tlevel WARN\n\t}\n}\n".to_owned();
    let file = source("web-servers/caddy.Caddyfile");
    write!(
        text,
        "import {}\nhttp://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n{lines}}}\n",
        file.display()
    )
    .unwrap();
    text
}
