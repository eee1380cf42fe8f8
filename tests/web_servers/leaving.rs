//! Clients and web servers that leave before there is a response: nobody's mistake, and no message.

use crate::{
    support::web_servers::{Client, Front, eventually},
    web_servers::{behind_every_cgi_front, behind_every_fastcgi_front},
};

behind_every_cgi_front! {
    a_web_server_that_stops_makes_no_message
}

behind_every_fastcgi_front! {
    a_client_that_leaves_before_its_response_makes_no_message
}

/// lighttpd ends the program when its client leaves. Apache looks when it has something to send.
mod impatient_lighttpd {
    use crate::support::web_servers::{Lighttpd, Warm};

    #[test]
    fn a_client_that_leaves_before_its_response_makes_no_message() {
        super::a_client_that_leaves_before_its_response_makes_no_message(&mut Lighttpd::start());
    }

    #[test]
    fn a_client_of_a_warm_pool_that_leaves_before_its_response_makes_no_message() {
        super::a_client_that_leaves_before_its_response_makes_no_message(&mut Warm::lighttpd(
            "warm",
        ));
    }
}

fn a_client_that_leaves_before_its_response_makes_no_message(front: &mut dyn Front) {
    let mut gate = front.site().fifo("gate");
    let response = Client::get(front.script("waits_before_its_response.wsgi")).stream();
    eventually("the application works", || front.log().contains("at the gate"));
    response.abort();
    // lighttpd ends the program; others have the application go on.
    std::io::Write::write_all(&mut gate, b"go\n").unwrap();
    Client::get(front.script("hello.wsgi")).run().expect(200);
    no_message(&front.stop());
}

fn a_web_server_that_stops_makes_no_message(front: &mut dyn Front) {
    let _gate = front.site().fifo("gate");
    let response = Client::get(front.script("waits_before_its_response.wsgi")).stream();
    eventually("the application works", || front.log().contains("at the gate"));
    let log = front.stop();
    eventually("no process of ours is left", || front.site().processes().is_empty());
    no_message(&log);
    no_message(&front.log());
    response.abort();
}

#[track_caller]
fn no_message(log: &str) {
    assert!(!log.contains("wsgate: error[") && !log.contains("Traceback"), "{log}");
}
