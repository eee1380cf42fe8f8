//! The thread of a worker that looks out for connections: when it is there, and what applications
//! do to it.

use crate::{
    pool::{
        ECHO,
        connection_queue::{ask_all, keep_alive_connections},
    },
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, count},
        web_servers::eventually,
    },
};

#[test]
fn a_worker_whose_connections_need_not_wait_has_no_thread_for_them() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "1"]).start();
    let worker = pool.workers(1)[0];
    for _ in 0..20 {
        pool.ask(&FastcgiRequest::get("/"));
    }
    let mut connection = pool.connect();
    for _ in 0..20 {
        connection.ask(&FastcgiRequest::get("/").keep());
    }
    assert_eq!(count(worker, "task"), 1);
    pool.stop();
}

#[test]
fn an_application_that_closes_descriptors_of_its_worker_ends_the_worker() {
    for code in [
        "os.closerange(3, 1000)",
        "os.closerange(3, 1000); FILES.extend(open('/dev/null') for _ in range(40))",
    ] {
        let code = format!(
            "
            import os, threading
            FILES = []
            def application(environ, start_response):
                if environ['PATH_INFO'] == '/close':
                    {code}
                start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', \
                str(os.getpid()))])
                return [environ['PATH_INFO'].encode() + b'|' + environ['wsgi.input'].read()]
            "
        );
        let pool = PoolSetup::new(&code).start();
        let before = pool.workers(1);
        let mut connections = keep_alive_connections(&pool, 4);
        let mut worker = || ask_all(connections.iter_mut().map(|(connection, _)| connection))[0];
        eventually("it has the thread", || count(worker(), "task") == 2);
        connections[0].0.send(&FastcgiRequest::get("/close").keep().bytes());
        assert!(!matches!(connections[0].0.try_response(), Ok(Some(_))));
        eventually("it has ended", || pool.workers(1) != before);
        assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
        pool.stop();
    }
}

#[test]
fn a_child_that_the_application_forks_gives_nothing_away() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            environ['wsgi.input'].read()
            if environ['PATH_INFO'] == '/fork':
                child = os.fork()
                if not child:
                    print('the child is here')
                    os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
                else:
                    os.waitpid(child, 0)
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [environ['PATH_INFO'].encode() + b'|body']
        ",
    )
    .gated()
    .args(&["--workers", "2"])
    .start();
    pool.workers(2);
    let mut connections = keep_alive_connections(&pool, 8);
    for times in 1..=4 {
        let (busy, others) = connections.split_first_mut().unwrap();
        busy.0.send(&FastcgiRequest::get("/fork").keep().bytes());
        pool.await_times("the child is here", times);
        ask_all(others.iter_mut().map(|(connection, _)| connection));
        // The child returns from the application, and exits.
        pool.open_gate();
        assert_eq!(busy.0.response().text(), "/fork|body");
        ask_all(connections.iter_mut().map(|(connection, _)| connection));
        connections.rotate_left(1);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0608"; 4], "{log}");
}

#[test]
fn python_sees_the_thread_when_an_application_forks_and_not_when_it_starts_a_program() {
    let pool = PoolSetup::new(
        "
        import os, subprocess, sys, warnings
        def fork():
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        def application(environ, start_response):
            reported = []
            for start in [fork, lambda: subprocess.run(['true'])]:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter('always')
                    start()
                reported.append(len(caught))
            expected = [int(sys.version_info >= (3, 12)), 0] if environ['PATH_INFO'] == '/beside' \
            else [0, 0]
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [str(reported == expected).encode()]
        ",
    )
    .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/alone")).text(), "True");
    let mut connections = keep_alive_connections(&pool, 2);
    let worker = pool.workers(1)[0];
    eventually("there is the thread", || {
        connections[0].0.ask(&FastcgiRequest::get("/").keep()).pid() == worker
            && count(worker, "task") == 2
    });
    assert_eq!(connections[1].0.ask(&FastcgiRequest::get("/beside").keep()).text(), "True");
    pool.stop();
}
