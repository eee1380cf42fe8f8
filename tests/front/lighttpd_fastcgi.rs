//! lighttpd, configured by `apache/lighttpd-fastcgi.conf` as it stands: it starts the scripts itself.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use super::pools::script_of;
use super::server::{Server, command};
use super::site::{ServerUser, Site};
use super::{Front, source};

/// A lighttpd for each script that is asked for: it starts all that its configuration names, whether asked for or not.
pub(crate) struct LighttpdFastcgi {
    servers: Mutex<BTreeMap<String, Server>>,
    site: Site,
}

impl LighttpdFastcgi {
    /// Starts none yet, over a site of its own.
    pub(crate) fn start() -> Self {
        let site = Site::new();
        fs::write(site.path("run/error.log"), "").unwrap();
        Self { servers: Mutex::default(), site }
    }

    fn server(&self, script: &str) -> Server {
        let log = self.site.path("run/error.log");
        Server::start(&self.site.path(&format!("run/{script}.pid")), &log, |port| {
            let configuration = self.site.path(&format!("run/{script}.conf"));
            fs::write(&configuration, lighttpd_conf(&self.site, script, port)).unwrap();
            let mut command = command("lighttpd", &log);
            command.arg("-D").arg("-f").arg(configuration).env("DJANGO_DB", self.site.path("var/django.sqlite3"));
            command
        })
    }
}

impl Front for LighttpdFastcgi {
    fn site(&self) -> &Site {
        &self.site
    }

    fn url(&self, path: &str) -> String {
        let script = script_of(&self.site, path).unwrap_or_else(|| panic!("{path} asks for no script"));
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.entry(script.to_owned()).or_insert_with(|| self.server(script)).url(path)
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.site.path("run/error.log")).unwrap()).into_owned()
    }

    fn stop(&mut self) -> String {
        self.servers.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        self.log()
    }
}

fn lighttpd_conf(site: &Site, script: &str, port: u16) -> String {
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let user = ServerUser::get().map_or_else(String::new, |user| format!("server.username = \"{}\"\n", user.name));
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
        source("apache/lighttpd-fastcgi.conf").display()
    )
}
