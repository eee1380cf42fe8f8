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
    server::{ServerProcess, command},
    site::{ServerUser, WebSite},
    source,
};

/// Caddy.
pub(crate) struct Caddy;

impl Caddy {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, _| {
            let line = |script: &String| {
                let socket = Pools::socket(site, script);
                format!("\timport wsgate /cgi-bin/{script} unix/{}\n", socket.display())
            };
            scripts(site).iter().map(line).collect()
        })
    }

    /// Starts Caddy with more lines in the proxy of each script.
    pub(crate) fn with_lines(lines: &str) -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, _| {
            let line = |script: &String| {
                let socket = Pools::socket(site, script);
                let split = format!("transport fastcgi {{\n split /cgi-bin/{script}\n }}");
                format!(
                    "handle /cgi-bin/{script} {{\n reverse_proxy unix/{} {{\n {split}\n {lines}\n \
                     }}\n }}\n",
                    socket.display()
                )
            };
            scripts(site).iter().map(line).collect()
        })
    }

    /// Starts the web server with `script` alone, at the root, over TCP.
    pub(crate) fn at_the_root(script: &str) -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::over_tcp(&site, &site.path("run/error.log"));
        let line = |_: &WebSite, pools: &Pools| {
            let port = pools.port(script).unwrap();
            format!("\timport wsgate_at_root 127.0.0.1:{port}\n")
        };
        Self::with(site, pools, line).at_the_root(script)
    }

    fn with(
        site: WebSite,
        pools: Pools,
        lines: impl Fn(&WebSite, &Pools) -> String,
    ) -> BehindPools {
        let log = site.path("run/error.log");
        // Caddy writes its pid file and its last configuration as the user that it runs as.
        let own = site.path("run/caddy");
        fs::create_dir(&own).unwrap();
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            chown(&own, Some(uid), Some(gid)).unwrap();
        }
        let server = ServerProcess::start(&own.join("pid"), &log, |port| {
            let configuration = site.path("run/Caddyfile");
            fs::write(&configuration, caddyfile(port, &lines(&site, &pools))).unwrap();
            let mut command = command("caddy", &log);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(configuration);
            command.arg("--pidfile").arg(own.join("pid"));
            for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
                command.env(name, &own);
            }
            // Caddy does not change its user by itself.
            if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
                command.uid(uid).gid(gid);
            }
            command
        });
        // Caddy opens a connection for each request.
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
