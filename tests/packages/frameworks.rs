//! Bottle, web.py, and Pyramid with WebOb: what their users write first.

use crate::{
    packages::in_every_mode,
    support::web_servers::{HttpClient, WebServer, source},
};

in_every_mode! {
    bottle_keeps_a_signed_cookie_reads_an_upload_and_sends_a_file
    webpy_says_hello_without_a_content_type_reads_a_form_and_redirects
    pyramid_answers_in_json_counts_in_a_session_and_sends_a_file
}

fn bottle_keeps_a_signed_cookie_reads_an_upload_and_sends_a_file(web_server: &mut dyn WebServer) {
    let jar = tempfile::NamedTempFile::new().unwrap();
    let hello = web_server.script("bottle.wsgi/hello/Zo%C3%AB");
    let text = HttpClient::get(hello).cookies(jar.path()).run().expect(200).text();
    assert_eq!(text, "Hello Zo\u{eb}, /cgi-bin/bottle.wsgi/hello/you\n");
    assert_eq!(
        HttpClient::get(web_server.script("bottle.wsgi/seen")).run().expect(200).text(),
        "nobody"
    );
    assert_eq!(
        HttpClient::get(web_server.script("bottle.wsgi/seen"))
            .cookies(jar.path())
            .run()
            .expect(200)
            .text(),
        "Zo\u{eb}"
    );

    let file = web_server.site().big_file("upload.bin", 200_000);
    let reported =
        HttpClient::post_multipart(web_server.script("bottle.wsgi/upload"), "file", &file)
            .run()
            .expect(200)
            .json();
    assert_eq!(reported, serde_json::json!({ "name": "upload.bin", "bytes": 200_000 }));
    sends_a_file_or_a_part_of_it(web_server, "bottle.wsgi");
}

fn sends_a_file_or_a_part_of_it(web_server: &dyn WebServer, script: &str) {
    let (url, name) =
        (web_server.script(&format!("{script}/source")), format!("tests/packages/apps/{script}"));
    // The first line is another one there.
    let lines = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = lines(&std::fs::read(source(&name)).unwrap());
    let whole = HttpClient::get(&url).run().expect(200);
    assert!(lines(&whole.body).starts_with(&expected), "{whole:?}");
    assert_eq!(whole.header("content-type").split(';').next(), Some("text/x-python"));

    let part = HttpClient::get(&url).header("Range", "bytes=100-199").run().expect(206);
    assert_eq!(part.body, whole.body[100..200], "{part:?}");
    let date = whole.header("last-modified");
    let same = HttpClient::get(&url).header("If-Modified-Since", date).run().expect(304);
    assert!(same.body.is_empty(), "{same:?}");
    assert!(!web_server.log().contains("W0505"), "{}", web_server.log());
}

fn webpy_says_hello_without_a_content_type_reads_a_form_and_redirects(
    web_server: &mut dyn WebServer,
) {
    let hello = HttpClient::get(web_server.script("webpy.wsgi/")).run().expect(200);
    assert_eq!(
        (hello.text().as_str(), hello.all("content-type")),
        ("Hello, world!", vec![]),
        "{hello:?}"
    );
    let form =
        HttpClient::post(web_server.script("webpy.wsgi/form"), "name=Zo%C3%AB").run().expect(200);
    assert_eq!(form.text(), "Hello, Zo\u{eb}!");
    let moved = HttpClient::get(web_server.script("webpy.wsgi/moved")).run().expect(303);
    assert_eq!(moved.header("location"), web_server.script("webpy.wsgi/form"));
    HttpClient::get(web_server.script("webpy.wsgi/nowhere")).run().expect(404);
}

fn pyramid_answers_in_json_counts_in_a_session_and_sends_a_file(web_server: &mut dyn WebServer) {
    let total = web_server.script("pyramid.wsgi/total");
    let reported = HttpClient::request("POST", &total, "[1, 2, 39]")
        .header("Content-Type", "application/json")
        .run();
    assert_eq!(reported.expect(200).json(), serde_json::json!({ "total": 42, "url": total }));

    let jar = tempfile::NamedTempFile::new().unwrap();
    for visits in 1..=3 {
        let url = web_server.script("pyramid.wsgi/visits");
        assert_eq!(HttpClient::get(url).cookies(jar.path()).run().expect(200).json(), visits);
    }
    sends_a_file_or_a_part_of_it(web_server, "pyramid.wsgi");
}
