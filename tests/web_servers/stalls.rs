//! Clients that stall behind web servers which stream: `--timeout` ends their requests, and no
//! others.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::web_servers::{ApacheProxyFcgi, HttpClient, Nginx, WebServer, eventually};

const WORDS: [&str; 4] = ["--threads", "2", "--timeout", "1"];

#[test]
fn clients_of_nginx_that_do_not_read_harm_nobody() {
    others_are_served(
        &mut Nginx::with_words(&WORDS),
        "GET /cgi-bin/large_if_asked.wsgi/large HTTP/1.0\r\n\r\n",
    );
}

#[test]
fn clients_of_apache_that_do_not_read_harm_nobody() {
    let request = "GET /cgi-bin/large_if_asked.wsgi/large HTTP/1.0\r\n\r\n";
    others_are_served(&mut ApacheProxyFcgi::with_words(&WORDS), request);
}

#[test]
fn clients_of_apache_that_do_not_send_their_bodies_harm_nobody() {
    let response =
        "POST /cgi-bin/large_if_asked.wsgi/body HTTP/1.0\r\nContent-Length: 1000000\r\n\r\n";
    others_are_served(
        &mut ApacheProxyFcgi::with_words(&WORDS),
        &format!("{response}{}", "x".repeat(100_000)),
    );
}

/// Two clients stall, and others are served by the same workers meanwhile.
fn others_are_served(web_server: &mut dyn WebServer, request: &str) {
    let url = web_server.script("large_if_asked.wsgi");
    let pid = || HttpClient::get(&url).run().expect(200).header("x-pid").to_owned();
    let mut workers = BTreeSet::from([pid()]);
    let address = url.split('/').nth(2).unwrap().to_owned();
    let stalled = [(); 2].map(|()| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    });
    // Longer than a supervisor leaves a worker alone whose request is late.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        workers.insert(pid());
    }
    assert!(workers.len() <= 2, "{workers:?}");
    eventually("both requests were ended", || web_server.log().matches("[W0604]").count() == 2);
    // Apache waits for the rest of a body before it passes a response on.
    for mut stream in stalled.into_iter().filter(|_| !request.starts_with("POST")) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut sent = Vec::new();
        // A web server may reset what it has cut.
        let _ = stream.read_to_end(&mut sent);
        assert!(sent.len() < 2048 * 65536, "{}", sent.len());
    }
    let log = web_server.stop();
    assert_eq!(log.matches("wsgate: error[").count(), 2, "{log}");
}
