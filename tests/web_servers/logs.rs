//! The messages of a pool in the log of its web server, in the format of that server.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
};

use crate::support::web_servers::{ApacheFcgid, ApacheProxyFcgi, HttpClient, Nginx, WebServer};

#[test]
fn nginx_logs_the_messages_of_a_request() {
    logs_the_messages_of_a_request(
        &mut Nginx::with_words(&["--errors-to-server"]),
        "FastCGI sent in stderr: \"",
    );
}

#[test]
fn apache_logs_the_messages_of_a_request() {
    logs_the_messages_of_a_request(
        &mut ApacheProxyFcgi::with_words(&["--errors-to-server"]),
        "AH01071: Got error '",
    );
}

/// mod_fcgid starts scripts alone, so that one stands before each application.
#[test]
fn mod_fcgid_logs_the_messages_of_a_request() {
    let mut web_server = ApacheFcgid::start();
    for script in ["raises.wsgi", "writes_to_errors.wsgi", "hello.wsgi"] {
        let path = |name: &str| web_server.site().path("cgi-bin").join(name).display().to_string();
        let (starts, started) = (path(script), path(&format!("of_{script}")));
        fs::rename(&starts, &started).unwrap();
        let wsgate = web_server.site().path("bin/wsgate").display().to_string();
        fs::write(
            &starts,
            format!("#!/bin/sh\nexec {wsgate} fastcgi --errors-to-server {started}\n"),
        )
        .unwrap();
        fs::set_permissions(&starts, Permissions::from_mode(0o755)).unwrap();
    }
    logs_the_messages_of_a_request(&mut web_server, "mod_fcgid: stderr: ");
}

/// `args` are those that the server puts before the message.
fn logs_the_messages_of_a_request(web_server: &mut dyn WebServer, args: &str) {
    for _ in 0..3 {
        let page = HttpClient::get(web_server.script("raises.wsgi")).run().expect(500);
        assert!(page.text().contains("<code>"), "the page of the pool itself: {page:?}");
        let page = HttpClient::get(web_server.script("writes_to_errors.wsgi")).run().expect(200);
        assert_eq!(page.text(), "only this\n");
        HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
    }
    let log = web_server.stop();
    let messages: Vec<_> =
        log.lines().filter(|line| line.contains(&format!("{args}wsgate: error[W0501]"))).collect();
    assert_eq!(messages.len(), 3, "{log}");
    for note in ["a note before the headers", "a note during the body"] {
        let reported =
            log.lines().filter(|line| line.contains(args) && line.contains(note)).count();
        assert_eq!(reported, 3, "{note}: {log}");
    }
    // Other requests log nothing, and the web server reports no fault of a response.
    assert!(!log.lines().any(|line| line.contains(args) && line.contains("hello")), "{log}");
    assert!(!log.contains("prematurely") && !log.contains("malformed"), "{log}");
}
