//! The Python stacks of processes that go on running: `wsgate stacks`.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Signal, geteuid};
use serde_json::Value;

use crate::{
    pool::{ECHO, GATED, Pool, PoolSetup},
    support::{
        child_process::{ExitedProcess, run},
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::signal,
        web_servers::{eventually, venv},
    },
};

/// Never responds at any of its paths: each waits in another way.
const WAITS: &str = "
    import ctypes, signal, threading, time
    locked = threading.Lock()
    locked.acquire()

    def wait_for_lock():
        locked.acquire()

    def sleep():
        time.sleep(1000)

    def loop():
        while True: pass

    def hold_the_interpreter():
        mutex = ctypes.create_string_buffer(256)
        lock = ctypes.PyDLL(None).pthread_mutex_lock
        lock(mutex)
        lock(mutex)

    def block_signals():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        sleep()

    def start_thread():
        threading.Thread(target=sleep).start()
        wait_for_lock()

    def application(environ, start_response):
        globals()[environ['PATH_INFO'][1:]]()
    ";

/// Sends a request for each of `paths`, and waits until all are being served.
fn occupy(pool: &Pool, paths: &[&str]) -> Vec<FastcgiConnection> {
    let connections = paths.iter().map(|path| {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        connection
    });
    let connections = connections.collect();
    eventually("all workers are busy", || {
        let ended = pool.run_wsgate(&["status", "--json", "app"]);
        let status: Value = serde_json::from_slice(&ended.stdout).unwrap();
        let threads = status["workers"].as_array().unwrap().clone();
        threads.iter().filter(|thread| thread["busy"] == true).count() == paths.len()
    });
    connections
}

fn parsed(ended: &ExitedProcess) -> Vec<Value> {
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The stacks of all workers.
fn workers(ended: &ExitedProcess) -> Vec<Value> {
    parsed(ended).into_iter().filter(|process| process["role"] == "worker").collect()
}

/// The path that a thread serves.
fn path_of(thread: &Value) -> String {
    thread["status"]["request"]["target"].as_str().unwrap_or_default().to_owned()
}

/// The frames of a thread, the most recent call first.
fn frames(thread: &Value, function: &str, file: &str) -> Vec<String> {
    let frames = thread["frames"].as_array().unwrap().iter();
    let frame = |frame: &Value| {
        let text = |name: &str| frame[name].as_str().unwrap().to_owned();
        // py-spy writes the class of a method, too.
        let function = text(function);
        let function = function.rsplit('.').next().unwrap();
        format!("{function} {}:{}", text(file), frame["line"])
    };
    frames.map(frame).collect()
}

#[test]
fn the_frames_are_those_of_py_spy_in_a_lock_a_loop_and_c_code() {
    let pool = PoolSetup::new(WAITS).args(&["--workers", "5"]).start();
    let paths = ["/wait_for_lock", "/sleep", "/loop", "/hold_the_interpreter", "/start_thread"];
    let _connections = occupy(&pool, &paths);
    let mut seen = BTreeSet::new();
    eventually("each process has come to its last line", || {
        let ended = pool.run_wsgate(&["stacks", "app", "--json"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        seen = workers(&ended)
            .into_iter()
            .filter(|process| {
                let threads = process["threads"].as_array().unwrap();
                let ours: BTreeSet<_> =
                    threads.iter().map(|thread| frames(thread, "function", "file")).collect();
                of_py_spy(&process["pid"].to_string()).is_none_or(|theirs| ours == theirs)
            })
            .map(|process| path_of(&process["threads"][0]))
            .collect();
        seen.len() == paths.len()
    });
    assert_eq!(seen, paths.map(str::to_owned).into());
    pool.signal(Signal::QUIT);
}

/// What py-spy sees in the process `pid`; nothing where it may not trace processes.
fn of_py_spy(pid: &str) -> Option<BTreeSet<Vec<String>>> {
    let profiler = venv().with_file_name("py-spy").join("bin/py-spy");
    let ended = run(Command::new(profiler).args(["dump", "--json", "--pid", pid]), "");
    if ended.stderr.contains("ermission") && !geteuid().is_root() {
        return None;
    }
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let threads: Vec<Value> = serde_json::from_slice(&ended.stdout).unwrap();
    Some(threads.iter().map(|thread| frames(thread, "name", "filename")).collect())
}

#[test]
fn each_thread_is_shown_with_its_request_and_the_request_goes_on() {
    let pool = PoolSetup::new(GATED).gated().args(&["--threads", "3", "--name", "threads"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow?\u{1b}[2J").bytes());
    let shown = |args: &[&str]| pool.run_wsgate(&[&["stacks", "threads"], args].concat());
    eventually("the request is at the gate", || {
        let ended = shown(&[]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        let text = ended.text();
        assert!(!text.contains('\u{1b}'), "{text}");
        let threads = text.split("\nThread ").skip(1).filter(|thread| thread.contains("(busy for"));
        let mut busy = threads.filter(|thread| thread.contains("    application (/"));
        busy.next().is_some_and(|thread| {
            thread.contains(" GET /slow?\\u{1b}[2J\n") && thread.contains("/app.wsgi:")
        })
    });
    let worker = pool.workers(1)[0].to_string();
    for _ in 0..50 {
        let ended = shown(&[&worker, "--json"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        let processes = parsed(&ended);
        assert_eq!((processes.len(), processes[0]["pid"].to_string()), (1, worker.clone()));
        let numbers: Vec<_> = processes[0]["threads"]
            .as_array()
            .unwrap()
            .iter()
            .map(|thread| thread["number"].as_u64())
            .collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
    }
    pool.open_gate();
    assert!(slow.response().text().starts_with("/slow"));
    let log = pool.stop();
    assert!(!log.contains("most recent call first"), "{log}");
}

#[test]
fn a_process_that_cannot_answer_is_named_and_the_others_are_shown() {
    let pool = PoolSetup::new(WAITS).args(&["--workers", "3"]).start();
    let _connections = occupy(&pool, &["/sleep", "/block_signals", "/wait_for_lock"]);
    let mut stopped = None;
    eventually("one blocks its signals", || {
        let ended = pool.run_wsgate(&["stacks", "app", "--json"]);
        let shown = workers(&ended);
        let sleeping = shown.iter().find(|process| path_of(&process["threads"][0]) == "/sleep");
        stopped = sleeping.and_then(|process| process["pid"].as_i64());
        ended.code() == Some(1) && ended.stderr.contains("within 2 s") && stopped.is_some()
    });
    let stopped = stopped.unwrap();
    signal(i32::try_from(stopped).unwrap(), Signal::STOP);
    let ended = pool.run_wsgate(&["stacks", "app"]);
    assert_eq!(ended.code(), Some(1), "{}", ended.text());
    assert!(ended.stderr.contains("W0907"), "{}", ended.stderr);
    let reason = format!("no answer from process {stopped}, which is stopped");
    assert!(ended.stderr.contains(&reason) && ended.text().contains(&reason), "{}", ended.stderr);
    assert!(ended.stderr.contains("within 2 s"), "{}", ended.stderr);
    assert!(ended.text().contains("    wait_for_lock (/"), "{}", ended.text());
    // The supervisor answers others meanwhile.
    let silent = ended.stderr.split("from process ").find(|rest| rest.contains(" within 2 s"));
    let silent = silent.unwrap().split(' ').next().unwrap();
    let mut waiting = UnixStream::connect(pool.setup().path("run/app.pool")).unwrap();
    waiting.write_all(format!("stacks {silent}\n").as_bytes()).unwrap();
    let begun = Instant::now();
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
    waiting.set_nonblocking(true).unwrap();
    let is_early = begun.elapsed() < Duration::from_secs(1);
    assert!(!is_early || waiting.read(&mut [0]).is_err(), "the stacks came before the status");
    pool.signal(Signal::QUIT);
}

#[test]
fn an_import_that_hangs_is_shown_before_the_pool_serves() {
    let hangs = "
        import time
        def connect_to_database():
            time.sleep(1000)
        connect_to_database()
        ";
    for (preload, role) in [("yes", "template"), ("no", "loading")] {
        let pool = PoolSetup::new(hangs).args(&["--preload", preload]).launch();
        eventually("the hanging line is shown", || {
            let ended = pool.run_wsgate(&["stacks", "app", "--json"]);
            ended.code() == Some(0)
                && parsed(&ended).iter().any(|process| {
                    process["role"] == role
                        && process.to_string().contains("\"connect_to_database\"")
                })
        });
        let text = pool.run_wsgate(&["stacks", "app"]).text();
        assert!(text.contains("    connect_to_database (/"), "{text}");
    }
}

#[test]
fn a_process_that_is_none_of_the_pool_is_refused() {
    let pool = PoolSetup::new(ECHO).start();
    for pid in ["1", &std::process::id().to_string(), &pool.pid().to_string()] {
        let ended = pool.run_wsgate(&["stacks", "app", pid]);
        assert_eq!((ended.code(), ended.text()), (Some(1), String::new()));
        let has = format!("has no Python process {pid}; it has {}", pool.template());
        assert!(ended.stderr.contains(&has) && ended.stderr.contains("W0905"), "{}", ended.stderr);
    }
    for wrong in ["0", "-1", "x", "99999999999"] {
        assert_eq!(pool.run_wsgate(&["stacks", "app", wrong]).code(), Some(2), "{wrong}");
    }
    assert_eq!(pool.run_wsgate(&["stacks", "other"]).code(), Some(1));
    pool.stop();
}

#[test]
fn the_application_and_its_children_keep_the_signal_and_no_descriptor() {
    let code = "
        import os, signal
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            child = os.fork()
            if not child:
                os.kill(os.getpid(), signal.SIGURG)
                os._exit('wsgate-stacks' in os.popen('ls -l /proc/%d/fd' % os.getpid()).read())
            status = os.waitpid(child, 0)[1]
            is_default = signal.getsignal(signal.SIGURG) == signal.SIG_DFL
            return [('%s %d' % (is_default, status)).encode()]
        ";
    let pool = PoolSetup::new(code).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "True 0");
    assert_eq!(pool.run_wsgate(&["stacks", "app"]).code(), Some(0));
    pool.stop();
}

/// ptrace(2) needs more rights than the user of a pool has where `kernel.yama.ptrace_scope` is 1,
/// and for a process that may not be dumped.
#[test]
fn a_process_that_its_user_may_not_trace_is_shown_to_that_user() {
    let code = format!(
        "{WAITS}
    def not_dumpable():
        ctypes.CDLL(None).prctl(4, 0)
        sleep()
"
    );
    let pool = PoolSetup::new(&code).start();
    let _connection = occupy(&pool, &["/not_dumpable"]);
    eventually("its line is shown", || {
        let ended = pool.run_wsgate(&["stacks", "app"]);
        ended.code() == Some(0) && ended.text().contains("    not_dumpable (/")
    });
    pool.signal(Signal::QUIT);
}
