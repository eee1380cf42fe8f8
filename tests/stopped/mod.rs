//! All processes are stopped for a while, as on a machine that is suspended: no request is ended
//! for that, and what ends a request keeps its distances.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    pool::{PoolSetup, load::turn},
    support::{
        fastcgi_client::FastcgiRequest, pool::signal, probe::CgiResponse, web_servers::eventually,
    },
};

/// Says in a file when it begins, is interrupted, and has cleaned up; and needs time in between.
const WORKS: &str = "
    import os, time
    def work(name, tenths):
        with open(os.path.join(os.environ['OUT'], name), 'w') as file:
            file.write('x')
        for _ in range(tenths):
            time.sleep(0.1)
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/work':
            work('begun', 30)
        if environ['PATH_INFO'] == '/late':
            try:
                time.sleep(1000)
            finally:
                work('late', 3)
                work('cleaned', 0)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'done']
    ";

/// Sends a signal to all processes that have `mark` in their environments.
fn signal_all(mark: &str, signal: Signal) {
    let has_mark = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(mark.len()).any(|part| part == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    for pid in pids.filter(has_mark) {
        // The process may have exited since.
        let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
    }
}

/// The response to a request for `path`; all processes are stopped for `time` as soon as the file
/// `name` is there.
fn stopped_for(time: Duration, served: &ServedApp, path: &str, name: &str) -> CgiResponse {
    let (mark, file, is_over) = (served.mark(), served.out(name), Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let stopping = thread::spawn(move || {
        eventually("it is time", || file.exists() || over.load(Ordering::Relaxed));
        signal_all(&mark, Signal::STOP);
        thread::sleep(time);
        signal_all(&mark, Signal::CONT);
    });
    let response = served.request("GET", path, &[], b"");
    is_over.store(true, Ordering::Relaxed);
    stopping.join().unwrap();
    response
}

/// Runs `test` in all modes at the same time, since it does nothing most of the time.
fn in_all_modes(options: &[&str], test: impl Fn(&mut ServedApp, Mode) + Sync) {
    let _turn = turn();
    thread::scope(|scope| {
        for mode in MODES {
            let test = &test;
            scope.spawn(move || test(&mut ServedApp::start(mode, options, WORKS), mode));
        }
    });
}

#[test]
fn a_request_is_not_ended_for_the_time_in_which_its_processes_were_stopped() {
    in_all_modes(&["--timeout", "15"], |served, mode| {
        let response = stopped_for(Duration::from_secs(16), served, "/work", "begun");
        assert_eq!(response.status, "200 OK", "{mode:?}: {response:?} {}", served.stop());
        assert_eq!(response.text(), "done", "{mode:?}");
        let log = served.stop();
        assert!(!log.contains("error[W"), "{mode:?}: {log}");
    });
}

#[test]
fn an_application_that_is_interrupted_has_its_time_though_it_is_stopped_meanwhile() {
    in_all_modes(&["--timeout", "3"], |served, mode| {
        // On a busy machine the time may not be enough without a stop, either.
        let is_enough = (0..4).any(|_| {
            let response = stopped_for(Duration::from_secs(5), served, "/late", "late");
            let _ = fs::remove_file(served.out("late"));
            response.status == "504 Gateway Timeout" && !served.written("cleaned").is_empty()
        });
        assert!(is_enough, "{mode:?}: {}", served.stop());
        served.stop();
    });
}

#[test]
fn a_worker_that_is_stopped_alone_interrupts_its_request_at_the_deadline() {
    let code = "
        import time
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/sleep':
                for _ in range(1000):
                    time.sleep(0.1)
            environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    let _turn = turn();
    thread::scope(|scope| {
        for threads in ["1", "2"] {
            for path in ["/body", "/sleep"] {
                scope.spawn(move || {
                    let args = ["--timeout", "7", "--threads", threads];
                    let pool = PoolSetup::new(code).args(&args).start();
                    let worker = pool.workers(1)[0];
                    let mut connection = pool.connect();
                    connection.send(&FastcgiRequest::post(path, "body").before_body());
                    thread::sleep(Duration::from_secs(1));
                    signal(worker, Signal::STOP);
                    thread::sleep(Duration::from_millis(4500));
                    signal(worker, Signal::CONT);
                    let status = connection.response().valid().status;
                    assert_eq!(status, 504, "{threads} {path}: {}", pool.log());
                    assert_eq!(pool.workers(1), [worker], "{threads} {path}");
                    pool.stop();
                });
            }
        }
    });
}
