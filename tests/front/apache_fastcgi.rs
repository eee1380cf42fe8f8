//! Apache httpd in front of long-lived processes, configured by the files in `apache/` as they stand.

use std::fmt::Write as _;

use super::apache::{MPM_EVENT, httpd, preamble};
use super::pools::{Pools, scripts};
use super::server::Server;
use super::site::Site;
use super::{Front, source};

/// Apache with mod_fcgid, which starts the scripts itself.
pub(crate) struct ApacheFcgid {
    server: Server,
    site: Site,
}

impl ApacheFcgid {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> Self {
        let site = Site::new();
        let server = httpd(&site, |port| {
            let mut text = preamble(&site, port, &[MPM_EVENT, "alias", "fcgid"]);
            let root = site.path("").display().to_string();
            let root = root.trim_end_matches('/');
            write!(
                text,
                r#"FcgidIPCDir "{root}/run/fcgid"
FcgidProcessTableFile "{root}/run/fcgid.shm"
FcgidInitialEnv DJANGO_DB "{root}/var/django.sqlite3"
Define WSGATE_CGI_BIN "{root}/cgi-bin"
Include "{}"
"#,
                source("apache/fcgid.conf").display()
            )
            .unwrap();
            text
        });
        Self { server, site }
    }
}

impl Front for ApacheFcgid {
    fn site(&self) -> &Site {
        &self.site
    }

    fn url(&self, path: &str) -> String {
        self.server.url(path)
    }

    fn log(&self) -> String {
        self.server.log()
    }

    fn stop(&mut self) -> String {
        self.server.stop();
        self.server.log()
    }
}

/// Apache with mod_proxy_fcgi, in front of pools.
pub(crate) struct ApacheProxyFcgi {
    server: Server,
    pools: Pools,
    site: Site,
}

impl ApacheProxyFcgi {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> Self {
        let site = Site::new();
        let mounts = scripts(&site).into_iter().map(|script| (format!("/cgi-bin/{script}"), script)).collect();
        Self::with(site, mounts)
    }

    /// With `script` alone, at the root.
    pub(crate) fn at_the_root(script: &str) -> Self {
        let front = Self::with(Site::new(), vec![("/".to_owned(), script.to_owned())]);
        front.pools.want(&front.site, &format!("/cgi-bin/{script}"));
        front
    }

    /// With more words for the pools.
    pub(crate) fn with_words(words: &[&str]) -> Self {
        let front = Self::start();
        Self { pools: front.pools.with_words(words), ..front }
    }

    fn with(site: Site, mounts: Vec<(String, String)>) -> Self {
        let server = httpd(&site, |port| {
            let mut text = preamble(&site, port, &[MPM_EVENT, "proxy", "proxy_fcgi"]);
            for (mount, script) in &mounts {
                let socket = Pools::socket(&site, script);
                writeln!(
                    text,
                    "Define WSGATE_MOUNT \"{mount}\"\nDefine WSGATE_SOCKET \"{}\"\nInclude \"{}\"",
                    socket.display(),
                    source("apache/proxy_fcgi.conf").display()
                )
                .unwrap();
            }
            text
        });
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self { server, pools, site }
    }
}

impl Front for ApacheProxyFcgi {
    fn site(&self) -> &Site {
        &self.site
    }

    fn url(&self, path: &str) -> String {
        self.pools.want(&self.site, path);
        self.server.url(path)
    }

    fn log(&self) -> String {
        self.server.log()
    }

    fn stop(&mut self) -> String {
        self.server.stop();
        self.pools.stop();
        self.server.log()
    }
}
