//! prometheus_client: what several processes count adds up.

use std::thread;

use crate::{
    packages::in_every_mode,
    support::{
        waiting::eventually,
        web_servers::{HttpClient, WebServer},
    },
};

in_every_mode! {
    counters_of_all_processes_add_up
}

const CLIENTS: usize = 4;
const REQUESTS: usize = 5;

fn counters_of_all_processes_add_up(web_server: &mut dyn WebServer) {
    let counted = web_server.script("prometheus.wsgi/");
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    HttpClient::get(&counted).run().expect(200);
                }
            });
        }
    });
    HttpClient::request("DELETE", &counted, "").run().expect(200);

    // The library cannot read the counters while a worker that is loading creates its file.
    let mut metrics = String::new();
    eventually("no worker is creating its file of counters", || {
        let response = HttpClient::get(web_server.script("prometheus.wsgi/metrics")).run();
        metrics = response.text();
        response.status == 200
    });
    let total = CLIENTS * REQUESTS;
    for line in [
        format!("visits_total {}.0", total + 1),
        format!("methods_total{{method=\"GET\"}} {total}.0"),
        "methods_total{method=\"DELETE\"} 1.0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no `{line}`: {metrics}");
    }
}
