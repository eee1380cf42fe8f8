//! HAProxy, configured by `web-servers/haproxy.cfg` as it stands, in front of pools.

use std::fs;

use crate::support::web_servers::{
    Habits,
    pools::Pools,
    server::{ServerProcess, command},
    server_each::{ServerEach, Start},
    site::{ServerUser, WebSite},
    source,
};

/// HAProxy.
pub(crate) struct Haproxy;

impl Haproxy {
    /// Starts a server for each requested script, over one site.
    pub(crate) fn start() -> ServerEach {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, script, port| {
            server(site, script, &format!("/cgi-bin/{script}"), port, "")
        })
    }

    /// Starts servers whose frontend accepts Ada's password only.
    pub(crate) fn with_passwords() -> ServerEach {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, script, port| {
            server(site, script, &format!("/cgi-bin/{script}"), port, CHECKS_PASSWORDS)
        })
    }

    /// Starts the web server with `script` alone, at the root, over TCP.
    pub(crate) fn at_the_root(script: &str) -> ServerEach {
        let site = WebSite::new();
        let pools = Pools::over_tcp(&site, &site.path("run/error.log"));
        Self::with(site, pools, |site, script, port| server(site, script, "", port, ""))
            .at_the_root(script)
    }

    fn with(site: WebSite, pools: Pools, start: Start) -> ServerEach {
        // HAProxy sends each value as a parameter of its own, and a chunked body only once its
        // buffer has the whole body.
        let habits = Habits {
            joins_repeated_headers: false,
            keeps_connections: true,
            most_in_chunks: Some(8192),
        };
        ServerEach::new(site, start, Some(pools), habits)
    }
}

/// Lines of a frontend.
const CHECKS_PASSWORDS: &str = "    http-request auth unless { http_auth(users) }
    http-request set-var(txn.wsgate_user) http_auth_user
    http-request set-var(txn.wsgate_auth_type) str(Basic)
userlist users
    user ada insecure-password lovelace
";

fn server(
    site: &WebSite,
    script: &str,
    mount: &str,
    pool_port: Option<u16>,
    lines: &str,
) -> ServerProcess {
    let pool = match pool_port {
        Some(port) => format!("127.0.0.1:{port}"),
        None => format!("unix@{}", Pools::socket(site, script).display()),
    };
    let log = site.path("run/error.log");
    let pid_file = site.path(&format!("run/{script}.pid"));
    ServerProcess::start(&pid_file, &log, |port| {
        let configuration = site.path(&format!("run/{script}.cfg"));
        fs::write(&configuration, frontend(&pool, mount, port) + lines).unwrap();
        let mut command = command("haproxy", &log);
        // A master, which writes the file with its number once its worker listens.
        command.arg("-W").arg("-p").arg(&pid_file);
        command.arg("-f").arg(configuration).arg("-f").arg(source("web-servers/haproxy.cfg"));
        command
    })
}

/// All that is the test's own: who, where, and which pool.
fn frontend(pool: &str, mount: &str, port: u16) -> String {
    let user = ServerUser::get().map_or_else(String::new, |ServerUser { uid, gid, .. }| {
        format!("    uid {uid}\n    gid {gid}\n")
    });
    let (setting, rule) = match mount {
        "" => (String::new(), "default_backend wsgate".to_owned()),
        _ => (
            format!("    setenv WSGATE_MOUNT {mount}\n"),
            format!("use_backend wsgate if {{ path {mount} }} or {{ path_beg {mount}/ }}"),
        ),
    };
    format!(
        r#"global
{user}    log stderr format raw local0 warning
{setting}    setenv WSGATE_POOL {pool}
frontend www
    mode http
    log global
    timeout client 60s
    bind 127.0.0.1:{port}
    {rule}
"#
    )
}
