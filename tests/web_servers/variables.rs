//! Changes of a request by web servers and our configurations: variables, repetitions, caches.

use std::{
    fs::{
        Permissions, {self},
    },
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};

use crate::{
    support::web_servers::{Haproxy, HttpClient, Nginx, WebServer},
    web_servers::behind_every_web_server,
};

behind_every_web_server! {
    all_variables_of_cgi_arrive
    no_client_becomes_a_user_by_a_header
    the_host_is_that_of_an_absolute_address
}

/// RFC 3875 4.1, and what everybody sends beside that.
fn all_variables_of_cgi_arrive(web_server: &mut dyn WebServer) {
    let url = web_server.script("environ.wsgi/a?format=json&b");
    let seen = HttpClient::get(&url).run().expect(200).json();
    let port = url.strip_prefix("http://127.0.0.1:").unwrap().split('/').next().unwrap().to_owned();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("HTTP_HOST", &format!("127.0.0.1:{port}")),
        ("PATH_INFO", "/a"),
        ("QUERY_STRING", "format=json&b"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/cgi-bin/environ.wsgi/a?format=json&b"),
        ("SCRIPT_NAME", "/cgi-bin/environ.wsgi"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", &port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    for name in ["REMOTE_PORT", "SERVER_SOFTWARE"] {
        assert!(seen[name].as_str().is_some_and(|value| !value.is_empty()), "{name}: {seen}");
    }
    // HAProxy has no such parameter, and sends HTTPS.
    assert!(seen["REQUEST_SCHEME"] == "http" || seen["REQUEST_SCHEME"].is_null(), "{seen}");
}

/// A password is the application's to check where the web server does not, and makes nobody a user
/// of the server's.
fn no_client_becomes_a_user_by_a_header(web_server: &mut dyn WebServer) {
    let request =
        HttpClient::get(web_server.script("environ.wsgi?format=json")).auth("ada", "lovelace");
    let request = request
        .header("Remote-User", "ada")
        .header("Remote_User", "ada")
        .header("Auth-Type", "Basic");
    let seen = request.run().expect(200).json();
    for name in ["REMOTE_USER", "AUTH_TYPE"] {
        assert!(seen[name].is_null() || seen[name] == "", "{name}: {seen}");
    }
    assert_eq!(seen["HTTP_AUTHORIZATION"], "Basic YWRhOmxvdmVsYWNl");
}

/// RFC 9112 3.2.2: a proxy that knows hosts by addresses would let through what the application
/// takes for another host.
fn the_host_is_that_of_an_absolute_address(web_server: &mut dyn WebServer) {
    let url = web_server.script("environ.wsgi/a?format=json");
    let (address, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET http://{address}/{target} HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).unwrap();
    if response.starts_with("HTTP/1.1 200 ") {
        assert!(response.contains(&format!("\"HTTP_HOST\": \"{address}\"")), "{response}");
    }
    assert!(!response.contains("other.example"), "{response}");
}

#[test]
fn a_user_whose_password_the_web_server_has_checked_is_named() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let passwords = directory.path().join("passwords");
    fs::write(&passwords, "ada:{PLAIN}lovelace\n").unwrap();
    for path in [directory.path(), &passwords] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let lines = format!(
        "auth_basic x; auth_basic_user_file {}; fastcgi_param REMOTE_USER $remote_user; \
         fastcgi_param AUTH_TYPE Basic;",
        passwords.display()
    );
    let mut web_servers: [Box<dyn WebServer>; 2] =
        [Box::new(Haproxy::with_passwords()), Box::new(Nginx::beside("", &lines))];
    for web_server in &mut web_servers {
        let url = web_server.script("environ.wsgi?format=json");
        let seen = HttpClient::get(&url).auth("ada", "lovelace").run().expect(200).json();
        assert_eq!((&seen["REMOTE_USER"], &seen["AUTH_TYPE"]), (&"ada".into(), &"Basic".into()));
        HttpClient::get(&url).auth("ada", "byron").run().expect(401);
        HttpClient::get(&url).run().expect(401);
    }
}

fn traces(web_server: &dyn WebServer) -> Vec<String> {
    let text = fs::read_to_string(web_server.site().path("var/traces")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn nginx_repeats_no_request_that_has_killed_its_worker() {
    let web_server = Nginx::with_words(&["--workers", "6"]);
    // The number of keep-alive connections of nginx.
    for _ in 0..2 {
        let pages =
            [(); 6].map(|()| HttpClient::get(web_server.script("leaves_traces.wsgi")).stream());
        for page in pages {
            assert_eq!(page.finish(), ("the page".to_owned(), true));
        }
    }
    HttpClient::get(web_server.script("leaves_traces.wsgi/dies")).run().expect(502);
    assert_eq!(
        traces(&web_server).iter().filter(|line| *line == "GET /dies").count(),
        1,
        "{:?}",
        traces(&web_server)
    );
}

#[test]
fn a_cache_of_nginx_gives_no_get_the_response_to_a_head() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let cache =
        format!("fastcgi_cache_path {}/cache keys_zone=pages:1m;", directory.path().display());
    let web_server = Nginx::beside(&cache, "fastcgi_cache pages;");
    let url = web_server.script("leaves_traces.wsgi/x");
    HttpClient::head(&url).run().expect(200);
    for _ in 0..3 {
        assert_eq!(HttpClient::get(&url).run().expect(200).text(), "the page");
    }
    HttpClient::head(&url).run().expect(200);
    assert_eq!(traces(&web_server), ["HEAD /x", "GET /x"], "each is asked of the application once");
}
