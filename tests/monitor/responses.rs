//! What each address answers.

use rustix::process::Signal;

use crate::{
    monitor::{Monitor, sample, user},
    pool::{ECHO, GATED},
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, signal},
        probe::dedent,
        web_servers::{HttpClient, eventually},
    },
};

#[test]
fn the_pages_show_the_pool_and_its_requests() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    pool.ask(&FastcgiRequest::get("/"));
    monitor.await_metric(&sample("wsgate_requests_total", "", "1"));
    monitor.await_metric(&sample("wsgate_request_duration_seconds_count", "", "1"));
    monitor.await_metric(&sample("wsgate_responses_total", ",class=\"2xx\"", "1"));
    monitor.await_metric(&sample("wsgate_pool_up", "", "1"));
    let status = monitor.get("/pools.json").json();
    assert_eq!((&status[0]["name"], &status[0]["up"]), (&"app".into(), &true.into()), "{status}");
    assert_eq!(status[0]["requests"], 1, "{status}");
    let page = monitor.get("/");
    assert!(page.text().contains("app.wsgi") && page.text().contains("serving"), "{page:?}");
    assert_eq!(monitor.get("/healthz").text(), "ok\n");
    assert_eq!(monitor.get("/favicon.ico").status, 404);
    monitor.stop();
    pool.stop();
}

#[test]
fn each_response_has_headers_that_protect_a_browser() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    for path in ["/", "/metrics", "/pools.json", "/healthz", "/readyz?pool=app", "/nothing"] {
        let response = monitor.get(path);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(response.all(name), [value], "{path}: {response:?}");
        }
        let policy = response.all("content-security-policy").join(";");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
    pool.stop();
}

#[test]
fn a_pool_is_ready_while_a_worker_serves_and_it_does_not_stop() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let monitor = Monitor::of(&pool);
    let ready = |name: &str| monitor.get(&format!("/readyz?pool={name}")).status;
    eventually("it is ready", || ready("app") == 200);
    assert_eq!((ready("a%70p"), ready("other"), ready("")), (200, 404, 404));
    let status = monitor.get("/pools.json").json();
    let user = status[0]["user"].as_str().unwrap();
    assert_eq!((ready(&format!("{user}/app")), ready("nobody-else/app")), (200, 404));
    for query in ["", "?pool=app&user=x", "?pools=app", "?pool=app&x"] {
        assert_eq!(monitor.get(&format!("/readyz{query}")).status, 400, "{query}");
    }
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("slow");
    pool.signal(Signal::TERM);
    eventually("it stops", || ready("app") == 503);
    pool.open_gate();
    connection.response();
    pool.end();
    eventually("it has stopped", || ready("app") == 404);
}

#[test]
fn a_pool_that_is_still_loading_its_code_is_not_ready() {
    let code =
        format!("import os\nprint('loads')\nopen(os.environ['GATE']).read(1)\n{}", dedent(ECHO));
    let mut pool = PoolSetup::new(&code).gated().launch();
    pool.await_log("loads");
    let monitor = Monitor::of(&pool);
    let response = monitor.get("/readyz?pool=app");
    assert_eq!(response.status, 503, "{response:?}");
    pool.open_gate();
    eventually("it is ready", || monitor.get("/readyz?pool=app").status == 200);
    pool.stop();
}

#[test]
fn everything_is_answered_while_all_workers_are_stopped() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
    let mut workers = pool.loaded_workers(2);
    // The sentence names the workers in this order.
    workers.sort_unstable();
    let monitor = Monitor::of(&pool);
    workers.iter().for_each(|&pid| signal(pid, Signal::STOP));
    let connection = pool.connect();
    connection.send(&FastcgiRequest::get("/").bytes());
    for path in ["/", "/metrics", "/pools.json", "/healthz"] {
        let response = monitor.get(path);
        assert_eq!((response.status, response.exit), (200, 0), "{path}: {response:?}");
    }
    let pids: Vec<String> = workers.iter().map(i32::to_string).collect();
    let sentence = format!(
        "2 workers are stopped by a signal and serve nothing: kill -CONT {}",
        pids.join(" ")
    );
    // The kernel stops a process when that runs next.
    let ready = format!("{sentence}\n");
    eventually("the pool is not ready", || {
        let response = monitor.get("/readyz?pool=app");
        (response.status, response.text()) == (503, ready.clone())
    });
    assert!(monitor.get("/").text().contains(&sentence));
    assert!(monitor.metrics().contains(&sample("wsgate_workers_stopped", "", "2")));
    let status = pool.run_wsgate(&["status", "app"]).text();
    assert!(status.contains(&sentence), "{status}");
    assert_eq!(status.matches(" stopped  ").count(), 2, "{status}");
    assert_eq!(pool.run_wsgate(&["top", "app"]).text().matches(" stopped ").count(), 2);
    signal(workers[0], Signal::CONT);
    eventually("a worker serves again", || monitor.get("/readyz?pool=app").status == 200);
    assert!(monitor.metrics().contains(&sample("wsgate_pool_up", "", "1")));
    workers.iter().for_each(|&pid| signal(pid, Signal::CONT));
    drop(connection);
    pool.stop();
}

#[test]
fn the_stacks_of_a_worker_show_where_its_request_is() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let [worker] = pool.loaded_workers(1)[..] else { panic!() };
    let monitor = Monitor::of(&pool);
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/slow").param("REQUEST_URI", "/slow/<b>?token=secret");
    connection.send(&request.bytes());
    pool.await_log("at the gate");
    let stacks = |pid: i32| monitor.get(&format!("/stacks?pool=app&pid={pid}"));
    eventually("the request is shown with its stack", || {
        let page = stacks(worker).text();
        page.contains("application ")
            && page.contains("app.wsgi:")
            && page.contains("/slow/&lt;b&gt;")
    });
    let of_user = monitor.get(&format!("/stacks?pool={}/app&pid={worker}", user()));
    assert_eq!(of_user.status, 200, "{of_user:?}");
    let of_nobody = monitor.get(&format!("/stacks?pool=nobody-else/app&pid={worker}"));
    assert_eq!(of_nobody.status, 404, "{of_nobody:?}");
    let link = format!("href=\"stacks?pool=app&amp;pid={worker}\"");
    eventually("a long request has a link", || monitor.get("/").text().contains(&link));
    assert_eq!(stacks(1).status, 404);
    for text in [stacks(worker).text(), monitor.get("/").text(), monitor.get("/pools.json").text()]
    {
        assert!(text.contains("/slow/") && !text.contains("secret"), "{text}");
    }
    for query in ["", "?pool=app", "?pool=app&pid=x", "?pid=1", "?pool=app&pid=1&x=1"] {
        assert_eq!(monitor.get(&format!("/stacks{query}")).status, 400, "{query}");
    }
    assert!(monitor.metrics().contains(&sample("wsgate_pool_up", "", "1")));
    pool.open_gate();
    connection.response();
    pool.stop();
}

#[test]
fn only_get_and_head_are_answered() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"] {
        let response = HttpClient::request(method, monitor.url("/"), "").run();
        assert_eq!((response.status, response.all("allow")), (405, vec!["GET, HEAD"]), "{method}");
    }
    let head = HttpClient::head(monitor.url("/metrics")).run();
    assert_eq!((head.status, head.body.len()), (200, 0));
    pool.stop();
}
