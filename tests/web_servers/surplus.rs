//! Request bodies that are longer than CONTENT_LENGTH says: Apache counts a body before its filters
//! change it.

use std::{fs, path::PathBuf, process::Command};

use crate::support::web_servers::{
    Apache, ApacheFcgid, ApacheProxyFcgi, CgiModule, HttpClient, Warm, WebServer,
};

/// Bytes of the body that the application would find if it were counted after it was inflated.
const INFLATED: i64 = 4 << 20;

/// A file of which Apache makes so many bytes, and its length.
fn compressed(web_server: &dyn WebServer) -> (PathBuf, u64) {
    let plain = web_server.site().path("var/plain");
    let bytes = fs::read(web_server.site().big_file("bytes", 2 << 20)).unwrap();
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    fs::write(
        &plain,
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(Command::new("gzip").arg(&plain).status().unwrap().success());
    let file = web_server.site().path("var/plain.gz");
    let length = fs::metadata(&file).unwrap().len();
    assert!(length < 3 << 20, "{length}");
    (file, length)
}

/// Apache inflates bodies for this script. CGI's CONTENT_LENGTH goes on to count what was sent;
/// that of mod_fcgid and mod_proxy_fcgi does if they have not had the whole of a body before.
fn a_response_to_an_inflated_body_is_whole(web_server: &mut dyn WebServer, is_cgi: bool) {
    let (file, length) = compressed(web_server);
    let mut had_surplus = false;
    for query in ["", "?unread"] {
        for _ in 0..3 {
            let request =
                HttpClient::post_file(web_server.script(&format!("inflated.wsgi{query}")), &file);
            let response = request.header("Content-Encoding", "gzip").header("Expect", "").run();
            assert_eq!(
                (response.status, response.body.len()),
                (200, 2 << 20),
                "curl's exit code: {}",
                response.exit
            );
            let seen = response.header("x-length").parse::<i64>().unwrap();
            let is_cut = u64::try_from(seen).is_ok_and(|seen| seen == length);
            let is_known = is_cut || (!is_cgi && seen == INFLATED);
            assert!(
                if query.is_empty() { is_known } else { seen == -1 },
                "{seen} of {length}, or {INFLATED}"
            );
            had_surplus |= is_cut;
        }
    }
    let log = web_server.stop();
    assert_eq!(log.contains("wsgate: warning[W0406]"), had_surplus, "{log}");
    assert!(!log.contains("wsgate: error["), "{log}");
}

macro_rules! behind_each {
    ($($test:ident $is_cgi:literal $web_server:expr;)*) => {
        $(#[test]
        fn $test() { a_response_to_an_inflated_body_is_whole(&mut $web_server, $is_cgi); })*
    };
}

behind_each! {
    apache_cgid true Apache::with(CgiModule::Cgid);
    apache_cgi true Apache::with(CgiModule::Cgi);
    apache_cgid_warm true Warm::apache(CgiModule::Cgid, "warm");
    apache_cgi_warm true Warm::apache(CgiModule::Cgi, "warm");
    apache_cgid_resident true Warm::apache(CgiModule::Cgid, "resident");
    apache_cgi_resident true Warm::apache(CgiModule::Cgi, "resident");
    apache_fcgid false ApacheFcgid::start();
    apache_proxy_fcgi false ApacheProxyFcgi::start();
    apache_proxy_fcgi_tcp false ApacheProxyFcgi::over_tcp();
}
