//! Responses that are not whole: what a client sees of them behind each web server, and that it
//! never gets a byte that the application has not sent. The table is that of
//! `docs/broken-responses.md`.

use std::{fs, time::Duration};

use crate::support::web_servers::{
    Apache, ApacheFcgid, ApacheProxyFcgi, Caddy, CgiModule, Haproxy, HttpClient, Lighttpd,
    LighttpdFastcgi, Nginx, Warm, WebServer, eventually, source,
};

/// By then a client has to know: lighttpd looks once a second for connections that have been idle
/// for a second, and the process of a CGI request has to start first.
const SOON: Duration = Duration::from_millis(2800);

/// For so long the web server has the beginning of a response alone.
const PAUSE: Duration = Duration::from_millis(300);

/// The part of the body that the application sends.
const SENT: &str = "begun\nbegun\nbegun\nbegun\nbegun\nbegun\nbegun\nbegun\nbegun\nbegun\n";

/// How a response ends, and whether it has a length: the columns of the table.
const ENDS: [(&str, &str); 5] =
    [("raises", "yes"), ("ends", "yes"), ("exits", "yes"), ("raises", "no"), ("exits", "no")];

/// Asks for responses of all kinds, which end after `pause`.
fn row(web_server: &mut dyn WebServer, pause: Duration) -> Vec<&'static str> {
    let pause = pause.as_secs_f64().to_string();
    ENDS.iter().map(|(how, length)| cell(web_server, how, length, &pause)).collect()
}

/// The outcome of one response, as a client sees it.
fn cell(web_server: &dyn WebServer, how: &str, length: &str, pause: &str) -> &'static str {
    let url = |how: &str, length: &str, pause: &str| {
        web_server.script(&format!("ends_early.wsgi?how={how}&length={length}&pause={pause}"))
    };
    // A web server may need a moment for a process that has ended.
    eventually("it serves", || HttpClient::get(url("ends", "no", "0")).run().status == 200);
    let response = HttpClient::get(url(how, length, pause)).within(SOON + PAUSE).run();
    assert!([0, 200].contains(&response.status), "{how}, {length}: {response:?}");
    let is_ours = SENT.as_bytes().starts_with(&response.body);
    assert!(is_ours, "{how}, {length}: the application has not sent this: {response:?}");
    match response.exit {
        0 => "whole",
        // Of curl's own accord.
        28 => "waits",
        _ => "cut",
    }
}

/// Asserts that the row `name` of the table says what `seen` is.
#[track_caller]
fn stands(name: &str, seen: &[&str]) {
    let page = fs::read_to_string(source("docs/broken-responses.md")).unwrap();
    let row = |name: &str| page.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
    let row = row(name).or_else(|| row(name.strip_suffix(", at once")?));
    let row = row.unwrap_or_else(|| panic!("no row `{name}`: {seen:?}"));
    let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
    let fits =
        cells.iter().zip(seen).all(|(cell, seen)| cell.split(" or ").any(|word| word == *seen));
    assert!(
        fits && cells.len() == seen.len(),
        "the row `{name}` says {cells:?}, and it was {seen:?}"
    );
}

/// Two tests for each row: the web server has read the beginning of a response when that ends, or
/// has not.
macro_rules! rows {
    ($($test:ident $name:literal $web_server:expr;)*) => {
        mod after_a_while {
            use super::*;
            $(#[test] fn $test() { stands($name, &row(&mut $web_server, PAUSE)); })*
        }
        mod at_once {
            use super::*;
            $(#[test] fn $test() { stands(concat!($name, ", at \
                once"), &row(&mut $web_server, Duration::ZERO)); })*
        }
    };
}

rows! {
    nginx "nginx" Nginx::start();
    nginx_unbuffered "nginx, `fastcgi_buffering off`" Nginx::with_settings("on", "off");
    nginx_unkept "nginx, `fastcgi_keep_conn off`" Nginx::with_settings("off", "on");
    nginx_unkept_unbuffered "nginx, both off" Nginx::with_settings("off", "off");
    lighttpd "lighttpd, mod_fastcgi" LighttpdFastcgi::start();
    haproxy "HAProxy" Haproxy::start();
    caddy "Caddy 2.6" Caddy::start();
    fcgid "Apache, mod_fcgid" ApacheFcgid::start();
    proxy_fcgi "Apache, mod_proxy_fcgi" ApacheProxyFcgi::start();
    proxy_fcgi_tcp "Apache, mod_proxy_fcgi" ApacheProxyFcgi::over_tcp();
    cgid "Apache, CGI" Apache::with(CgiModule::Cgid);
    cgi "Apache, CGI" Apache::with(CgiModule::Cgi);
    cgid_warm "Apache, CGI" Warm::apache(CgiModule::Cgid, "warm");
    cgi_resident "Apache, CGI" Warm::apache(CgiModule::Cgi, "resident");
    lighttpd_cgi "lighttpd, CGI" Lighttpd::start();
    lighttpd_warm "lighttpd, CGI" Warm::lighttpd("warm");
    lighttpd_resident "lighttpd, CGI" Warm::lighttpd("resident");
}
