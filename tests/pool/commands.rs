//! Many commands to a pool at once, long answers, and control sockets that send too little or
//! too much.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    pool::ECHO,
    support::{
        control_socket::{
            control, says_garbage, says_little_for_ever, says_nothing, says_too_much,
        },
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup, count},
        web_servers::eventually,
    },
};

/// The number of threads in the status of the pool; none if a busy machine answers too late.
fn threads_in_status(pool: &Pool) -> Option<usize> {
    let ended = pool.run_wsgate(&["status", "--json", "app"]);
    let is_complete = ended.code() == Some(0);
    let status = is_complete.then(|| serde_json::from_slice(&ended.stdout).unwrap());
    status.map(|status: serde_json::Value| status["workers"].as_array().unwrap().len())
}

#[test]
fn the_status_of_many_threads_is_complete_while_other_clients_do_not_read() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "8", "--threads", "256"]).start();
    eventually("all threads have started", || threads_in_status(&pool) == Some(8 * 256));
    eventually("the table has a line for each thread", || {
        pool.run_wsgate(&["status", "app"]).text().lines().count() == 3 + 8 * 256
    });
    let control = pool.setup().path("run/app.pool");
    let _silent: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(&control).unwrap();
            stream.write_all(b"status\n").unwrap();
            stream
        })
        .collect();
    eventually("the status is complete", || threads_in_status(&pool) == Some(8 * 256));
    assert!(count(pool.pid(), "fd") < 200);
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    pool.stop();
}

#[test]
fn clients_that_wait_for_reloads_exhaust_no_supervisor() {
    let mut pool = PoolSetup::new(ECHO).start();
    // A reload that does not come to an end.
    pool.setup().release("import time\nprint('loads')\ntime.sleep(1000)\n");
    pool.await_log("loads");
    let control = pool.setup().path("run/app.pool");
    let _waiting: Vec<_> = (0..400)
        .map(|_| {
            let mut stream = UnixStream::connect(&control).unwrap();
            stream.write_all(b"reload\n").unwrap();
            stream
        })
        .collect();
    eventually("the pool shows its status", || {
        pool.run_wsgate(&["status", "app"]).code() == Some(0)
    });
    assert!(count(pool.pid(), "fd") < 320, "{}", count(pool.pid(), "fd"));
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    pool.setup().release(ECHO);
    let ended = pool.run_wsgate(&["reload", "app"]);
    let log = pool.stop();
    assert_eq!(ended.code(), Some(0), "{}{log}", ended.stderr);
}

/// Says that it is as a real pool was, and does nothing else.
fn lies(mut stream: UnixStream) {
    let mut question = [0; 16];
    let length = stream.read(&mut question).unwrap();
    if &question[..length] == b"status\n" {
        let status = r#"{"name":"lies","app":"app","pid":1,"listeners":[],"generation":1,
            "preload":"auto","min":1,"max":1,"reloading":false,"loading":false,"resting":false,
            "mode":"fastcgi","age":1,"requests":0,
            "aborted":0,"stopping":false,"workers":[]}"#;
        stream.write_all(status.as_bytes()).unwrap();
    } else {
        thread::sleep(Duration::from_secs(600));
    }
}

#[test]
fn pools_that_send_nothing_or_too_much_do_not_hide_the_status_of_others() {
    let pool = PoolSetup::new(ECHO).args(&["--name", "middle"]).start();
    let run = pool.setup().path("run");
    for (name, handle) in [
        ("a-silent", says_nothing as fn(UnixStream)),
        ("b-endless", says_too_much),
        ("c-slow", says_little_for_ever),
        ("x-garbage", says_garbage),
    ] {
        control(&run, name, handle);
    }
    // Nobody takes connections there.
    let full = UnixListener::bind(run.join("full.pool")).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _waits = UnixStream::connect(run.join("full.pool")).unwrap();
    // A command that hangs fails the test at the deadline of every process.
    let ended = pool.run_wsgate(&["status"]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.text().starts_with("middle "), "{}", ended.text());
    for name in ["a-silent", "b-endless", "c-slow", "full", "x-garbage"] {
        assert!(
            ended.stderr.contains(&format!("the pool `{name}` does not answer")),
            "{name}: {}",
            ended.stderr
        );
        let alone = pool.run_wsgate(&["status", name]);
        assert_eq!(alone.code(), Some(1), "{name}");
        assert!(alone.stderr.contains("W0905"), "{name}: {}", alone.stderr);
    }
    assert!(!ended.stderr.contains('\x1b'));
    pool.stop();
}

#[test]
fn a_pool_that_does_not_obey_a_command_keeps_nobody_waiting() {
    let pool = PoolSetup::new(ECHO).start();
    control(&pool.setup().path("run"), "lies", lies);
    assert_eq!(pool.run_wsgate(&["status", "lies"]).code(), Some(0));
    for args in [["reload", "lies"], ["stop", "lies"]] {
        let ended = pool.run_wsgate(&args);
        assert_eq!(ended.code(), Some(1), "{args:?}");
        assert!(ended.stderr.contains("W0905"), "{args:?}: {}", ended.stderr);
    }
    // Its supervisor is stopped.
    pool.signal(Signal::STOP);
    for args in [["reload", "app"], ["stop", "app"]] {
        assert_eq!(pool.run_wsgate(&args).code(), Some(1), "{args:?}");
    }
    pool.signal(Signal::CONT);
    pool.stop();
}

#[test]
fn a_reload_that_takes_longer_than_an_answer_may_is_waited_for() {
    let pool = PoolSetup::new(ECHO).start();
    let slow = "
        import time
        time.sleep(12)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'slow']
        ";
    pool.setup().release(slow);
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    // Workers of the old code may serve until theirs are there.
    eventually("the new code serves", || pool.ask(&FastcgiRequest::get("/")).text() == "slow");
    pool.stop();
}

#[test]
fn no_command_is_sent_to_a_link_to_the_socket_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let pool = PoolSetup::new(ECHO).start();
    let run = pool.setup().path("run");
    let theirs = pool.setup().path("theirs");
    fs::create_dir(&theirs).unwrap();
    let listener = UnixListener::bind(pool.setup().path("ours")).unwrap();
    symlink(pool.setup().path("ours"), theirs.join("link.pool")).unwrap();
    // A directory of another user, which root reads.
    let status =
        std::process::Command::new("chown").args(["-h", "54321"]).arg(&theirs).status().unwrap();
    assert!(status.success());
    std::process::Command::new("chmod").arg("700").arg(&theirs).status().unwrap();
    let mut command = std::process::Command::new(crate::support::artefacts::gateway());
    command.args(["stop", "link"]).env_clear().env("WSGATE_RUNTIME_DIR", &theirs);
    let ended = crate::support::child_process::run(&mut command, "");
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    let (mut stream, _) = listener.accept().unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"");
    assert!(run.join("app.pool").exists());
    pool.stop();
}
