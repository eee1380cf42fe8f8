//! Content-Length: it arrives as the application has said it, and no body differs from it without
//! anybody's notice.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::{
    support::web_servers::{HttpClient, HttpResponse, WebServer},
    web_servers::behind_every_web_server,
};

behind_every_web_server! {
    a_content_length_arrives
    a_response_to_head_has_the_headers_of_a_get
    what_comes_behind_a_short_body_is_not_taken_for_the_next_response
}

/// Apache since 2.4.59 drops it unless configured otherwise, and a client cannot know how much is
/// to come.
fn a_content_length_arrives(web_server: &mut dyn WebServer) {
    for (path, length) in [("/fits", 100_000), ("/list", 10)] {
        for method in ["GET", "HEAD"] {
            let url = web_server.script(&format!("has_length.wsgi{path}"));
            let request =
                if method == "GET" { HttpClient::get(url) } else { HttpClient::head(url) };
            let response = request.run().expect(200);
            assert_eq!(
                response.header("content-length"),
                length.to_string(),
                "{method} {path}: {response:?}"
            );
            assert_eq!(
                response.body.len(),
                if method == "GET" { length } else { 0 },
                "{method} {path}"
            );
        }
    }
    // Surplus bytes are cut off.
    let response = HttpClient::get(web_server.script("has_length.wsgi/long")).run().expect(200);
    assert_eq!(
        (response.header("content-length"), response.body.len()),
        ("50000", 50_000),
        "{response:?}"
    );
}

/// RFC 9110 9.3.2: the same headers, though those that only a body makes known may be missing.
fn a_response_to_head_has_the_headers_of_a_get(web_server: &mut dyn WebServer) {
    let headers = |response: &HttpResponse| {
        let of_connection =
            ["date", "transfer-encoding", "connection", "keep-alive", "accept-ranges"];
        let mut headers = response.headers.clone();
        headers.retain(|(name, _)| !of_connection.contains(&name.as_str()));
        headers.sort_unstable();
        headers
    };
    for path in ["/fits", "/list", "/generator"] {
        let url = web_server.script(&format!("has_length.wsgi{path}"));
        let (get, head) =
            (HttpClient::get(&url).run().expect(200), HttpClient::head(&url).run().expect(200));
        let mut of_get = headers(&get);
        if head.all("content-length").is_empty() {
            assert_eq!(path, "/generator", "the application says how long the body is: {head:?}");
            of_get.retain(|(name, _)| name != "content-length");
        }
        assert_eq!(of_get, headers(&head), "{path}");
        // `Content-Length: 0` would be wrong.
        assert!(head.all("content-length").iter().all(|&length| length != "0"), "{path}: {head:?}");
    }
}

/// On a keep-alive connection of the client's, bytes of the next response would complete a body
/// that is too short. Two requests are sent at once: the second is not answered on this connection.
fn what_comes_behind_a_short_body_is_not_taken_for_the_next_response(
    web_server: &mut dyn WebServer,
) {
    for path in ["/short", "/raises"] {
        let url = web_server.script(&format!("has_length.wsgi{path}"));
        let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut connection = TcpStream::connect(host).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(connection, "GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        // The server may have closed the connection by now.
        let second =
            format!("GET /{target}?second HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let _ = connection.write_all(second.as_bytes());
        let mut response = Vec::new();
        // A connection that is reset is cut, too.
        let _ = connection.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response).into_owned();
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        // nginx handles a short body by the way in which its connection to the pool ends.
        if head.to_ascii_lowercase().contains("content-length: 100000")
            && !head.contains("Server: nginx")
        {
            assert!(
                !body.contains("HTTP/1.1"),
                "{path}: {} bytes, and then another response",
                body.len()
            );
        }
    }
}
