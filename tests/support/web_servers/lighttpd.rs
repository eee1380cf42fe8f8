//! lighttpd, configured by `web-servers/lighttpd.conf` as it stands.

use std::fs;

use crate::support::web_servers::{
    SingleServer,
    server::{ServerProcess, command},
    site::{ServerUser, WebSite},
    source,
};

/// A running lighttpd.
pub(crate) struct Lighttpd {
    server: ServerProcess,
    site: WebSite,
}

impl Lighttpd {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> Self {
        Self::over(WebSite::new())
    }

    /// Starts one over the files of `site`.
    pub(crate) fn over(site: WebSite) -> Self {
        let log = site.path("run/error.log");
        let server = ServerProcess::start(&site.path("run/lighttpd.pid"), &log, |port| {
            let configuration = site.path("run/lighttpd.conf");
            fs::write(&configuration, lighttpd_conf(&site, port)).unwrap();
            let mut command = command("lighttpd", &log);
            command.arg("-D").arg("-f").arg(configuration);
            command
        });
        Self { server, site }
    }
}

impl SingleServer for Lighttpd {
    fn site(&self) -> &WebSite {
        &self.site
    }

    fn server(&self) -> &ServerProcess {
        &self.server
    }

    fn server_mut(&mut self) -> &mut ServerProcess {
        &mut self.server
    }
}

fn lighttpd_conf(site: &WebSite, port: u16) -> String {
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let user = ServerUser::get()
        .map_or_else(String::new, |user| format!("server.username = \"{}\"\n", user.name));
    let runtime = site.runtime_directory().map_or_else(String::new, |directory| {
        format!(
            "setenv.add-environment += ( \"WSGATE_RUNTIME_DIR\" => \"{}\" )\n",
            directory.display()
        )
    });
    format!(
        r#"server.bind = "127.0.0.1"
server.port = {port}
{user}server.document-root = "{root}/htdocs"
server.pid-file = "{root}/run/lighttpd.pid"
server.upload-dirs = ( "{root}/var" )
server.modules = ( "mod_setenv" )
setenv.add-environment = ( "DJANGO_DATA" => "{root}/var" )
{runtime}var.wsgate_cgi_bin = "{root}/cgi-bin"
include "{}"
"#,
        source("web-servers/lighttpd.conf").display()
    )
}
