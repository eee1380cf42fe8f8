//! The parts of a request that reach the application.

use crate::{
    support::web_servers::{HttpClient, WebServer},
    web_servers::behind_every_web_server,
};

behind_every_web_server! {
    a_get_is_answered
    the_query_arrives_still_encoded
    a_query_is_never_an_option
    a_posted_form_arrives_whole
    a_path_arrives_as_its_bytes
    a_path_and_its_script_lead_back_to_the_address
    a_password_arrives
    a_proxy_header_does_not_arrive
    a_repeated_header_arrives_joined
}

fn a_get_is_answered(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
    assert_eq!(response.text(), "Hello from WSGI\n");
    assert_eq!(response.header("content-type"), "text/plain; charset=utf-8");
}

fn the_query_arrives_still_encoded(web_server: &mut dyn WebServer) {
    let seen = HttpClient::get(web_server.script("environ.wsgi?format=json&q=a%20b+c%C3%A9&q="))
        .run()
        .expect(200)
        .json();
    assert_eq!(seen["QUERY_STRING"], "format=json&q=a%20b+c%C3%A9&q=");
    assert_eq!(seen["REQUEST_METHOD"], "GET");
}

/// A query without `=` becomes the program's arguments (RFC 3875 4.4).
fn a_query_is_never_an_option(web_server: &mut dyn WebServer) {
    for query in ["--version", "--python+/nonexistent/python", "cgi+/etc/passwd", "-h"] {
        let response =
            HttpClient::get(web_server.script(&format!("hello.wsgi?{query}"))).run().expect(200);
        assert_eq!(response.text(), "Hello from WSGI\n", "{query}");
    }
}

fn a_posted_form_arrives_whole(web_server: &mut dyn WebServer) {
    let response =
        HttpClient::post(web_server.script("upload.wsgi"), "name=Ada&born=1815").run().expect(200);
    assert!(response.text().starts_with("bytes: 18\n"), "{response:?}");
    let seen =
        HttpClient::post(web_server.script("environ.wsgi?format=json"), "name=Ada&born=1815")
            .run()
            .expect(200)
            .json();
    assert_eq!(seen["CONTENT_LENGTH"], "18");
    assert_eq!(seen["CONTENT_TYPE"], "application/x-www-form-urlencoded");
    assert!(seen["HTTP_CONTENT_LENGTH"].is_null() && seen["HTTP_CONTENT_TYPE"].is_null(), "{seen}");
}

/// PEP 3333 "Unicode Issues": a path is its bytes, each as the character of that number.
fn a_path_arrives_as_its_bytes(web_server: &mut dyn WebServer) {
    for (asked, bytes) in [
        ("/caf%C3%A9/%E2%82%AC", &b"/caf\xc3\xa9/\xe2\x82\xac"[..]),
        ("/latin-%E9", b"/latin-\xe9"),
        ("/a%20b/100%25/%3Fno-query/%23", b"/a b/100%/?no-query/#"),
        ("/100%2525", b"/100%25"),
        ("/plus+sign;v=1", b"/plus+sign;v=1"),
    ] {
        let seen = HttpClient::get(web_server.script(&format!("environ.wsgi{asked}?format=json")))
            .run()
            .expect(200)
            .json();
        let latin_1: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        assert_eq!(seen["PATH_INFO"], latin_1.as_str(), "{asked}");
        assert_eq!(seen["QUERY_STRING"], "format=json", "{asked}");
    }
}

/// RFC 3875 3.3: SCRIPT_NAME and PATH_INFO together are the path that was asked for.
fn a_path_and_its_script_lead_back_to_the_address(web_server: &mut dyn WebServer) {
    for path_info in ["", "/", "/a/b", "/a/b/", "/hello.wsgi"] {
        let seen =
            HttpClient::get(web_server.script(&format!("environ.wsgi{path_info}?format=json")))
                .run()
                .expect(200)
                .json();
        assert_eq!(seen["SCRIPT_NAME"], "/cgi-bin/environ.wsgi");
        // Missing and empty mean the same (RFC 3875 4.1).
        assert_eq!(seen["PATH_INFO"].as_str().unwrap_or_default(), path_info);
    }
}

fn a_password_arrives(web_server: &mut dyn WebServer) {
    let request =
        HttpClient::get(web_server.script("environ.wsgi?format=json")).auth("ada", "lovelace");
    let seen = request.run().expect(200).json();
    assert_eq!(seen["HTTP_AUTHORIZATION"], "Basic YWRhOmxvdmVsYWNl");
}

/// CVE-2016-1000110: a header named `Proxy` must not become the variable that HTTP libraries obey.
fn a_proxy_header_does_not_arrive(web_server: &mut dyn WebServer) {
    let request = HttpClient::get(web_server.script("environ.wsgi?format=json"))
        .header("Proxy", "http://evil.example/");
    let seen = request.run().expect(200).json();
    assert!(seen["HTTP_PROXY"].is_null(), "{seen}");
}

fn a_repeated_header_arrives_joined(web_server: &mut dyn WebServer) {
    let request = HttpClient::get(web_server.script("environ.wsgi?format=json"))
        .header("X-Part", "one")
        .header("X-Part", "two");
    let seen = request.run().expect(200).json();
    assert_eq!(
        seen["HTTP_X_PART"],
        if web_server.habits().joins_repeated_headers { "one, two" } else { "two" }
    );
}
