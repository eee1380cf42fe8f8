//! The parts of a response that reach the client.

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::behind_every_web_server,
};

behind_every_web_server! {
    a_response_to_head_has_the_headers_of_its_get_and_no_body
    a_redirect_by_path_is_the_browsers_to_follow
    a_response_with_a_location_keeps_its_status
    a_response_without_a_content_type_is_valid
    every_cookie_is_set_and_comes_back
    the_debug_page_cannot_be_injected_into
    printed_output_goes_to_the_log
}

fn a_response_to_head_has_the_headers_of_its_get_and_no_body(web_server: &mut dyn WebServer) {
    let get = HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
    let head = HttpClient::head(web_server.script("hello.wsgi")).run().expect(200);
    assert_eq!(head.header("content-type"), get.header("content-type"));
    assert!(head.body.is_empty(), "{head:?}");
}

/// RFC 3875 6.2.2: a path in `Location` alone would have the server answer with that page under
/// this address.
fn a_redirect_by_path_is_the_browsers_to_follow(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("redirects.wsgi")).run().expect(302);
    let location = response.header("location");
    // Servers may complete it to a whole address.
    assert!(location.ends_with("/cgi-bin/hello.wsgi"), "{location}");
    assert_eq!(response.text(), "Over there\n");
}

/// RFC 3875 6.2.4: a `Location` does not make a status. To some servers it does, if it comes behind
/// that.
fn a_response_with_a_location_keeps_its_status(web_server: &mut dyn WebServer) {
    for status in [201, 301, 303, 307, 308] {
        let response =
            HttpClient::get(web_server.script(&format!("points_elsewhere.wsgi?{status}")))
                .run()
                .expect(status);
        assert_eq!(response.header("location"), "http://elsewhere.example/");
    }
}

/// Web servers add none, or one of their own; HTTP asks for none (RFC 9110 8.3).
fn a_response_without_a_content_type_is_valid(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("has_no_type.wsgi")).run().expect(200);
    assert_eq!(response.text(), "X-Header: none\r\n\r\n<h1>Body</h1>\n");
    assert_eq!(response.all("x-header"), [""; 0]);
    let types = response.all("content-type");
    assert!(types.len() <= 1 && types != ["application/octet-stream"], "{types:?}");
    assert!(
        HttpClient::head(web_server.script("has_no_type.wsgi")).run().expect(200).body.is_empty()
    );
    let redirect =
        HttpClient::get(web_server.script("has_no_type.wsgi?redirect")).run().expect(303);
    assert_eq!(
        (redirect.header("location"), redirect.text().as_str()),
        ("http://elsewhere.example/", "Over there\n")
    );
    let nothing = HttpClient::get(web_server.script("has_no_type.wsgi?nothing")).run().expect(204);
    assert!(nothing.body.is_empty() && nothing.all("content-length").is_empty(), "{nothing:?}");
}

fn every_cookie_is_set_and_comes_back(web_server: &mut dyn WebServer) {
    let jar = tempfile::NamedTempFile::new().unwrap();
    let response = HttpClient::get(web_server.script("sets_cookies.wsgi"))
        .cookies(jar.path())
        .run()
        .expect(200);
    assert_eq!(response.all("set-cookie"), ["first=1; Path=/", "second=2; Path=/"]);
    assert_eq!(response.text(), "none");
    let response = HttpClient::get(web_server.script("sets_cookies.wsgi"))
        .cookies(jar.path())
        .run()
        .expect(200);
    // curl may send the cookies in any order.
    let text = response.text();
    let mut cookies: Vec<&str> = text.split("; ").collect();
    cookies.sort_unstable();
    assert_eq!(cookies, ["first=1", "second=2"]);
}

fn the_debug_page_cannot_be_injected_into(web_server: &mut dyn WebServer) {
    let request = HttpClient::get(web_server.script("environ.wsgi/%3Cscript%3E?%3Cb%3E"))
        .header("X-Name", "<script>alert(1)</script>");
    let response = request.run().expect(200);
    assert_eq!(response.header("content-type"), "text/html; charset=utf-8");
    assert!(!response.text().contains("<script>"), "{}", response.text());
    assert!(response.text().contains("&lt;script&gt;alert(1)"), "{}", response.text());
}

fn printed_output_goes_to_the_log(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("prints.wsgi")).run().expect(200);
    assert_eq!(response.text(), "only this\n");
    for line in ["printed by Python", "written to descriptor 1", "echoed by a child"] {
        eventually(&format!("the log has `{line}`"), || web_server.log().contains(line));
    }
}
