//! Which process loads the application: the template that workers are forked from, or each worker.

use std::{collections::HashSet, fs, net::TcpListener, process::Command};

use rustix::process::Signal;

use crate::{
    pool::only_log_message,
    support::{
        artefacts,
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup, children, count, signal},
        probe::dedent,
        web_servers::eventually,
    },
};

/// Answers with what was drawn when its module was loaded, and the process. As with all
/// applications here, a request for `/held` waits at the gate.
pub(super) const DRAWN: &str = "
    import os
    drawn = os.urandom(8).hex()
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/held':
            print('held')
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [str(drawn).encode()]
    ";

/// Starts a thread that counts, and answers with the count.
fn counts() -> String {
    let code = "
        import threading
        drawn, over = 0, threading.Event()
        def go_on():
            global drawn
            while not over.wait(0.01):
                drawn += 1
        threading.Thread(target=go_on, daemon=True).start()
        ";
    DRAWN.replace("    drawn = os.urandom(8).hex()\n", &indented(code))
}

/// Connects to 127.0.0.1:PORT, and answers with the connection's name.
fn connects() -> String {
    let code = "
        import socket
        connection = socket.create_connection(('127.0.0.1', int(os.environ['PORT'])))
        drawn = connection.getsockname()
        ";
    DRAWN.replace("    drawn = os.urandom(8).hex()\n", &indented(code))
}

fn indented(code: &str) -> String {
    dedent(code).lines().map(|line| format!("    {line}\n")).collect()
}

/// The responses of two workers: each waits at the gate while the other gets its request.
#[track_caller]
pub(super) fn of_both(pool: &mut Pool) -> Vec<String> {
    let held = pool.log().matches("held\n").count();
    let mut wires = [1, 2].map(|number| {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get("/held").bytes());
        // A worker that waits there takes no other connection.
        pool.await_times("held\n", held + number);
        connection
    });
    wires.iter().for_each(|_| pool.open_gate());
    let responses =
        wires.each_mut().map(crate::support::fastcgi_client::FastcgiConnection::response);
    assert_ne!(responses[0].pid(), responses[1].pid());
    let mut drawn: Vec<String> =
        responses.iter().map(crate::support::fastcgi_client::FastcgiResponse::text).collect();
    // Which of them takes which connection is the kernel's to say.
    drawn.sort();
    drawn
}

/// The pool's own word on `preload`, for machines and for people.
#[track_caller]
fn preload(pool: &Pool) -> String {
    let request = |args: &[&str]| {
        let mut command = Command::new(artefacts::gateway());
        command
            .arg("status")
            .args(args)
            .arg("app")
            .env_clear()
            .env("WSGATE_RUNTIME_DIR", pool.setup().path("run"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let json = request(&["--json"]);
    let word = json
        .split("\"preload\":\"")
        .nth(1)
        .unwrap_or_else(|| panic!("{json}"))
        .split('"')
        .next()
        .unwrap();
    let table = request(&[]);
    assert!(table.lines().next().unwrap().contains(&format!("preload {word}")), "{table}");
    word.to_owned()
}

#[test]
fn a_module_is_loaded_once_for_all_workers_or_by_each() {
    for (when, in_force, values) in [("auto", "yes", 1), ("yes", "yes", 1), ("no", "no", 2)] {
        let mut pool =
            PoolSetup::new(DRAWN).gated().args(&["--workers", "2", "--preload", when]).start();
        let drawn: HashSet<String> = of_both(&mut pool).into_iter().collect();
        assert_eq!(drawn.len(), values, "--preload {when}");
        assert_eq!(preload(&pool), in_force);
        // A worker that comes later is as those before it.
        let before = pool.workers(2);
        signal(before[0], Signal::KILL);
        eventually("another worker is there", || {
            pool.workers(2).iter().all(|worker| *worker != before[0])
        });
        let drawn: HashSet<String> = of_both(&mut pool).into_iter().chain(drawn).collect();
        assert_eq!(drawn.len(), if values == 1 { 1 } else { 3 }, "--preload {when}");
        let log = pool.stop();
        only_log_message(&log, "W0701");
    }
}

#[test]
fn a_thread_that_is_started_at_import_runs_in_the_workers_unless_the_pool_preloads() {
    for when in ["auto", "no"] {
        let mut pool =
            PoolSetup::new(&counts()).gated().args(&["--workers", "2", "--preload", when]).start();
        for worker in 0..2 {
            eventually("the thread of each worker counts", || {
                of_both(&mut pool)[worker].parse::<u64>().unwrap() > 1
            });
        }
        assert_eq!((preload(&pool).as_str(), count(pool.template(), "task")), ("no", 1));
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
        let notices = log.matches("notice[W0309]").count();
        assert_eq!(notices, usize::from(when == "auto"), "{log}");
        assert!(
            when == "no" || log.contains("\n  module `app.wsgi` (line 10) started 1 thread\n"),
            "{log}"
        );
    }
    let mut pool = PoolSetup::new(&counts()).args(&["--preload", "yes"]).start();
    assert_eq!(preload(&pool), "yes");
    let first = pool.ask(&FastcgiRequest::get("/")).text();
    pool.await_log("hint: ");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), first);
    let log = pool.stop();
    assert!(only_log_message(&log, "W0307").contains("started 1 thread while"), "{log}");
}

#[test]
fn a_connection_that_is_opened_at_import_is_each_workers_own_unless_the_pool_is_to_be_preloaded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for (when, connections) in [("auto", 2), ("no", 2), ("yes", 1)] {
        let setup = PoolSetup::new(&connects()).variable("PORT", address.port().to_string());
        let mut pool = setup.gated().args(&["--workers", "2", "--preload", when]).start();
        let names: HashSet<String> = of_both(&mut pool).into_iter().collect();
        assert_eq!(names.len(), connections, "--preload {when}: {names:?}");
        let log = pool.stop();
        let code = match when {
            "auto" => "notice[W0309]",
            "yes" => "warning[W0308]",
            _ => {
                assert_eq!(codes(&log), [""; 0], "{log}");
                continue;
            }
        };
        let message = log
            .split("wsgate: ")
            .find(|message| message.starts_with(code))
            .unwrap_or_else(|| panic!("{log}"));
        let origin = if when == "auto" { "module `app.wsgi` (line 5) " } else { "" };
        let said = format!("\n  {origin}opened a socket, descriptor ");
        assert!(
            message.contains(" while it was loaded what processes must not share")
                && message.contains(&said),
            "{message}"
        );
        assert!(
            message.contains(&format!(
                ": connected to `{address}` from \
            `127.0.0.1:"
            )),
            "{message}"
        );
        assert!(message.contains("\nhint: ") && message.contains("--preload"), "{message}");
    }
}

#[test]
fn a_listening_socket_that_is_opened_at_import_is_free_again_when_a_worker_loads_for_itself() {
    let code = "
        import os, socket
        listener = socket.socket(socket.AF_UNIX)
        listener.bind('\\0' + os.environ['MARK'])
        listener.listen()
        unnamed = socket.socket()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'fine']
        ";
    let pool = PoolSetup::new(code).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "fine");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
    assert!(log.contains("notice[W0309]") && log.contains(": listens at `@/"), "{log}");
    assert!(log.contains(": a socket without an address"), "{log}");
}

/// Opens the file `data`, which is there for one process, and counts its lines in a request for
/// `/count`.
const KEEPS_OPEN: &str = "
    import fcntl, os
    path = os.path.join(os.path.dirname(__file__), 'data')
    data = open(path, 'w')
    fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
    def application(environ, start_response):
        data.write('%d\\n' % os.getpid())
        data.flush()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'kept']
    ";

#[test]
fn an_exclusive_resource_is_left_to_one_worker_and_the_log_has_a_hint() {
    let mut pool = PoolSetup::new(KEEPS_OPEN).args(&["--workers", "2"]).start();
    pool.await_log("--workers 1 --threads 8\nrequest");
    pool.await_times("another worker of this pool has loaded the application", 1);
    for _ in 0..4 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "kept");
    }
    let lines = fs::read_to_string(pool.setup().path("data")).unwrap();
    assert_eq!(lines.lines().count(), 4, "{lines}");
    let log = pool.stop();
    let mut codes = codes(&log);
    assert_eq!(codes.remove(0), "W0312", "{log}");
    assert!(codes.iter().all(|code| *code == "W0301"), "{log}");
    assert!(
        log.contains("\n  module `app.wsgi` (line 4) opened the file `")
            && log.contains("/data` and locked it\n"),
        "{log}"
    );
    // One worker has the resource, although other processes have loaded it before.
    let pool = PoolSetup::new(KEEPS_OPEN).args(&["--threads", "2"]).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "kept");
    let log = pool.stop();
    assert_eq!(crate::support::assertions::codes(&log), [""; 0], "{log}");
    assert!(
        log.contains("notice[W0309]") && log.contains("so the worker loads it by itself"),
        "{log}"
    );
}

#[test]
fn a_process_that_a_rejected_template_has_started_exits_with_it() {
    let code = format!(
        "import os, subprocess\nprogram = subprocess.Popen(['sleep', '600'])\nprint('started', \
            program.pid)\n{}",
        dedent(DRAWN)
    );
    let mut pool = PoolSetup::new(&code).start();
    pool.await_times("started ", 3);
    let log = pool.log();
    let started = log.lines().filter_map(|line| line.strip_prefix("started ")?.parse::<i32>().ok());
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    let living: Vec<i32> = started.filter(lives).collect();
    assert_eq!(living.len(), 1, "{log}");
    signal(living[0], Signal::KILL);
    assert!(
        log.contains(
            "\n  module `app.wsgi` (line 2) started the process `sleep`, which is still running\n"
        ),
        "{log}"
    );
    pool.stop();
}

#[test]
fn the_outcome_of_auto_is_remembered_for_the_code_and_tried_again_for_new_code() {
    let mut pool = PoolSetup::new(&counts()).start();
    assert_eq!(preload(&pool), "no");
    signal(pool.template(), Signal::KILL);
    pool.await_times("W0710", 2);
    pool.workers(1);
    assert_eq!((preload(&pool).as_str(), pool.log().matches("W0309").count()), ("no", 1));
    pool.setup().release(DRAWN);
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    assert_eq!(preload(&pool), "yes");
    pool.setup().release(&counts());
    pool.signal(Signal::HUP);
    pool.await_times("W0711", 2);
    assert_eq!((preload(&pool).as_str(), pool.log().matches("W0309").count()), ("no", 2));
    eventually("one template is left", || children(pool.pid()).len() == 1);
    let log = pool.stop();
    only_log_message(&log, "W0703");
}

#[test]
fn a_thread_that_does_not_exit_keeps_no_rejected_template() {
    // The interpreter would wait for it for ever.
    let stuck = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n";
    let mut pool =
        PoolSetup::new(&format!("{stuck}{}", dedent(DRAWN))).args(&["--drain", "1"]).start();
    pool.ask(&FastcgiRequest::get("/"));
    assert_eq!(children(pool.pid()).len(), 1);
    pool.setup().release(&format!("{stuck}raise RuntimeError"));
    pool.signal(Signal::HUP);
    pool.await_log("W0715");
    eventually("one template is left", || children(pool.pid()).len() == 1);
    // The thread of the worker outlives what TERM asks for; then it is killed.
    pool.stop();
    for when in ["auto", "yes", "no"] {
        let setup =
            PoolSetup::new(&format!("{stuck}raise RuntimeError")).args(&["--preload", when]);
        let ended = setup.launch().end();
        assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
        only_log_message(&ended.stderr, "W0301");
    }
}

#[test]
fn a_warm_up_request_is_answered_by_the_process_that_loads() {
    let code = "
        import os
        seen = []
        def application(environ, start_response):
            seen.append('%s %s %d' % (environ['REQUEST_METHOD'], environ['PATH_INFO'], os.getpid()))
            if environ['PATH_INFO'] == '/raise':
                raise RuntimeError('on purpose')
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [seen[0].encode()]
        ";
    for (preload, path) in
        [("auto", "/first"), ("yes", "/first"), ("no", "/first"), ("auto", "/raise")]
    {
        let pool = PoolSetup::new(code).args(&["--preload", preload, "--warm-up", path]).start();
        let response = pool.ask(&FastcgiRequest::get("/second"));
        let loads = if preload == "no" { response.pid() } else { pool.template() };
        assert_eq!(response.text(), format!("GET {path} {loads}"), "{preload}: {}", pool.log());
        let log = pool.stop();
        if path == "/raise" {
            assert!(
                only_log_message(&log, "W0311").contains("the warm-up request for `/raise` failed"),
                "{log}"
            );
        } else {
            assert_eq!(codes(&log), [""; 0], "{log}");
        }
    }
}

/// numpy's OpenBLAS has a thread for each further processor, which nobody has started on purpose.
#[test]
fn the_hint_for_an_application_with_numpy_makes_it_forkable() {
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        return;
    }
    let venv = crate::support::web_servers::venv().display().to_string();
    let code = format!("import numpy\n{}", dedent(DRAWN));
    let mut pool = PoolSetup::new(&code).own_interpreter().args(&["--venv", &venv]).start();
    pool.await_log("OPENBLAS_NUM_THREADS=1");
    let log = pool.log();
    for args in [
        "notice[W0309]",
        "--env OPENBLAS_NUM_THREADS=1",
        "--preload no",
        "a secret that is made at import",
    ] {
        assert!(log.contains(args), "{args}: {log}");
    }
    drop(pool);
    let pool = PoolSetup::new(&code)
        .own_interpreter()
        .args(&["--venv", &venv, "--env", "OPENBLAS_NUM_THREADS=1"])
        .start();
    assert_eq!((preload(&pool).as_str(), pool.log().matches("W0309").count()), ("yes", 0));
}
