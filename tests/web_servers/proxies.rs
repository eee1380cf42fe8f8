//! A proxy in front of the web server, which says where a request came from.

use std::fs;

use crate::support::web_servers::{
    Apache, ApacheSetup, CgiModule, HttpClient, Nginx, WebServer, WebSite,
    server::{ServerProcess, command},
    site::ServerUser,
};

const CLIENT: &str = "127.0.0.2";

const SCRIPT: &str = "/cgi-bin/environ.wsgi";

const X_HEADERS: &str = "--trust-header X-Forwarded-For --trust-header X-Forwarded-Proto \
                         --trust-header X-Forwarded-Host --trust-header X-Forwarded-Prefix";

/// What HAProxy sets, one line each.
const SETS_X_HEADERS: &str = "    option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host www.example:8443
    http-request set-header X-Forwarded-Prefix /site
";

const SETS_FORWARDED: &str = "    http-request set-header Forwarded \
                              for=%[src];proto=https;host=www.example
";

/// HAProxy as a proxy for HTTP, in front of `web_server`.
fn haproxy(site: &WebSite, web_server: &str, lines: &str) -> ServerProcess {
    let log = site.path("run/proxy.log");
    let pid_file = site.path("run/proxy.pid");
    let user = ServerUser::get().map_or_else(String::new, |ServerUser { uid, gid, .. }| {
        format!("    uid {uid}\n    gid {gid}\n")
    });
    let target = web_server.trim_start_matches("http://").trim_end_matches('/').to_owned();
    ServerProcess::start(&pid_file, &log, |port| {
        let configuration = site.path("run/proxy.cfg");
        let text = format!(
            "global\n{user}defaults\n    mode http\n    timeout client 60s\n    timeout server \
             60s\n    timeout connect 60s\nfrontend www\n    bind 127.0.0.1:{port}\n{lines}    \
             default_backend web\nbackend web\n    server web {target}\n"
        );
        fs::write(&configuration, text).unwrap();
        let mut command = command("haproxy", &log);
        command.arg("-W").arg("-p").arg(&pid_file).arg("-f").arg(configuration);
        command
    })
}

/// The variables for a request by a client that claims another origin.
fn seen(url: &str) -> serde_json::Value {
    // Another address than that of the proxy.
    HttpClient::get(url)
        .source_address(CLIENT)
        .header("X-Forwarded-For", "6.6.6.6")
        .header("X-Real-IP", "6.6.6.6")
        .header("X-Forwarded-SSL", "on")
        .header("X-Forwarded-Host", "evil.example")
        .header("X-Forwarded-Prefix", "/evil")
        .header("Forwarded", "for=6.6.6.6;proto=https;host=evil.example")
        .run()
        .expect(200)
        .json()
}

/// Asserts that the application knows the client of the proxy and its address, and nothing of what
/// the client claims.
#[track_caller]
fn assert_proxied(seen: &serde_json::Value, host: &str, prefix: &str) {
    for (name, value) in [
        ("wsgi.url_scheme", "https"),
        ("HTTPS", "on"),
        ("REMOTE_ADDR", CLIENT),
        ("HTTP_HOST", host),
        ("SERVER_NAME", "www.example"),
        ("SCRIPT_NAME", &format!("{prefix}{SCRIPT}")),
    ] {
        assert_eq!(seen[name], value, "{name}: {seen:#}");
    }
    let text = seen.to_string();
    assert!(!text.contains("evil"), "{seen:#}");
    for name in ["HTTP_X_REAL_IP", "HTTP_X_FORWARDED_SSL"] {
        assert!(seen[name].is_null(), "{name}: {seen:#}");
    }
}

/// Asserts that nothing that the client claims has an effect without a trusted proxy.
#[track_caller]
fn assert_direct(seen: &serde_json::Value) {
    for (name, value) in
        [("wsgi.url_scheme", "http"), ("REMOTE_ADDR", CLIENT), ("SCRIPT_NAME", SCRIPT)]
    {
        assert_eq!(seen[name], value, "{name}: {seen:#}");
    }
    assert!(!seen.to_string().contains("evil"), "{seen:#}");
}

/// Apache with the options on the `#!` line of the script.
fn apache(options: &str) -> Apache {
    let site = WebSite::new();
    let path = site.path("cgi-bin/environ.wsgi");
    let text = fs::read_to_string(&path).unwrap();
    let (line, rest) = text.split_once('\n').unwrap();
    fs::write(&path, format!("{line} {options}\n{rest}")).unwrap();
    Apache::start(CgiModule::Cgid, ApacheSetup::ScriptAlias, site)
}

#[test]
fn cgi_behind_a_proxy_takes_the_origin_of_a_request_from_its_headers() {
    for mode in ["cold", "warm"] {
        let options = format!("--mode {mode} --trust-proxy 127.0.0.1/32 {X_HEADERS}");
        let apache = apache(&options);
        let proxy = haproxy(apache.site(), &apache.url("/"), SETS_X_HEADERS);
        for _ in 0..3 {
            let seen = seen(&proxy.url(&format!("{SCRIPT}?format=json")));
            assert_proxied(&seen, "www.example:8443", "/site");
            assert_eq!(seen["SERVER_PORT"], "8443");
            // The proxy has appended its client to what the client has sent.
            assert_eq!(seen["HTTP_X_FORWARDED_FOR"], "6.6.6.6, 127.0.0.2", "{mode}");
        }
    }
}

#[test]
fn cgi_ignores_headers_from_a_client_that_is_no_trusted_proxy() {
    let apache = apache(&format!("--trust-proxy 192.0.2.0/24 {X_HEADERS}"));
    assert_direct(&seen(&apache.url(&format!("{SCRIPT}?format=json"))));
}

#[test]
fn fastcgi_behind_a_proxy_takes_the_origin_of_a_request_from_its_headers() {
    let x_headers: Vec<&str> = X_HEADERS.split_whitespace().collect();
    let forwarded = ["--trust-header", "Forwarded"];
    for (headers, sets, host, prefix) in [
        (&x_headers[..], SETS_X_HEADERS, "www.example:8443", "/site"),
        (&forwarded[..], SETS_FORWARDED, "www.example", ""),
    ] {
        let options = [&["--trust-proxy", "127.0.0.1"], headers].concat();
        let nginx = Nginx::with_words(&options);
        // Starts the pool of the script.
        nginx.url(SCRIPT);
        let proxy = haproxy(nginx.site(), &nginx.url("/"), sets);
        let mut found = seen(&proxy.url(&format!("{SCRIPT}?format=json")));
        if prefix.is_empty() {
            // A header for another purpose, which stays as it is.
            assert_eq!(found["HTTP_X_FORWARDED_PREFIX"], "/evil");
            found.as_object_mut().unwrap().remove("HTTP_X_FORWARDED_PREFIX");
        }
        assert_proxied(&found, host, prefix);
    }
    let options = [&["--trust-proxy", "192.0.2.1"], &x_headers[..]].concat();
    let nginx = Nginx::with_words(&options);
    assert_direct(&seen(&nginx.url(&format!("{SCRIPT}?format=json"))));
}

#[test]
fn without_the_options_headers_of_a_proxy_have_no_effect() {
    let nginx = Nginx::start();
    let seen = seen(&nginx.url(&format!("{SCRIPT}?format=json")));
    assert_eq!(seen["wsgi.url_scheme"], "http");
    assert_eq!(seen["HTTP_X_FORWARDED_HOST"], "evil.example");
    assert_ne!(seen["HTTP_HOST"], "evil.example");
}
