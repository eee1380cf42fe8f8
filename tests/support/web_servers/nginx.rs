//! nginx, configured by `web-servers/nginx.conf` as it stands, in front of pools.

use std::{fmt::Write as _, fs, path::Path};

use crate::support::web_servers::{
    Habits,
    behind_pools::BehindPools,
    pools::{Pools, scripts},
    server::{ServerProcess, command},
    site::{ServerUser, WebSite},
    source,
};

/// The location of each script.
const EACH_SCRIPT: &str =
    r#""(?s)^(?<wsgate_script>/cgi-bin/(?<script>[^/]+\.wsgi))(?<wsgate_path>/.*)?$""#;

/// nginx.
pub(crate) struct Nginx;

impl Nginx {
    /// Starts one over a site of its own.
    pub(crate) fn start() -> BehindPools {
        Self::beside("", "")
    }

    /// Starts nginx with more configuration: in the section `http`, and beside the include.
    pub(crate) fn beside(http: &str, location: &str) -> BehindPools {
        Self::with(EACH_SCRIPT, "$script", [http, location])
    }

    /// Starts the web server with `script` alone, at the root.
    pub(crate) fn at_the_root(script: &str) -> BehindPools {
        Self::with(r#""(?s)^(?<wsgate_script>)(?<wsgate_path>/.*)$""#, script, ["", ""])
            .at_the_root(script)
    }

    /// Starts nginx in front of the pool at `socket`, with keep-alive connections to it.
    pub(crate) fn before(socket: &Path) -> BehindPools {
        let upstream = format!(
            "upstream pool {{ server unix:{}; keepalive 8; }} keepalive_requests 1000000;",
            socket.display()
        );
        let everything = r#""(?s)^(?<wsgate_script>)(?<wsgate_path>/.*)$""#;
        Self::with(everything, "pool", [&upstream, ""])
    }

    /// Starts the web server with more arguments for the pools.
    pub(crate) fn with_words(args: &[&str]) -> BehindPools {
        Self::start().with_words(args)
    }

    /// Starts nginx with other settings than `web-servers/nginx.conf`: keep-alive connections and
    /// buffering of responses.
    pub(crate) fn with_settings(keep_conn: &str, buffering: &str) -> BehindPools {
        let site = WebSite::new();
        let text = fs::read_to_string(source("web-servers/nginx.conf")).unwrap();
        let line = |line: &str| match line.split(' ').next() {
            Some("fastcgi_keep_conn") => format!("fastcgi_keep_conn {keep_conn};\n"),
            Some("fastcgi_buffering") => format!("fastcgi_buffering {buffering};\n"),
            _ => format!("{line}\n"),
        };
        let included = site.path("run/included.conf");
        fs::write(&included, text.lines().map(line).collect::<String>()).unwrap();
        Self::over(site, EACH_SCRIPT, "$script", ["", ""], &included)
    }

    fn with(location: &str, upstream: &str, lines: [&str; 2]) -> BehindPools {
        Self::over(WebSite::new(), location, upstream, lines, &source("web-servers/nginx.conf"))
    }

    fn over(
        site: WebSite,
        location: &str,
        upstream: &str,
        lines: [&str; 2],
        included: &Path,
    ) -> BehindPools {
        let log = site.path("run/error.log");
        let server = ServerProcess::start(&site.path("run/nginx.pid"), &log, |port| {
            let configuration = site.path("run/nginx.conf");
            fs::write(&configuration, nginx_conf(&site, port, location, upstream, lines, included))
                .unwrap();
            let mut command = command("nginx", &log);
            command
                .arg("-p")
                .arg(site.path("run"))
                .arg("-e")
                .arg(&log)
                .arg("-c")
                .arg(configuration);
            command
        });
        let pools = Pools::new(&site, &log);
        let habits = Habits {
            joins_repeated_headers: joins_repeated_headers(&site),
            keeps_connections: true,
            ..Habits::default()
        };
        BehindPools::new(server, pools, site, habits)
    }
}

/// Returns whether nginx joins repeated headers, as since 1.23. Earlier versions send a parameter
/// for each value.
fn joins_repeated_headers(site: &WebSite) -> bool {
    let log = site.path("run/version");
    assert!(command("nginx", &log).arg("-v").status().unwrap().success());
    let said = fs::read_to_string(log).unwrap();
    let version = said.split("nginx/").nth(1).expect("a version");
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(1), Some(23))
}

/// All that is the test's own: who, where, and which pool at which address.
fn nginx_conf(
    site: &WebSite,
    port: u16,
    location: &str,
    upstream: &str,
    [http, beside]: [&str; 2],
    included: &Path,
) -> String {
    let root = site.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let user = ServerUser::get().map_or_else(String::new, |user| format!("user {};\n", user.name));
    let mut text = format!(
        r#"{user}daemon off;
worker_processes 1;
pid {root}/run/nginx.pid;
error_log {root}/run/error.log warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {root}/run/body;
    fastcgi_temp_path {root}/run/fastcgi;
    proxy_temp_path {root}/run/proxy;
    uwsgi_temp_path {root}/run/uwsgi;
    scgi_temp_path {root}/run/scgi;
"#
    );
    for script in scripts(site) {
        let socket = Pools::socket(site, &script);
        writeln!(
            text,
            "    upstream {script} {{ server unix:{}; keepalive 4; }}",
            socket.display()
        )
        .unwrap();
    }
    write!(
        text,
        r#"    {http}
    server {{
        listen 127.0.0.1:{port};
        server_name 127.0.0.1;
        location ~ {location} {{
            set $wsgate_pool {upstream};
            include {};
            {beside}
        }}
    }}
}}
"#,
        included.display()
    )
    .unwrap();
    text
}
