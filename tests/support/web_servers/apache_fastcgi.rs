//! Apache httpd in front of long-lived processes, configured by the files in `apache/` as they
//! stand.

use std::fmt::Write as _;

use crate::support::web_servers::{
    Habits, SingleServer,
    apache::{MPM_EVENT, granted_cgi_bin, httpd, preamble},
    behind_pools::BehindPools,
    pools::{Pools, scripts},
    server::ServerProcess,
    site::WebSite,
    source,
};

/// Apache with mod_fcgid, which starts the scripts itself.
pub(crate) struct ApacheFcgid {
    server: ServerProcess,
    site: WebSite,
}

impl ApacheFcgid {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> Self {
        let site = WebSite::new();
        let server = httpd(&site, |port| {
            let mut text = preamble(&site, port, &[MPM_EVENT, "alias", "fcgid"]);
            let root = site.path("").display().to_string();
            let root = root.trim_end_matches('/');
            write!(
                text,
                r#"FcgidIPCDir "{root}/run/fcgid"
FcgidProcessTableFile "{root}/run/fcgid.shm"
FcgidInitialEnv DJANGO_DATA "{root}/var"
Define WSGATE_CGI_BIN "{root}/cgi-bin"
Include "{}"
"#,
                source("apache/fcgid.conf").display()
            )
            .unwrap();
            text += &granted_cgi_bin(&site);
            text
        });
        Self { server, site }
    }
}

impl SingleServer for ApacheFcgid {
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

/// Apache with mod_proxy_fcgi, in front of pools.
pub(crate) struct ApacheProxyFcgi;

impl ApacheProxyFcgi {
    /// Starts one over a site of its own, with pools at Unix sockets.
    pub(crate) fn start() -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, &each_at_its_address)
    }

    /// Starts the web server with pools at TCP ports.
    pub(crate) fn over_tcp() -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::over_tcp(&site, &site.path("run/error.log"));
        Self::with(site, pools, &each_at_its_address)
    }

    /// Starts the web server with `script` alone, at the root.
    pub(crate) fn at_the_root(script: &str) -> BehindPools {
        let site = WebSite::new();
        let pools = Pools::new(&site, &site.path("run/error.log"));
        Self::with(site, pools, &|_| vec![("/".to_owned(), script.to_owned())]).at_the_root(script)
    }

    /// Starts the web server with more arguments for the pools.
    pub(crate) fn with_words(args: &[&str]) -> BehindPools {
        Self::start().with_words(args)
    }

    fn with(
        site: WebSite,
        pools: Pools,
        mounts: &dyn Fn(&WebSite) -> Vec<(String, String)>,
    ) -> BehindPools {
        let server = httpd(&site, |port| {
            let mut text = preamble(&site, port, &[MPM_EVENT, "proxy", "proxy_fcgi"]);
            for (mount, script) in mounts(&site) {
                let pool = match pools.port(&script) {
                    Some(port) => format!("fcgi://127.0.0.1:{port}"),
                    None => {
                        format!("unix:{}|fcgi://wsgate", Pools::socket(&site, &script).display())
                    }
                };
                writeln!(
                    text,
                    "Define WSGATE_MOUNT \"{mount}\"\nDefine \
                        WSGATE_POOL \"{pool}\"\nInclude \"{}\"",
                    source("apache/proxy_fcgi.conf").display()
                )
                .unwrap();
            }
            text
        });
        BehindPools::new(
            server,
            pools,
            site,
            Habits { keeps_connections: true, ..Habits::default() },
        )
    }
}

fn each_at_its_address(site: &WebSite) -> Vec<(String, String)> {
    scripts(site).into_iter().map(|script| (format!("/cgi-bin/{script}"), script)).collect()
}
