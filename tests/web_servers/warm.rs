//! Requests that are handed to a warm pool by the gateway which a web server starts.

use std::collections::HashSet;

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::{behind_every_resident_web_server, behind_every_warm_web_server},
};

fn each_request_has_a_process_of_its_own(web_server: &mut dyn WebServer) {
    assert_eq!(who_serve_ten_visits(web_server).len(), 10);
}

fn requests_are_served_by_the_existing_processes(web_server: &mut dyn WebServer) {
    let pids = who_serve_ten_visits(web_server);
    assert!(pids.len() <= 3, "{pids:?}");
}

/// The processes that serve ten visits, one after the other.
#[track_caller]
fn who_serve_ten_visits(web_server: &dyn WebServer) -> HashSet<String> {
    let url = web_server.script("visits.wsgi");
    let pids = (0..10).map(|number| {
        let body = format!("visit {number}");
        let response = HttpClient::post(format!("{url}?{number}"), &body).run().expect(200);
        assert_eq!(response.text(), body);
        response.header("x-pid").to_owned()
    });
    let pids = pids.collect();
    eventually("what it prints is in the error log", || {
        web_server.log().contains("visits.wsgi serves 9")
    });
    pids
}

fn large_bodies_go_through(web_server: &mut dyn WebServer) {
    let file = web_server.site().big_file("upload", 3 << 20);
    let response = HttpClient::post_file(web_server.script("visits.wsgi"), &file).run().expect(200);
    assert!(response.body == std::fs::read(file).unwrap(), "{} bytes", response.body.len());
}

fn a_process_that_crashes_is_answered_with_an_error_page(web_server: &mut dyn WebServer) {
    let url = web_server.script("visits.wsgi");
    let status = HttpClient::get(format!("{url}?dies")).run().status;
    // A request that was served cold is answered by who knows how its process ended.
    assert!([500, 502].contains(&status), "{status}");
    let cut = HttpClient::get(format!("{url}?dies-late")).run();
    assert_eq!((cut.status, cut.text().as_str()), (200, "first"));
    HttpClient::get(&url).run().expect(200);
}

behind_every_warm_web_server! {
    each_request_has_a_process_of_its_own
    large_bodies_go_through
    a_process_that_crashes_is_answered_with_an_error_page
}
behind_every_resident_web_server! {
    requests_are_served_by_the_existing_processes
    large_bodies_go_through
    a_process_that_crashes_is_answered_with_an_error_page
}
