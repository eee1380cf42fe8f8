//! Applications that workers cannot load, or load for ever.

use std::fs;

use rustix::process::Signal;

use crate::{
    pool::{
        only_log_message,
        preloading::{DRAWN, of_both},
    },
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, children, signal},
        probe::dedent,
        web_servers::eventually,
    },
};

#[test]
fn an_application_that_no_worker_can_load_ends_the_pool_with_the_reason() {
    for (code, expected) in [
        ("import there_is_no_such_module", "W0302"),
        ("raise RuntimeError('no')", "W0301"),
        ("application = 1", "W0303"),
        ("import sys; sys.exit(0)", "W0304"),
        ("import os; os._exit(0)", "W0702"),
        ("import os; os.kill(os.getpid(), 9)", "W0702"),
    ] {
        let pool = PoolSetup::new(code).args(&["--preload", "no", "--workers", "2"]).launch();
        let (ended, setup) = pool.end_and_leave();
        assert_eq!(ended.code(), Some(1), "{code}: {}", ended.stderr);
        only_log_message(&ended.stderr, expected);
        assert!(!setup.path("app.sock").exists(), "{code}");
    }
}

#[test]
fn a_broken_release_leaves_the_old_code_serving_where_workers_load_for_themselves() {
    let mut pool =
        PoolSetup::new(DRAWN).gated().args(&["--workers", "2", "--preload", "no"]).start();
    let before = of_both(&mut pool);
    for (number, code) in ["raise RuntimeError", "import os; os._exit(3)"].into_iter().enumerate() {
        pool.setup().release(code);
        pool.signal(Signal::HUP);
        pool.await_times("W0715", number + 1);
    }
    assert_eq!(of_both(&mut pool), before);
    pool.setup().release(&DRAWN.replace("str(drawn)", "('new ' + drawn)"));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    eventually("new workers serve", || {
        of_both(&mut pool).iter().all(|drawn| drawn.starts_with("new "))
    });
    eventually("one template is left", || children(pool.pid()).len() == 1);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0301", "W0715", "W0702", "W0715"], "{log}");
}

#[test]
fn a_worker_that_fails_to_load_later_is_put_off_and_the_others_serve() {
    // The broken file is not among those that the pool watches.
    let code = format!(
        "import os\nif os.path.exists(os.environ['MARK'] + '/broken'):\n    raise RuntimeError\n{}",
        dedent(DRAWN)
    );
    let mut pool = PoolSetup::new(&code).args(&["--workers", "2", "--preload", "no"]).start();
    let broken = pool.setup().path("broken");
    let before = pool.loaded_workers(2);
    fs::write(&broken, "").unwrap();
    let begin = std::time::Instant::now();
    signal(before[0], Signal::KILL);
    pool.await_times("W0301", 4);
    // The pauses grow: 100 ms, 200 ms, 400 ms.
    assert!(begin.elapsed().as_millis() > 600, "{:?}", begin.elapsed());
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), before[1]);
    fs::remove_file(&broken).unwrap();
    assert!(pool.loaded_workers(2).contains(&before[1]));
    let log = pool.stop();
    let mut codes = codes(&log);
    assert_eq!(codes.remove(0), "W0701", "{log}");
    assert!(codes.iter().all(|code| *code == "W0301"), "{log}");
}

#[test]
fn old_workers_serve_until_new_ones_have_loaded_and_an_endless_load_blocks_nothing() {
    let gated = format!(
        "import os\nprint('loads')\nos.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)\n{}",
        dedent(DRAWN)
    );
    let mut pool =
        PoolSetup::new(DRAWN).gated().args(&["--workers", "2", "--preload", "no"]).start();
    let before = pool.loaded_workers(2);
    pool.setup().release(&gated);
    pool.signal(Signal::HUP);
    pool.await_times("loads", 1);
    assert!(before.contains(&pool.ask(&FastcgiRequest::get("/")).pid()));
    // The first worker shows that the code can be loaded, and takes its place; the second is still
    // at it.
    pool.open_gate();
    pool.await_times("loads", 2);
    let alive = |worker: &i32| fs::exists(format!("/proc/{worker}")).unwrap();
    eventually("one of the old workers has ended", || {
        before.iter().filter(|worker| alive(worker)).count() == 1
    });
    // The pool does not wait for the thread, and leaves no process behind.
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
