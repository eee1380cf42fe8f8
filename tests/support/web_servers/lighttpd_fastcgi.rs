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
        let start = |site: &WebSite, script: &str, _: Option<u16>| server(site, script, "");
        ServerEach::new(WebSite::new(), start, None, Habits::default())
    }

    /// Starts a server for the script, whose entry in the configuration has more `lines`.
    pub(crate) fn with_lines(site: &WebSite, script: &str, lines: &str) -> ServerProcess {
        server(site, script, lines)
    }
}

fn server(site: &WebSite, script: &str, lines: &str) -> ServerProcess {
    let log = site.path("run/error.log");
    ServerProcess::start(&site.path(&format!("run/{script}.pid")), &log, |port| {
        let configuration = site.path(&format!("run/{script}.conf"));
        fs::write(&configuration, lighttpd_conf(site, script, port, lines)).unwrap();
        let mut command = command("lighttpd", &log);
        command.arg("-D").arg("-f").arg(configuration).env("DJANGO_DATA", site.path("var"));
        command
    })
}

fn lighttpd_conf(site: &WebSite, script: &str, port: u16, lines: &str) -> String {
    let included = site.path(&format!("run/{script}.included.conf"));
    let text = fs::read_to_string(source("web-servers/lighttpd-fastcgi.conf")).unwrap();
    let last = "    \"check-local\" => \"disable\",\n";
    assert!(text.contains(last), "{text}");
    fs::write(&included, text.replace(last, &format!("{last}{lines}"))).unwrap();
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
        included.display()
    )
}
