//! Large bodies, in and out.

use std::{fs, path::Path, process::Command};

use crate::{
    support::web_servers::{HttpClient, HttpResponse, WebServer},
    web_servers::behind_every_web_server,
};

const MIB: usize = 1 << 20;

behind_every_web_server! {
    an_upload_of_50_mb_arrives_whole_in_flat_memory
    a_multipart_upload_of_50_mb_arrives_whole_in_flat_memory
    a_download_of_100_mb_arrives_whole
    a_body_of_50_mb_may_be_left_unread
    a_body_in_chunks_arrives_whole
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[track_caller]
fn peak_kib(response: &HttpResponse) -> u64 {
    response.header("x-peak-memory-kib").parse().unwrap()
}

/// The extra memory that the larger of two requests may take: far less than its body.
const SLACK_KIB: u64 = 4096;

fn an_upload_of_50_mb_arrives_whole_in_flat_memory(web_server: &mut dyn WebServer) {
    let file = web_server.site().big_file("upload", 50 * MIB);
    let small = HttpClient::post(web_server.script("peak_memory.wsgi"), "little").run().expect(200);
    let large =
        HttpClient::put_file(web_server.script("peak_memory.wsgi"), &file).run().expect(200);
    assert_eq!(large.text(), format!("bytes: {}\nsha256: {}\n", 50 * MIB, sha256(&file)));
    assert!(
        peak_kib(&large) < peak_kib(&small) + SLACK_KIB,
        "{} {}",
        peak_kib(&small),
        peak_kib(&large)
    );
}

fn a_multipart_upload_of_50_mb_arrives_whole_in_flat_memory(web_server: &mut dyn WebServer) {
    let little = web_server.site().big_file("little", 64);
    let file = web_server.site().big_file("upload", 50 * MIB);
    let small =
        HttpClient::post_multipart(web_server.script("peak_memory.wsgi/?form"), "file", &little)
            .run()
            .expect(200);
    let large =
        HttpClient::post_multipart(web_server.script("peak_memory.wsgi/?form"), "file", &file)
            .run()
            .expect(200);
    assert_eq!(large.text(), format!("bytes: {}\nsha256: {}\n", 50 * MIB, sha256(&file)));
    // The form's parser keeps half a megabyte in memory before it takes a file.
    assert!(
        peak_kib(&large) < peak_kib(&small) + SLACK_KIB,
        "{} {}",
        peak_kib(&small),
        peak_kib(&large)
    );
}

fn a_download_of_100_mb_arrives_whole(web_server: &mut dyn WebServer) {
    let file = web_server.site().big_file("big", 100 * MIB);
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let copy = scratch.path().join("copy");
    HttpClient::get(web_server.script("sends_file.wsgi")).save(&copy).expect(200);
    assert_eq!(fs::metadata(&copy).unwrap().len(), 100 * MIB as u64);
    assert_eq!(sha256(&copy), sha256(&file));
}

/// RFC 3875 4.2: a script need not read the body, and what it leaves must not break its response.
fn a_body_of_50_mb_may_be_left_unread(web_server: &mut dyn WebServer) {
    let file = web_server.site().big_file("upload", 50 * MIB);
    let response = HttpClient::post_file(web_server.script("ignores_body.wsgi"), &file).run();
    assert_eq!(
        (response.status, response.body.len()),
        (200, 300_000),
        "curl's exit code is {}",
        response.exit
    );
    // curl may be refused the rest of the body; its 28 would be that it has waited in vain.
    assert_ne!(response.exit, 28, "the response is whole and the client kept waiting");
    assert!(response.body.chunks(10).all(|block| block == b"0123456789"));
}

/// RFC 9112 7.1: its length is known at its end alone. Some servers count it first, and send
/// CONTENT_LENGTH; some do not.
fn a_body_in_chunks_arrives_whole(web_server: &mut dyn WebServer) {
    let most = web_server.habits().most_in_chunks;
    for length in [5, 8192, MIB] {
        let file = web_server.site().big_file("upload", length);
        let request = HttpClient::post_file(web_server.script("upload.wsgi"), &file)
            .header("Transfer-Encoding", "chunked");
        // curl does not wait for `100 Continue`.
        let response = request.header("Expect", "").run();
        if most.is_some_and(|most| length > most) {
            // HAProxy alone: it counts a body before it asks the pool, and has no place for this
            // one. No part of it may be taken for the whole.
            assert!(matches!(response.status, 0 | 400), "{response:?}");
        } else {
            let response = response.expect(200);
            assert_eq!(response.text(), format!("bytes: {length}\nsha256: {}\n", sha256(&file)));
        }
    }
    assert!(!web_server.stop().contains("wsgate: error["), "nothing has failed");
}
