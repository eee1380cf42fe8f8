//! The thread of a worker that looks out for connections: when it is there, and what applications
//! do to it.

use crate::{
    pool::{
        ECHO,
        connection_queue::{ask_all, kept},
    },
    support::{
        assertions::codes,
        fastcgi_client::Ask,
        pool::{Setup, count},
        web_servers::eventually,
    },
};

#[test]
fn a_worker_whose_connections_need_not_wait_has_no_thread_for_them() {
    let pool = Setup::new(ECHO).words(&["--workers", "1"]).start();
    let worker = pool.workers(1)[0];
    for _ in 0..20 {
        pool.ask(&Ask::get("/"));
    }
    let mut wire = pool.connect();
    for _ in 0..20 {
        wire.ask(&Ask::get("/").keep());
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
        let pool = Setup::new(&code).start();
        let before = pool.workers(1);
        let mut wires = kept(&pool, 4);
        let mut worker = || ask_all(wires.iter_mut().map(|(wire, _)| wire))[0];
        eventually("it has the thread", || count(worker(), "task") == 2);
        wires[0].0.send(&Ask::get("/close").keep().bytes());
        assert!(!matches!(wires[0].0.try_answer(), Ok(Some(_))));
        eventually("it has ended", || pool.workers(1) != before);
        assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
        pool.stop();
    }
}

#[test]
fn a_child_that_the_application_forks_gives_nothing_away() {
    let mut pool = Setup::new(
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
    .words(&["--workers", "2"])
    .start();
    pool.workers(2);
    let mut wires = kept(&pool, 8);
    for times in 1..=4 {
        let (busy, others) = wires.split_first_mut().unwrap();
        busy.0.send(&Ask::get("/fork").keep().bytes());
        pool.await_times("the child is here", times);
        ask_all(others.iter_mut().map(|(wire, _)| wire));
        // It falls out of the application, and ends.
        pool.open_gate();
        assert_eq!(busy.0.answer().text(), "/fork|body");
        ask_all(wires.iter_mut().map(|(wire, _)| wire));
        wires.rotate_left(1);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0608"; 4], "{log}");
}

#[test]
fn python_sees_the_thread_when_an_application_forks_and_not_when_it_starts_a_program() {
    let pool = Setup::new(
        "
        import os, subprocess, sys, warnings
        def fork():
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        def application(environ, start_response):
            told = []
            for start in [fork, lambda: subprocess.run(['true'])]:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter('always')
                    start()
                told.append(len(caught))
            expected = [int(sys.version_info >= (3, 12)), 0] if environ['PATH_INFO'] == '/beside' \
            else [0, 0]
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [str(told == expected).encode()]
        ",
    )
    .start();
    assert_eq!(pool.ask(&Ask::get("/alone")).text(), "True");
    let mut wires = kept(&pool, 2);
    let worker = pool.workers(1)[0];
    eventually("there is the thread", || {
        wires[0].0.ask(&Ask::get("/").keep()).pid() == worker && count(worker, "task") == 2
    });
    assert_eq!(wires[1].0.ask(&Ask::get("/beside").keep()).text(), "True");
    pool.stop();
}
