//! Files that an application leaves to the web server, by a header of its response: as the page
//! `docs/send-files.md` shows.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::support::{
    child_process,
    web_servers::{
        Apache, Caddy, HttpClient, HttpResponse, LighttpdFastcgi, Nginx, WebServer, WebSite,
    },
};

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
        format!("}}\n location ^~ /protected/ {{ internal; alias {}/;", files.path().display());
    let nginx = Nginx::beside("", &location);
    assert_sends(&nginx.url(&format!("{SCRIPT}?X-Accel-Redirect=/protected/a%2520file.txt")));
    HttpClient::get(nginx.url("/protected/a%20file.txt")).run().expect(404);
    let missing = nginx.url(&format!("{SCRIPT}?X-Accel-Redirect=/protected/missing"));
    HttpClient::get(missing).run().expect(404);
}

#[test]
fn apache_sends_a_file_that_x_sendfile_names() {
    let files = files();
    let apache = Apache::with_xsendfile(WebSite::new(), files.path());
    let url = |path: &str| apache.url(&format!("{SCRIPT}?X-Sendfile={path}"));
    let named = url(&format!("{}/a%20file.txt", files.path().display()));
    assert_sends(&named);
    // mod_xsendfile would call every version of every file that.
    HttpClient::get(named).header("If-None-Match", "\"0\"").run().expect(200);
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

/// What is in a directory that the web server serves, and beside it.
struct Offered {
    directory: TempDir,
    outside: TempDir,
}

/// Names of files, some of which are encoded in a URL.
const NAMES: [&str; 5] =
    ["plain.txt", "sub/=;+$&.txt", "a file.txt", "100%25 \u{e9}#?&.txt", "file/file{a}"];

/// Those that a URL has unchanged.
const NAMES_IN_URLS: [&str; 2] = [NAMES[0], NAMES[1]];

impl Offered {
    fn new() -> Self {
        let offered = Self { directory: files(), outside: files() };
        // The application replaces and removes files.
        let writable = fs::Permissions::from_mode(0o777);
        fs::set_permissions(offered.directory.path(), writable).unwrap();
        for name in ["sub", "file"] {
            fs::create_dir(offered.path(name)).unwrap();
        }
        for name in NAMES.into_iter().chain(["new", "old", "gone"]) {
            fs::write(offered.path(name), Self::content(name)).unwrap();
        }
        std::os::unix::fs::symlink("plain.txt", offered.path("link")).unwrap();
        std::os::unix::fs::symlink(offered.secret(), offered.path("link-outside")).unwrap();
        offered
    }

    fn content(name: &str) -> String {
        format!("the content of {name}")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file outside of the directory.
    fn secret(&self) -> PathBuf {
        self.outside.path().join("a file.txt")
    }

    fn option(&self, way: &str) -> String {
        format!("{way}{}", self.directory.path().display())
    }
}

/// The response to a request for a file, whose response has what `parameters` say.
fn wrapped(url: &str, path: &Path, parameters: &[&str]) -> HttpResponse {
    wrapped_by(HttpClient::get(url), path, parameters).run()
}

fn wrapped_by(client: HttpClient, path: &Path, parameters: &[&str]) -> HttpClient {
    let path = format!("path={}", path.display());
    parameters.iter().fold(client.data(&path), |client, parameter| client.data(parameter))
}

const WRAPS: &str = "/cgi-bin/wraps.wsgi";

/// Has the web server sent the file? Only a web server adds this header.
fn is_offloaded(response: &HttpResponse) -> bool {
    !response.all("last-modified").is_empty()
}

/// Asserts that the web server sends each file in the directory, with the headers of the
/// application, and that the application sends all that would change.
fn assert_offloads(url: &str, offered: &Offered, names: &[&str]) {
    for &name in names {
        let headers = ["header=Content-Disposition: attachment", "header=Cache-Control: private"];
        let cookies = ["header=Set-Cookie: a=1", "header=Set-Cookie: b=2"];
        let parameters = [headers, cookies].concat();
        let response = wrapped(url, &offered.path(name), &parameters).expect(200);
        let content = Offered::content(name);
        assert_eq!(response.text(), content);
        assert!(is_offloaded(&response), "{name}: {response:?}");
        assert_eq!(response.header("content-type"), "text/x-own");
        assert_eq!(response.header("content-disposition"), "attachment");
        assert_eq!(response.header("cache-control"), "private");
        assert_eq!(response.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(response.header("content-length"), content.len().to_string());
        for name in ["x-accel-redirect", "x-sendfile"] {
            assert!(response.all(name).is_empty(), "{response:?}");
        }
        let client = HttpClient::get(url).header("Range", "bytes=2-4");
        let part = wrapped_by(client, &offered.path(name), &[]).run().expect(206);
        assert_eq!(part.text(), &content[2..5]);
        let head = HttpClient::head(url);
        let head = wrapped_by(head, &offered.path(name), &parameters).run().expect(200);
        assert_eq!(head.header("content-length"), content.len().to_string(), "{head:?}");
        assert_eq!(head.header("content-type"), "text/x-own");
        assert!(is_offloaded(&head), "{name}: {head:?}");
    }
    for name in NAMES.into_iter().filter(|name| !names.contains(name)) {
        let response = wrapped(url, &offered.path(name), &[]).expect(200);
        assert_eq!((response.text(), is_offloaded(&response)), (Offered::content(name), false));
    }
    let plain = Offered::content("plain.txt");
    let length = format!("header=Content-Length: {}", plain.len());
    for (name, parameters) in [("link", &[][..]), ("plain.txt", &[length.as_str()])] {
        let response = wrapped(url, &offered.path(name), parameters).expect(200);
        assert_eq!((response.text(), is_offloaded(&response)), (plain.clone(), true), "{name}");
    }
    let replaced = format!("replaced={}", offered.path("new").display());
    for (path, parameters, status, content) in [
        (offered.secret(), &[][..], 200, "0123456789".to_owned()),
        (offered.path("link-outside"), &[], 200, "0123456789".to_owned()),
        (offered.path("plain.txt"), &["status=404 Not Found"], 404, plain.clone()),
        (offered.path("plain.txt"), &["status=203 Changed"], 203, plain.clone()),
        (offered.path("plain.txt"), &["offset=4"], 200, plain[4..].to_owned()),
        (offered.path("plain.txt"), &["header=Content-Length: 3"], 200, plain[..3].to_owned()),
        (offered.path("plain.txt"), &["header=Content-Encoding: x-own"], 200, plain.clone()),
        (offered.path("plain.txt"), &["header=Accept-Ranges: none"], 200, plain.clone()),
        (offered.path("old"), &[replaced.as_str()], 200, Offered::content("old")),
        (offered.path("gone"), &["removed"], 200, Offered::content("gone")),
    ] {
        let response = wrapped(url, &path, parameters).expect(status);
        let case = format!("{} {parameters:?}: {response:?}", path.display());
        assert_eq!((response.text(), is_offloaded(&response)), (content, false), "{case}");
    }
    let post =
        HttpClient::post(format!("{url}?path={}", offered.path("plain.txt").display()), "a=b");
    let post = post.run().expect(200);
    assert_eq!((post.text(), is_offloaded(&post)), (plain, false), "{post:?}");
    // A file that does not fit into memory.
    let large = offered.path("large");
    fs::write(&large, vec![b'x'; 100 << 20]).unwrap();
    let got = offered.outside.path().join("got");
    let client = wrapped_by(HttpClient::get(url), &large, &[]);
    let response = client.save(&got).expect(200);
    assert!(is_offloaded(&response), "{response:?}");
    assert!(fs::read(&got).unwrap() == fs::read(&large).unwrap());
}

/// Asserts that the log says once that a file was not left to the web server.
#[track_caller]
fn assert_warned_once(log: &str) {
    assert_eq!(log.matches("[W0511]").count(), 1, "{log}");
}

/// Asserts that headers which nginx and Caddy drop keep the file with the application.
fn assert_keeps_other_headers(url: &str, offered: &Offered) {
    for (name, value) in [
        ("ETag", "\"own\""),
        ("X-Frame-Options", "DENY"),
        ("Content-Language", "en"),
        ("Accept-Ranges", "none"),
    ] {
        let header = format!("header={name}: {value}");
        let response = wrapped(url, &offered.path("plain.txt"), &[&header]).expect(200);
        assert_eq!(response.header(&name.to_ascii_lowercase()), value);
        assert!(!is_offloaded(&response), "{response:?}");
    }
}

#[test]
fn nginx_sends_files_of_the_wrapper_if_a_client_sees_no_difference() {
    let offered = Offered::new();
    let directory = offered.directory.path().display();
    let location = format!("}}\n location ^~ /protected/ {{ internal; alias {directory}/;");
    let option = offered.option("x-accel:/protected/=");
    let nginx = Nginx::beside("", &location).with_words(&["--sendfile", &option]);
    assert_offloads(&nginx.url(WRAPS), &offered, &NAMES);
    assert_keeps_other_headers(&nginx.url(WRAPS), &offered);
    assert_warned_once(&nginx.log());
    HttpClient::get(nginx.url("/protected/plain.txt")).run().expect(404);
}

#[test]
fn caddy_sends_files_of_the_wrapper_if_a_client_sees_no_difference() {
    let offered = Offered::new();
    let line = format!("import wsgate_files /protected {}", offered.directory.path().display());
    let option = offered.option("x-accel:/protected/=");
    let caddy = Caddy::with_lines(&line).with_words(&["--sendfile", &option]);
    assert_offloads(&caddy.url(WRAPS), &offered, &NAMES);
    assert_keeps_other_headers(&caddy.url(WRAPS), &offered);
    assert_warned_once(&caddy.log());
    let direct = HttpClient::get(caddy.url("/protected/plain.txt")).run();
    assert_eq!(direct.body, b"", "{direct:?}");
}

/// A site whose script that wraps a file has more options on its `#!` line.
fn site_with(options: &str) -> WebSite {
    let site = WebSite::new();
    let path = site.path("cgi-bin/wraps.wsgi");
    let text = fs::read_to_string(&path).unwrap();
    let (line, rest) = text.split_once('\n').unwrap();
    fs::write(&path, format!("{line} {options}\n{rest}")).unwrap();
    site
}

#[test]
fn apache_sends_files_of_the_wrapper_in_each_mode_if_a_client_sees_no_difference() {
    for mode in ["cold", "warm", "resident"] {
        let offered = Offered::new();
        let options = format!("--mode {mode} --sendfile {}", offered.option("x-sendfile:"));
        let apache = Apache::with_xsendfile(site_with(&options), offered.directory.path());
        assert_offloads(&apache.url(WRAPS), &offered, &NAMES_IN_URLS);
        assert_offloads_with_other_headers(&apache.url(WRAPS), &offered);
    }
}

#[test]
fn lighttpd_sends_files_of_the_wrapper_if_a_client_sees_no_difference() {
    let offered = Offered::new();
    let site = site_with(&format!("--sendfile {}", offered.option("x-sendfile:")));
    let lines = format!(
        "    \"x-sendfile\" => \"enable\",\n    \"x-sendfile-docroot\" => ( \"{}\" ),\n",
        offered.directory.path().display()
    );
    let lighttpd = LighttpdFastcgi::with_lines(&site, "wraps.wsgi", &lines);
    assert_offloads(&lighttpd.url(WRAPS), &offered, &NAMES_IN_URLS);
    assert_offloads_with_other_headers(&lighttpd.url(WRAPS), &offered);
}

/// Asserts that other headers of the application stay as they are where the web server sends the
/// file.
fn assert_offloads_with_other_headers(url: &str, offered: &Offered) {
    for (name, value) in [("ETag", "\"own\""), ("X-Frame-Options", "DENY"), ("Vary", "Cookie")] {
        let header = format!("header={name}: {value}");
        let response = wrapped(url, &offered.path("plain.txt"), &[&header]).expect(200);
        assert_eq!(response.header(&name.to_ascii_lowercase()), value, "{response:?}");
        assert!(is_offloaded(&response), "{response:?}");
    }
}

#[test]
fn a_wrong_way_or_a_missing_directory_is_an_error_before_the_first_request() {
    let site = WebSite::new();
    let app = site.path("cgi-bin/wraps.wsgi");
    let run = |way: &str| {
        let mut command = Command::new(site.path("bin/wsgate"));
        let socket = format!("unix:{}", site.path("run/wraps.sock").display());
        command.args(["fastcgi", "--listen", &socket, "--sendfile", way]).arg(&app);
        child_process::run(&mut command, "")
    };
    for (way, code, said) in [
        ("x-accel:/p=/tmp", 2, "a LOCATION that begins and ends with `/`"),
        ("x-sendfile:files", 2, "the directory `files` is no absolute path"),
        ("/srv/files", 2, "such as `x-accel:/protected/=/srv/files`"),
        ("x-sendfile:/nonexistent", 78, "the directory `/nonexistent` for --sendfile"),
    ] {
        let ended = run(way);
        assert_eq!(ended.code(), Some(code), "{way}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{way}: {}", ended.stderr);
    }
}

#[test]
fn a_request_from_the_shell_gets_the_file_itself() {
    let offered = Offered::new();
    let site = site_with(&format!("--sendfile {}", offered.option("x-sendfile:")));
    let mut command = Command::new(site.path("bin/wsgate"));
    let target = format!("/?path={}", offered.path("plain.txt").display());
    let ended = child_process::run(
        command.arg("call").arg(site.path("cgi-bin/wraps.wsgi")).arg(target),
        "",
    );
    assert_eq!(ended.text(), Offered::content("plain.txt"), "{}", ended.stderr);
}
