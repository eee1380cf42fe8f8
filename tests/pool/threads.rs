//! The threads of a worker: how much stack they have, and what happens if the system has none left.

use std::fs;

use crate::{
    each_mode::in_each_mode,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        own_user::{OwnUser, lift},
        pool::{Pool, PoolSetup, count, signal},
        web_servers::{eventually, venv},
    },
};

/// Recurses through C code, and says which thread it is in and what came of it.
const RECURSES: &str = "
    import os, threading
    from functools import cmp_to_key
    def compare(one, other):
        sorted([1, 2], key=cmp_to_key(compare))
        return 0
    both = threading.Barrier(2)
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/both':
            both.wait(30)
        try:
            compare(1, 2)
            came = 'nothing'
        except RecursionError as error:
            came = type(error).__name__
        is_main = threading.current_thread() is threading.main_thread()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [f'{is_main} {came}'.encode()]
    ";

/// Says how much stack the kernel has mapped for the thread that is not the main one, in KiB, guard
/// page left out.
const STACK: &str = "
    import ctypes, os, threading
    APPLICATION
    both = threading.Barrier(2)
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    def stack():
        attributes = ctypes.create_string_buffer(256)
        size = ctypes.c_size_t()
        assert libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes) == 0
        assert libc.pthread_attr_getstacksize(attributes, ctypes.byref(size)) == 0
        return size.value >> 10
    def application(environ, start_response):
        both.wait(30)
        is_main = threading.current_thread() is threading.main_thread()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'' if is_main else str(stack()).encode()]
    ";

/// The responses of a pool of two threads to two requests that meet.
fn two(pool: &Pool, path: &str) -> Vec<String> {
    let mut connections: Vec<_> = (0..2).map(|_| pool.connect()).collect();
    connections.iter().for_each(|connection| connection.send(&FastcgiRequest::get(path).bytes()));
    let mut texts: Vec<_> =
        connections.iter_mut().map(|connection| connection.response().text()).collect();
    texts.sort_unstable();
    texts
}

#[test]
fn recursion_through_c_code_is_an_exception_in_every_thread() {
    for args in [&["--threads", "2"][..], &["--threads", "2", "--preload", "no"]] {
        let pool = PoolSetup::new(RECURSES).args(args).start();
        assert_eq!(two(&pool, "/both"), ["False RecursionError", "True RecursionError"]);
        assert_eq!(codes(&pool.stop()), [""; 0]);
    }
}

#[test]
fn recursion_through_c_code_is_an_exception_in_every_mode() {
    in_each_mode(RECURSES, |served, mode| {
        let text = served.ask("/");
        assert!(text.ends_with(" RecursionError"), "{mode:?}: {text}");
    });
}

#[test]
fn numpy_computes_the_same_in_every_thread() {
    const COMPUTES: &str = "
        import os, threading
        import numpy
        random = numpy.random.default_rng(7)
        matrix, right = random.standard_normal((500, 500)), random.standard_normal(500)
        both = threading.Barrier(2)
        def application(environ, start_response):
            both.wait(30)
            solved = numpy.linalg.solve(matrix, right)
            u, s, v = numpy.linalg.svd(matrix)
            wrong = [numpy.abs(matrix @ solved - right).max(), numpy.abs((u * s) @ v - \
            matrix).max()]
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'right' if max(wrong) < 1e-6 else repr(wrong).encode()]
        ";
    let setup = PoolSetup::new(COMPUTES).own_interpreter().args(&[
        "--threads",
        "2",
        "--venv",
        venv().to_str().unwrap(),
    ]);
    let pool = setup.variable("OPENBLAS_NUM_THREADS", "1").start();
    for _ in 0..10 {
        assert_eq!(two(&pool, "/"), ["right", "right"]);
    }
    assert_eq!(codes(&pool.stop()), [""; 0]);
}

#[test]
fn a_thread_has_the_stack_size_of_the_limit_or_of_the_application() {
    // The expected sizes are in KiB. glibc may add or take a page.
    for (limit, asked, expected) in [
        ("8192", "", 8192),
        ("16384", "", 16384),
        ("unlimited", "", 8192),
        // The smallest stack that Python accepts, and more than any machine has.
        ("1024", "", 2048),
        ("1099511627776", "", 8192),
        ("8192", "threading.stack_size(1 << 24)", 16384),
        ("8192", "threading.stack_size(1 << 20)", 1024),
        ("8192", "threading.stack_size(1 << 15)", 256),
    ] {
        for preload in ["yes", "no"] {
            let code = STACK.replace("APPLICATION", asked);
            let setup = PoolSetup::new(&code).args(&["--threads", "2", "--preload", preload]);
            let shell = format!("ulimit -Ss {limit} && exec \"$@\"");
            let mut pool = setup.launch_by(&["sh", "-c", &shell, "sh"]);
            pool.await_log("W0710");
            let stack: i64 = two(&pool, "/")[1].parse().unwrap();
            assert!(
                (stack - expected).abs() <= 8,
                "limit {limit}, {asked}: {stack} KiB instead of {expected}"
            );
            assert_eq!(codes(&pool.stop()), [""; 0]);
        }
    }
}

/// Waits until two requests are here, and until the gate opens.
const MEETS: &str = "
    import os, threading
    both = threading.Barrier(2)
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/meet':
            both.wait(30)
        if path == '/slow':
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [path.encode()]
    ";

/// Lets each process that is forked after this start no other process or thread, while the file
/// `limited` is there. A limit of the whole pool would hold for workers and threads alike, which
/// start at the same time.
const LIMITS_WORKERS: &str = "
    import os, resource
    def limit():
        if os.path.exists(os.environ['MARK'] + '/limited'):
            resource.setrlimit(resource.RLIMIT_NPROC, (1, 1000))
    os.register_at_fork(after_in_child=limit)
    ";

/// A pool of a user that has no other process; nothing where the tests may not be another user.
fn of_own_user(setup: PoolSetup, limit: usize) -> Option<Pool> {
    let user = OwnUser::new()?;
    user.give(&setup.path(""));
    let (args, id) = (user.limited_to(limit), user.id().to_string());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Some(setup.args(&["--user", &id, "--group", &id]).launch_by(&args))
}

/// A pool whose workers may start no thread.
fn without_threads(args: &[&str]) -> Option<Pool> {
    let setup = PoolSetup::new(&format!("{LIMITS_WORKERS}{MEETS}")).gated();
    fs::write(setup.path("limited"), "").unwrap();
    of_own_user(setup.args(&["--preload", "yes"]).args(args), 1000)
}

fn has_deadline_thread(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut names =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    names.any(|name| name.starts_with("wsgate-deadline"))
}

fn threads_in_status(pool: &Pool) -> usize {
    let status: serde_json::Value =
        serde_json::from_slice(&pool.run_wsgate(&["status", "--json", "app"]).stdout).unwrap();
    status["workers"].as_array().unwrap().len()
}

#[test]
fn a_thread_that_cannot_be_started_is_logged_once_and_started_later() {
    for args in [&["--threads", "2"][..], &["--threads", "3", "--timeout", "30"]] {
        let Some(mut pool) = without_threads(args) else {
            return;
        };
        pool.await_log("W0706");
        pool.await_log("W0710");
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        eventually("there is one thread", || threads_in_status(&pool) == 1);
        for _ in 0..5 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
        }
        assert_eq!(count(worker, "task"), 1);
        lift(worker);
        let threads: usize = args[1].parse().unwrap();
        eventually("all threads are there", || threads_in_status(&pool) == threads);
        assert_eq!(two(&pool, "/meet"), ["/meet", "/meet"]);
        assert_eq!(has_deadline_thread(worker), args.contains(&"--timeout"));
        let log = pool.stop();
        // The thread that gives connections away has a message of its own, where it is needed.
        assert!(["W0706"; 2].starts_with(&codes(&log)), "{log}");
        let what = if args.len() > 2 { "3 threads" } else { "a thread" };
        assert!(log.contains(&format!("worker {worker} could not start {what}: ")), "{log}");
    }
}

#[test]
fn a_worker_whose_threads_cannot_be_started_stops_and_reloads_as_any_other() {
    let args = ["--threads", "4", "--workers", "2", "--drain", "5"];
    let Some(mut pool) = without_threads(&args) else {
        return;
    };
    pool.await_times("W0706", 2);
    let [one, other] = pool.workers(2)[..] else { panic!("two workers") };
    lift(one);
    eventually("one has all its threads", || count(one, "task") >= 4);
    assert_eq!(count(other, "task"), 1);
    fs::remove_file(pool.setup().path("limited")).unwrap();
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    eventually("there are new workers with all their threads", || {
        let workers = pool.workers(2);
        !workers.contains(&one)
            && !workers.contains(&other)
            && workers.iter().all(|&pid| count(pid, "task") >= 4)
    });
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0706", "W0706"], "{log}");
}

#[test]
fn a_worker_that_cannot_be_forked_is_tried_again_by_the_same_template() {
    // Supervisor and template.
    let Some(mut pool) =
        of_own_user(PoolSetup::new(MEETS).args(&["--threads", "2", "--preload", "yes"]), 2)
    else {
        return;
    };
    pool.await_log("W0704");
    let template = pool.template();
    lift(template);
    assert_eq!(two(&pool, "/meet"), ["/meet", "/meet"]);
    assert_eq!(pool.template(), template);
    let log = pool.stop();
    assert!(codes(&log).iter().all(|code| ["W0719", "W0704"].contains(code)), "{log}");
    assert!(!log.contains("panic"), "{log}");
}

#[test]
fn connections_stay_where_they_are_if_the_thread_that_gives_them_away_cannot_be_started() {
    let Some(mut pool) = without_threads(&["--workers", "2"]) else {
        return;
    };
    pool.await_log("W0710");
    let mut kept: Vec<_> = (0..8).map(|_| pool.connect()).collect();
    let pids: Vec<_> = kept
        .iter_mut()
        .map(|connection| connection.ask(&FastcgiRequest::get("/").keep()).pid())
        .collect();
    let of_first = pids.iter().filter(|pid| **pid == pids[0]).count();
    let busy = if of_first > 1 { pids[0] } else { pids[1] };
    kept.retain({
        let mut pids = pids.iter();
        move |_| pids.next() == Some(&busy)
    });
    kept[0].send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("W0706");
    kept[1].send(&FastcgiRequest::get("/waits").keep().bytes());
    pool.open_gate();
    assert_eq!(kept[0].response().text(), "/slow");
    assert_eq!(kept[1].response().text(), "/waits");
    // The worker tries to start the thread again, a second later at the earliest.
    lift(busy);
    eventually("the thread is there", || {
        kept[0].send(&FastcgiRequest::get("/slow").keep().bytes());
        kept[1].send(&FastcgiRequest::get("/waits").keep().bytes());
        pool.open_gate();
        assert_eq!(kept[0].response().text(), "/slow");
        assert_eq!(kept[1].response().text(), "/waits");
        count(busy, "task") == 2
    });
    signal(busy, rustix::process::Signal::TERM);
    let log = pool.stop();
    // Each worker logs the failure once.
    assert!(["W0706"; 2].starts_with(&codes(&log)), "{log}");
}
