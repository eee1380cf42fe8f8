//! Connections that are kept change their worker where one is busy or ends, and clients notice
//! nothing.

use std::{io::Write as _, thread};

use crate::{
    support::web_servers::{HttpClient, WebServer},
    web_servers::behind_every_pool_web_server,
};

behind_every_pool_web_server! {
    a_page_that_waits_holds_up_no_other
    releases_cost_no_request
}

fn a_page_that_waits_holds_up_no_other(web_server: &mut dyn WebServer) {
    let mut gate = web_server.site().fifo("gate");
    let page = || HttpClient::get(web_server.script("waits_if_asked.wsgi")).stream();
    for _ in 0..3 {
        // Enough requests at once for keep-alive connections to each worker.
        for response in [(); 6].map(|()| page()) {
            assert_eq!(response.finish(), ("first\nsecond\n".to_owned(), true));
        }
        let mut waits = HttpClient::get(web_server.script("waits_if_asked.wsgi?wait")).stream();
        assert_eq!(waits.read_until("first\n"), "first\n");
        for response in [(); 6].map(|()| page()) {
            assert_eq!(response.finish(), ("first\nsecond\n".to_owned(), true));
        }
        gate.write_all(b"go\n").unwrap();
        assert_eq!(waits.finish(), ("first\nsecond\n".to_owned(), true));
    }
}

fn releases_cost_no_request(web_server: &mut dyn WebServer) {
    let url = web_server.script("waits_if_asked.wsgi");
    HttpClient::get(&url).run().expect(200);
    let (site, mut asked) = (web_server.site(), 0);
    thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            for _ in 0..10 {
                let mut reload = site.as_server(site.path("bin/wsgate"));
                reload
                    .args(["reload", "waits-if-asked"])
                    .env("WSGATE_RUNTIME_DIR", site.path("var/wsgate"));
                assert!(reload.status().unwrap().success());
            }
        });
        while asked < 100 || !reloads.is_finished() {
            HttpClient::get(&url).run().expect(200);
            asked += 1;
        }
    });
}
