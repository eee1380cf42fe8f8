//! Clients and web servers that leave before there is a response: nobody's mistake, and no message.

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::{behind_every_cgi_web_server, behind_every_fastcgi_web_server},
};

behind_every_cgi_web_server! {
    a_web_server_that_stops_makes_no_message
}

behind_every_fastcgi_web_server! {
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

fn a_client_that_leaves_before_its_response_makes_no_message(web_server: &mut dyn WebServer) {
    let mut gate = web_server.site().fifo("gate");
    let response = HttpClient::get(web_server.script("waits_before_its_response.wsgi")).stream();
    eventually("the application works", || web_server.log().contains("at the gate"));
    response.abort();
    // lighttpd ends the program; others have the application go on.
    std::io::Write::write_all(&mut gate, b"go\n").unwrap();
    HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
    no_message(&web_server.stop());
}

fn a_web_server_that_stops_makes_no_message(web_server: &mut dyn WebServer) {
    let _gate = web_server.site().fifo("gate");
    let response = HttpClient::get(web_server.script("waits_before_its_response.wsgi")).stream();
    eventually("the application works", || web_server.log().contains("at the gate"));
    let log = web_server.stop();
    eventually("no process of ours is left", || web_server.site().processes().is_empty());
    no_message(&log);
    no_message(&web_server.log());
    response.abort();
}

#[track_caller]
fn no_message(log: &str) {
    assert!(!log.contains("wsgate: error[") && !log.contains("Traceback"), "{log}");
}
