//! Apache httpd, configured by the files in `apache/` as they stand.

use std::{fmt::Write as _, fs, path::Path};

use crate::support::web_servers::{
    SingleServer,
    server::{ServerProcess, command},
    site::{ServerUser, WebSite},
    source,
};

/// How Apache runs CGI programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgiModule {
    /// mod_cgid under the event MPM: a daemon of Apache's forks them.
    Cgid,
    /// mod_cgi under the prefork MPM: each child forks its own.
    Cgi,
}

/// Which of the configurations of `apache/` is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApacheSetup {
    /// `scriptalias.conf`: scripts at `/cgi-bin/`.
    ScriptAlias,
    /// `public_html.conf` and `public_html.htaccess`: `app.wsgi` behind all of `/~alice/`.
    PublicHtml,
    /// `action.conf`: WSGI files among the pages.
    Action,
    /// No file of ours: the root of a host is Alice's `public_html`, and `.htaccess` may set
    /// everything, as with cPanel. cgi-bin is inside, and has a second address, which shows files.
    Hosted,
}

/// A running Apache.
pub(crate) struct Apache {
    server: ServerProcess,
    site: WebSite,
}

impl Apache {
    /// Starts one over the files of `site`.
    pub(crate) fn start(module: CgiModule, setup: ApacheSetup, site: WebSite) -> Self {
        let server = httpd(&site, |port| httpd_conf(module, setup, &site, port));
        Self { server, site }
    }

    /// The message of an Apache with this file of `apache/` and no module for CGI, which does not
    /// start.
    pub(crate) fn refuses_without_cgi(file: &str) -> String {
        let site = WebSite::new();
        let log = site.path("run/error.log");
        let mut text = preamble(&site, 1, &[MPM_EVENT, "alias", "actions", "userdir", "rewrite"]);
        text += &definitions(&site);
        writeln!(text, "Include \"{}\"", source(&format!("apache/{file}")).display()).unwrap();
        fs::write(site.path("run/httpd.conf"), text).unwrap();
        let status = command(program(), &log)
            .arg("-t")
            .arg("-f")
            .arg(site.path("run/httpd.conf"))
            .status()
            .unwrap();
        assert!(!status.success(), "{file} is accepted without a module for CGI");
        fs::read_to_string(log).unwrap()
    }

    /// The usual set-up, with mod_xsendfile for the files in `directory`.
    pub(crate) fn with_xsendfile(site: WebSite, directory: &Path) -> Self {
        let server = httpd(&site, |port| {
            let names = [MPM_EVENT, "cgid", "alias", "xsendfile"];
            let file = source("apache/scriptalias.conf");
            format!(
                "{}{}ScriptSock {}\nInclude \"{}\"\n{}XSendFile On\nXSendFilePath {}\n\
                 FileETag None\n",
                preamble(&site, port, &names),
                definitions(&site),
                site.path("run/cgid.sock").display(),
                file.display(),
                granted_cgi_bin(&site),
                directory.display()
            )
        });
        Self { server, site }
    }

    /// The usual set-up: scripts in `/cgi-bin/`.
    pub(crate) fn with(module: CgiModule) -> Self {
        Self::start(module, ApacheSetup::ScriptAlias, WebSite::new())
    }
}

impl SingleServer for Apache {
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

/// Starts Apache over the files of `site` with the configuration that `text` makes for a port.
pub(crate) fn httpd(site: &WebSite, text: impl Fn(u16) -> String) -> ServerProcess {
    let log = site.path("run/error.log");
    ServerProcess::start(&site.path("run/httpd.pid"), &log, |port| {
        let configuration = site.path("run/httpd.conf");
        fs::write(&configuration, text(port)).unwrap();
        let mut command = command(program(), &log);
        command.arg("-f").arg(configuration).args(["-D", "FOREGROUND"]);
        command
    })
}

/// Debian's name, and everybody else's.
fn program() -> &'static str {
    if Path::new("/usr/sbin/apache2").exists() { "apache2" } else { "httpd" }
}

/// The module of the processes with many threads.
pub(crate) const MPM_EVENT: &str = "mpm_event";

/// All that is the test's own: who, where, which modules beside those that every Apache has.
pub(crate) fn preamble(site: &WebSite, port: u16, names: &[&str]) -> String {
    let modules = [
        "/usr/lib/apache2/modules",
        "/usr/lib64/httpd/modules",
        "/usr/lib/httpd/modules",
        "/usr/libexec/httpd",
    ]
    .into_iter()
    .find(|directory| Path::new(directory).exists())
    .expect("Apache's modules");
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let mut text = String::new();
    for name in names.iter().chain(&[
        "authn_core",
        "authz_core",
        "authz_host",
        "deflate",
        "env",
        "dir",
        "mime",
    ]) {
        writeln!(text, "LoadModule {name}_module {modules}/mod_{name}.so").unwrap();
    }
    if let Some(ServerUser { name, gid, .. }) = ServerUser::get() {
        // Where suexec is installed, Apache would have it run the scripts of a `~alice` whom the
        // machine has.
        writeln!(text, "User {name}\nGroup #{gid}\nSuexec Off").unwrap();
    }
    write!(
        text,
        r#"ServerName 127.0.0.1
Listen 127.0.0.1:{port}
ServerRoot "{root}"
DefaultRuntimeDir "{root}/run"
PidFile "{root}/run/httpd.pid"
ErrorLog "{root}/run/error.log"
LogLevel warn
TypesConfig /dev/null
DocumentRoot "{root}/htdocs"
StartServers 1
<Directory />
    AllowOverride None
    Require all denied
</Directory>
<Directory "{root}/htdocs">
    Require all granted
</Directory>
<Location "/cgi-bin/inflated.wsgi">
    SetInputFilter DEFLATE
</Location>
"#
    )
    .unwrap();
    text
}

/// The configuration of Apache. The deployer's part is included from `apache/`.
fn httpd_conf(module: CgiModule, setup: ApacheSetup, site: &WebSite, port: u16) -> String {
    let mut names = match module {
        CgiModule::Cgid => vec![MPM_EVENT, "cgid", "alias"],
        CgiModule::Cgi => vec!["mpm_prefork", "cgi", "alias"],
    };
    match setup {
        ApacheSetup::ScriptAlias => {}
        ApacheSetup::PublicHtml => names.extend(["userdir", "rewrite"]),
        ApacheSetup::Action => names.push("actions"),
        ApacheSetup::Hosted => names.extend(["rewrite", "autoindex", "negotiation"]),
    }
    let mut text = preamble(site, port, &names);
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    if module == CgiModule::Cgid {
        writeln!(text, "ScriptSock {root}/run/cgid.sock").unwrap();
    }
    if let Some(directory) = site.runtime_directory() {
        writeln!(text, "SetEnv WSGATE_RUNTIME_DIR \"{}\"", directory.display()).unwrap();
    }
    text += &definitions(site);
    let file = match setup {
        ApacheSetup::ScriptAlias => "scriptalias.conf",
        ApacheSetup::PublicHtml => "public_html.conf",
        ApacheSetup::Action => "action.conf",
        ApacheSetup::Hosted => {
            text += &hosted(site);
            return text;
        }
    };
    writeln!(text, "Include \"{}\"", source(&format!("apache/{file}")).display()).unwrap();
    if setup == ApacheSetup::ScriptAlias {
        text += &granted_cgi_bin(site);
    }
    text
}

/// A distribution's configuration of a cgi-bin (Debian's serve-cgi-bin.conf), which Apache may read
/// after ours.
pub(crate) fn granted_cgi_bin(site: &WebSite) -> String {
    format!(
        "<Directory \"{}\">\n    AllowOverride None\n    Options +ExecCGI -MultiViews\n    Require \
            all granted\n</Directory>\n",
        site.path("cgi-bin").display()
    )
}

/// The host name that our configuration files get.
fn definitions(site: &WebSite) -> String {
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    format!(
        r#"Define WSGATE_CGI_BIN "{root}/cgi-bin"
Define WSGATE_HOMES "{root}/home"
Define WSGATE_PROGRAM "{root}/bin/wsgate"
Define WSGATE_PAGES "{root}/htdocs"
SetEnv DJANGO_DATA "{root}/var"
"#
    )
}

/// A host's own configuration, as generous as one can be.
fn hosted(site: &WebSite) -> String {
    let root = site.path("home/alice/public_html").display().to_string();
    format!(
        r#"DocumentRoot "{root}"
ScriptAlias "/cgi-bin/" "{root}/cgi-bin/"
Alias "/second/" "{root}/"
AcceptPathInfo On
<Directory "{root}">
    AllowOverride All
    Options Indexes FollowSymLinks MultiViews ExecCGI
    Require all granted
</Directory>
"#
    )
}
