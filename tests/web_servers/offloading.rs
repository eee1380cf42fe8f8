//! Files that an application leaves to the web server, by a header of its response: as the page
//! `docs/send-files.md` shows.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use crate::support::web_servers::{Apache, HttpClient, LighttpdFastcgi, Nginx, WebServer, WebSite};

const SCRIPT: &str = "/cgi-bin/offloads.wsgi";

/// A directory that web servers can read, with a file.
fn files() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.path().join("a file.txt"), "0123456789").unwrap();
    directory
}

/// Asserts that the web server sends the file that the response to `url` names, and parts of it.
#[track_caller]
fn assert_sends(url: &str) {
    let response = HttpClient::get(url).run().expect(200);
    assert_eq!(response.body, b"0123456789");
    assert_eq!(response.header("content-type"), "text/x-own");
    assert_eq!(response.header("content-disposition"), "attachment");
    for name in ["x-accel-redirect", "x-sendfile"] {
        let is_seen = response.headers.iter().any(|(known, _)| known == name);
        assert!(!is_seen, "the client sees where the file is: {name}");
    }
    let part = HttpClient::get(url).header("Range", "bytes=2-4").run().expect(206);
    assert_eq!(part.body, b"234");
}

#[test]
fn nginx_sends_a_file_that_x_accel_redirect_names() {
    let files = files();
    let location =
        format!("}}\n location /protected/ {{ internal; alias {}/;", files.path().display());
    let nginx = Nginx::beside("", &location);
    assert_sends(&nginx.url(&format!("{SCRIPT}?X-Accel-Redirect=/protected/a%2520file.txt")));
    HttpClient::get(nginx.url("/protected/a%20file.txt")).run().expect(404);
    let missing = nginx.url(&format!("{SCRIPT}?X-Accel-Redirect=/protected/missing"));
    HttpClient::get(missing).run().expect(404);
}

#[test]
fn apache_sends_a_file_that_x_sendfile_names() {
    let files = files();
    let apache = Apache::with_xsendfile(files.path());
    let url = |path: &str| apache.url(&format!("{SCRIPT}?X-Sendfile={path}"));
    assert_sends(&url(&format!("{}/a%20file.txt", files.path().display())));
    HttpClient::get(url("/etc/passwd")).run().expect(404);
}

#[test]
fn lighttpd_sends_a_file_that_x_sendfile_names() {
    let files = files();
    let site = WebSite::new();
    let lines = format!(
        "    \"x-sendfile\" => \"enable\",\n    \"x-sendfile-docroot\" => ( \"{}\" ),\n",
        files.path().display()
    );
    let lighttpd = LighttpdFastcgi::with_lines(&site, "offloads.wsgi", &lines);
    let url = |path: &str| lighttpd.url(&format!("{SCRIPT}?X-Sendfile={path}"));
    assert_sends(&url(&format!("{}/a%2520file.txt", files.path().display())));
    HttpClient::get(url("/etc/passwd")).run().expect(403);
}
