//! The separation of threads, workers and requests.

use std::collections::HashSet;

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, count},
    },
};

/// Waits until four threads are here, and answers with the flags in environ.
const MEETING: &str = "
    import os, threading
    barrier = threading.Barrier(4)
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/meet':
            barrier.wait(30)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        names = 'wsgi.multithread', 'wsgi.multiprocess', 'wsgi.run_once'
        reported = [environ[name] for name in names]
        return [repr(reported).encode(), b' ', str(threading.get_ident()).encode()]
    ";

#[test]
fn four_threads_serve_four_requests_at_once() {
    let pool = PoolSetup::new(MEETING).args(&["--threads", "4"]).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    assert_eq!(count(worker, "task"), 4);
    for _ in 0..3 {
        let mut connections: Vec<_> = (0..4).map(|_| pool.connect()).collect();
        connections
            .iter()
            .for_each(|connection| connection.send(&FastcgiRequest::get("/meet").bytes()));
        let threads: HashSet<String> =
            connections.iter_mut().map(|connection| connection.response().text()).collect();
        assert_eq!(threads.len(), 4, "{threads:?}");
    }
    // Connections that are kept are no thread's own.
    let mut kept: Vec<_> = (0..12).map(|_| pool.connect()).collect();
    for _ in 0..3 {
        for four in kept.chunks_mut(4) {
            four.iter().for_each(|connection| {
                connection.send(&FastcgiRequest::get("/meet").keep().bytes())
            });
            four.iter_mut().for_each(|connection| {
                assert!(connection.response().text().starts_with("[True, False, False]"))
            });
        }
    }
    pool.stop();
}

#[test]
fn one_thread_is_exactly_one() {
    let pool = PoolSetup::new(ECHO).start();
    for _ in 0..3 {
        let worker = pool.ask(&FastcgiRequest::post("/", vec![b'x'; 1_000_000])).pid();
        assert_eq!(count(worker, "task"), 1);
        assert_eq!(count(pool.template(), "task"), 1);
        assert_eq!(count(pool.pid(), "task"), 1);
    }
    pool.stop();
}

#[test]
fn wsgi_multithread_and_multiprocess_are_correct() {
    for (workers, threads, reported) in [
        ("1", "1", "[False, False, False]"),
        ("2", "1", "[False, True, False]"),
        ("1", "2", "[True, False, False]"),
        ("2", "2", "[True, True, False]"),
    ] {
        let pool =
            PoolSetup::new(MEETING).args(&["--workers", workers, "--threads", threads]).start();
        let text = pool.ask(&FastcgiRequest::get("/")).text();
        assert!(text.starts_with(reported), "{workers} workers, {threads} threads: {text}");
        pool.stop();
    }
}

/// Sends what it knows: the names in environ, those of the process, and one value.
const KNOWS: &str = "
    import json, os, random
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json'), ('X-Pid', \
        str(os.getpid()))])
        known = dict(
            request={name: value for name, value in environ.items() if isinstance(value, str)},
            process=dict(os.environ),
            random=random.random(),
            id=environ.get('wsgate.request_id'),
        )
        environ['leaked'] = 'by the application'
        os.environ.setdefault('COUNT', '1')
        return [json.dumps(known).encode()]
    ";

#[test]
fn variables_of_requests_are_not_those_of_the_process() {
    let pool = PoolSetup::new(KNOWS).variable("FROM_OUTSIDE", "yes").start();
    let mut connection = pool.connect();
    for number in 0..3 {
        let ask = FastcgiRequest::get("/")
            .keep()
            .param("HTTP_PROXY", "http://evil.example")
            .param("LD_PRELOAD", "/evil.so");
        let ask = ask.param("PYTHONPATH", "/evil").param("HTTP_X_NUMBER", number.to_string());
        let known: serde_json::Value = serde_json::from_str(&connection.ask(&ask).text()).unwrap();
        let process = known["process"].as_object().unwrap();
        assert_eq!(process["FROM_OUTSIDE"], "yes");
        for name in process.keys() {
            let of_a_request = name.starts_with("HTTP_")
                || [
                    "REQUEST_METHOD",
                    "PATH_INFO",
                    "QUERY_STRING",
                    "GATEWAY_INTERFACE",
                    "LD_PRELOAD",
                    "PYTHONPATH",
                ]
                .contains(&name.as_str());
            assert!(!of_a_request, "the process has `{name}`");
        }
        assert_eq!(known["request"]["HTTP_X_NUMBER"], number.to_string());
        assert_eq!(
            known["request"]["FROM_OUTSIDE"],
            serde_json::Value::Null,
            "and requests have none of its own"
        );
    }
    pool.stop();
}

#[test]
fn nothing_of_a_request_is_left_for_the_next() {
    let pool = PoolSetup::new(KNOWS).start();
    let mut connection = pool.connect();
    let secret = FastcgiRequest::post("/secret", "body")
        .keep()
        .param("HTTP_AUTHORIZATION", "Basic eDp5")
        .param("REMOTE_USER", "x");
    let plain = FastcgiRequest::get("/plain").keep();
    let request = |text: String| -> serde_json::Value {
        let mut known: serde_json::Value = serde_json::from_str(&text).unwrap();
        known["request"].take()
    };
    let names = |request: &serde_json::Value| {
        request.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let fresh = names(&request(pool.ask(&plain).text()));
    for _ in 0..3 {
        let with = request(connection.ask(&secret).text());
        assert_eq!(
            (&with["HTTP_AUTHORIZATION"], &with["REMOTE_USER"]),
            (&"Basic eDp5".into(), &"x".into())
        );
        let without = request(connection.ask(&plain).text());
        assert_eq!(names(&without), fresh);
        assert_eq!(without["PATH_INFO"], "/plain");
    }
    // Also after one that was refused, or aborted half-way.
    connection.ask(&secret.clone().param("CONTENT_LENGTH", "x"));
    let bytes = secret.before_body();
    connection.send(&bytes[..bytes.len() - 8]);
    connection.send(&secret.abort());
    connection.response();
    assert_eq!(names(&request(connection.ask(&plain).text())), fresh);
    pool.stop();
}

#[test]
fn workers_do_not_share_random_numbers() {
    let pool = PoolSetup::new(KNOWS).args(&["--workers", "4", "--max-requests", "1"]).start();
    let (mut pids, mut numbers) = (HashSet::new(), HashSet::new());
    for _ in 0..12 {
        let response = pool.ask(&FastcgiRequest::get("/"));
        pids.insert(response.pid());
        let known: serde_json::Value = serde_json::from_str(&response.text()).unwrap();
        numbers.insert(known["random"].to_string());
    }
    assert!(pids.len() >= 6, "{pids:?}");
    assert_eq!(numbers.len(), 12, "{numbers:?}");
    pool.stop();
}

#[test]
fn messages_of_applications_are_in_the_log_of_the_pool() {
    let mut pool = PoolSetup::new(
        "
        import os, subprocess, sys
        print('at import')
        def application(environ, start_response):
            print('printed')
            print('to stderr', file=sys.stderr)
            print('to errors', file=environ['wsgi.errors'])
            os.write(1, b'to descriptor 1\\n')
            subprocess.run(['echo', 'by a child'])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
    )
    .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "response");
    for line in [
        "at import\n",
        "printed\n",
        "to stderr\n",
        "to errors\n",
        "to descriptor 1\n",
        "by a child\n",
    ] {
        pool.await_log(line);
    }
    pool.stop();
}

#[test]
fn programs_that_an_application_starts_get_none_of_the_pools_descriptors() {
    let pool = PoolSetup::new(
        "
        import os, subprocess
        def application(environ, start_response):
            listed = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, \
            stdout=subprocess.PIPE)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [listed.stdout]
        ",
    )
    .start();
    let other = pool.connect();
    let mut connection = pool.connect();
    let listed = connection.ask(&FastcgiRequest::get("/").keep()).text();
    assert!(!listed.contains("socket:") && !listed.contains("eventpoll"), "{listed}");
    drop(other);
    pool.stop();
}

#[test]
fn an_exception_is_logged_with_its_request_and_the_worker_keeps_running() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/raises':
                raise RuntimeError('what went wrong')
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'']
        ",
    )
    .start();
    let mut connection = pool.connect();
    let before = connection.ask(&FastcgiRequest::get("/").keep()).pid();
    let page = connection.ask(&FastcgiRequest::get("/raises").keep()).valid();
    assert_eq!(page.status, 500);
    assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).pid(), before);
    pool.await_log("request: ");
    let log = pool.stop();
    assert!(only_log_message(&log, "W0501").contains("what went wrong"), "{log}");
    let line = log
        .lines()
        .skip_while(|line| !line.contains("W0501"))
        .find(|line| line.starts_with("request: "))
        .unwrap();
    assert!(line.ends_with(&format!("GET /raises pid {before}")), "{line}");
    let id = line.split(' ').nth(1).unwrap();
    assert!(String::from_utf8_lossy(&page.body).contains(id), "the page names the request");
}

#[test]
fn children_that_return_from_the_application_exit_on_every_thread() {
    let pool = PoolSetup::new(
        "
        import os, threading
        together = threading.Barrier(4)
        def application(environ, start_response):
            together.wait()
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'parent' if child else b'child']
        ",
    )
    .args(&["--threads", "4"])
    .start();
    let mut connections = [(); 4].map(|()| pool.connect());
    connections.iter().for_each(|connection| connection.send(&FastcgiRequest::get("/").bytes()));
    for connection in &mut connections {
        assert_eq!(connection.response().text(), "parent");
    }
    pool.stop();
}
