//! Requests that are handed to a warm pool by the gateway which a web server starts.

use std::collections::HashSet;

use super::behind_every_cgi_front;
use crate::front::{Client, Front, eventually};

/// Visits until a warm process has replied. The first visit starts the pool.
#[track_caller]
fn warm_up(front: &impl Front) -> String {
    let url = front.script("warm.wsgi");
    eventually("a warm process replies", || {
        let response = Client::get(&url).run();
        response.expect(200).header("x-warm") == "True"
    });
    url
}

fn each_visit_has_a_process_of_its_own(front: &mut impl Front) {
    let url = warm_up(front);
    let mut pids = HashSet::new();
    for number in 0..10 {
        let body = format!("visit {number}");
        let response = Client::post(format!("{url}?{number}"), &body).run().expect(200);
        assert_eq!(response.text(), body);
        assert!(pids.insert(response.header("x-pid").to_owned()), "{pids:?}");
    }
    eventually("what it prints is in the error log", || front.log().contains("warm.wsgi serves 9"));
}

fn large_bodies_go_through(front: &mut impl Front) {
    let url = warm_up(front);
    let file = front.site().big_file("upload", 3 << 20);
    let response = Client::post_file(&url, &file).run().expect(200);
    assert!(response.body == std::fs::read(file).unwrap(), "{} bytes", response.body.len());
}

fn a_process_that_dies_is_answered_for(front: &mut impl Front) {
    let url = warm_up(front);
    let status = Client::get(format!("{url}?dies")).run().status;
    // A request that was served cold is answered by who knows how its process ended.
    assert!([500, 502].contains(&status), "{status}");
    let cut = Client::get(format!("{url}?dies-late")).run();
    assert_eq!((cut.status, cut.text().as_str()), (200, "first"));
    Client::get(&url).run().expect(200);
}

behind_every_cgi_front! {
    each_visit_has_a_process_of_its_own
    large_bodies_go_through
    a_process_that_dies_is_answered_for
}
