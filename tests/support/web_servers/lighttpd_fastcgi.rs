//! lighttpd, configured by `web-servers/lighttpd-fastcgi.conf` as it stands: it starts the scripts
//! itself.

use std::fs;

use crate::support::web_servers::{
    Habits,
    server::{ServerProcess, command},
    server_each::ServerEach,
    site::{ServerUser, WebSite},
    source,
};

/// lighttpd with a process for the script: it starts all that its configuration names, whether
/// asked for or not.
pub(crate) struct LighttpdFastcgi;

impl LighttpdFastcgi {
    /// Starts a server for each requested script, over one site.
    pub(crate) fn start() -> ServerEach {
        ServerEach::new(WebSite::new(), server, None, Habits::default())
    }
}

fn server(site: &WebSite, script: &str, _: Option<u16>) -> ServerProcess {
    let log = site.path("run/error.log");
    ServerProcess::start(&site.path(&format!("run/{script}.pid")), &log, |port| {
        let configuration = site.path(&format!("run/{script}.conf"));
        fs::write(&configuration, lighttpd_conf(site, script, port)).unwrap();
        let mut command = command("lighttpd", &log);
        command.arg("-D").arg("-f").arg(configuration).env("DJANGO_DATA", site.path("var"));
        command
    })
}

fn lighttpd_conf(site: &WebSite, script: &str, port: u16) -> String {
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let user = ServerUser::get()
        .map_or_else(String::new, |user| format!("server.username = \"{}\"\n", user.name));
    format!(
        r#"server.bind = "127.0.0.1"
server.port = {port}
{user}server.document-root = "{root}/htdocs"
server.pid-file = "{root}/run/{script}.pid"
server.upload-dirs = ( "{root}/var" )
server.modules = ( )
var.wsgate_mount = "/cgi-bin/{script}"
var.wsgate_script = "{root}/cgi-bin/{script}"
var.wsgate_socket = "{root}/var/{script}.sock"
include "{}"
"#,
        source("web-servers/lighttpd-fastcgi.conf").display()
    )
}
