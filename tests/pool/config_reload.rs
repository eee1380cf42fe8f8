//! A reload of a pool reads its configuration file again.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::process::{Signal, geteuid};

use crate::support::{
    child_process::ExitedProcess,
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup, children, signal},
    probe::{dedent, python},
    web_servers::eventually,
};

use super::config_file::command;

/// An application that shows a variable, and sleeps as long as its query says.
const SHOWS: &str = "
    import os, time
    def application(environ, start_response):
        time.sleep(float(environ['QUERY_STRING'] or 0))
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [os.environ.get('SHOWN', '-').encode()]
    ";

/// What every file of these tests begins with.
const FIRST: &str = "app = \"app.wsgi\"\nlisten = \"unix:app.sock\"\n";

fn start(text: &str) -> Pool {
    let setup = PoolSetup::new(SHOWS);
    let mut command = command(&setup, &[FIRST, text].concat(), &[]);
    setup.launch_as(&mut command)
}

/// Gives the pool another file.
fn write(pool: &Pool, text: &str) {
    let user = if geteuid().is_root() { "user = \"root\"\n" } else { "" };
    let text = format!("python = {:?}\n{user}{text}", python());
    fs::write(pool.setup().path("site.toml"), text).unwrap();
}

fn reload(pool: &Pool, text: &str) -> ExitedProcess {
    write(pool, text);
    pool.run_wsgate(&["reload", "site"])
}

#[track_caller]
fn assert_reloads(pool: &Pool, text: &str) {
    let ended = reload(pool, &[FIRST, text].concat());
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
}

/// The workers at this moment.
fn now(pool: &Pool) -> Vec<i32> {
    children(pool.pid()).into_iter().flat_map(children).collect()
}

fn shown(pool: &Pool) -> String {
    pool.ask(&FastcgiRequest::get("/")).text()
}

/// Asserts that `workers` new workers replace the old ones, and show `expected`.
#[track_caller]
fn assert_shows(pool: &Pool, expected: &str, workers: usize) {
    eventually(expected, || shown(pool) == expected);
    pool.workers(workers);
    for _ in 0..=workers {
        assert_eq!(shown(pool), expected);
    }
}

#[test]
fn a_reload_applies_the_options_that_workers_are_started_with() {
    let pool = start("workers = 1\nenv = { SHOWN = \"first\" }\n");
    assert_eq!(shown(&pool), "first");
    assert_reloads(&pool, "workers = 3\nenv = { SHOWN = \"second\" }\n");
    assert_shows(&pool, "second", 3);
    assert_reloads(&pool, "workers = 2\naccess-log = \"access.log\"\naccess-format = \"json\"\n");
    assert_shows(&pool, "-", 2);
    // Those of the third worker, too.
    eventually("all requests are in the histogram", || {
        let text = pool.run_wsgate(&["status", "--json", "site"]).text();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counts = status["duration"]["counts"].as_array().unwrap();
        counts.iter().filter_map(|count| count.as_u64()).sum::<u64>()
            == status["requests"].as_u64().unwrap()
    });
    let log = fs::read_to_string(pool.setup().path("access.log")).unwrap();
    assert!(log.starts_with('{'), "{log}");
    // A dynamic pool without a process, and back.
    assert_reloads(&pool, "max = 4\nidle = 1\n");
    eventually("no worker is left", || now(&pool).is_empty());
    assert_eq!(shown(&pool), "-");
    assert_reloads(&pool, "workers = 1\nthreads = 1\ntimeout = 1\n");
    assert_eq!(pool.workers(1).len(), 1);
    let response = pool.ask(&FastcgiRequest::get("/").param("QUERY_STRING", "30"));
    assert_eq!(response.valid().status, 504);
    let log = pool.stop();
    assert_eq!(log.matches("W0711").count(), 4, "{log}");
}

#[test]
fn a_reload_changes_to_another_application() {
    let pool = start("workers = 1\n");
    let other = pool.setup().path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("site.wsgi"), dedent(&SHOWS.replace("'-'", "'other'"))).unwrap();
    let text = FIRST.replace("app.wsgi", "other/site.wsgi");
    let ended = reload(&pool, &[&text, "workers = 1\n"].concat());
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_shows(&pool, "other", 1);
    let status = pool.run_wsgate(&["status", "site"]);
    assert!(status.text().contains("other/site.wsgi"), "{}", status.text());
    // The new script is watched, and no longer the old one.
    let changed = dedent(&SHOWS.replace("'-'", "'changed'"));
    fs::write(other.join("site.wsgi"), changed).unwrap();
    eventually("the changed script serves", || shown(&pool) == "changed");
    pool.stop();
}

#[test]
fn a_wrong_file_fails_the_reload_with_its_line_and_the_old_pool_goes_on() {
    let pool = start("workers = 2\nenv = { SHOWN = \"first\" }\n");
    let before = pool.workers(2);
    for (text, sentence) in [
        ("app = \"app.wsgi\"\nworker = 3\n", "unknown key `worker`; the nearest is `workers`"),
        ("app = \n", "site.toml`, line "),
        ("app = \"app.wsgi\"\nmin = 3\nmax = 2\n", "--min 3 is more than --max 2"),
        ("app = \"app.wsgi\"\nmin = 3\n", "--max"),
        ("app = \"missing.wsgi\"\nworkers = 1\n", "missing.wsgi"),
        ("app = \"app.wsgi\"\naccess-log = \"no/such/access.log\"\n", "no/such/access.log"),
        (
            "app = \"app.wsgi\"\nslow-log = \"slow.log\"\n",
            "--slow-log has no effect without --slow",
        ),
        ("app = \"app.wsgi\"\nchdir = \"missing\"\n", "missing` for --chdir cannot be entered"),
    ] {
        let ended = reload(&pool, text);
        assert_eq!(ended.code(), Some(1), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains("error[W0715]"), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains(sentence), "{text}: {}", ended.stderr);
        assert_eq!(shown(&pool), "first");
    }
    for (text, sentence) in [("app = \n", "site.toml`, line "), ("min = 2\n", "no application")] {
        fs::write(pool.setup().path("site.toml"), text).unwrap();
        let ended = pool.run_wsgate(&["reload", "--binary", "site"]);
        assert_eq!(ended.code(), Some(1), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains(sentence), "{text}: {}", ended.stderr);
        assert_eq!(shown(&pool), "first");
    }
    fs::remove_file(pool.setup().path("site.toml")).unwrap();
    let ended = pool.run_wsgate(&["reload", "site"]);
    assert!(ended.stderr.contains("site.toml"), "{}", ended.stderr);
    assert_eq!(pool.workers(2), before);
    // A worker that is replaced meanwhile has the old configuration, too.
    signal(before[0], Signal::KILL);
    eventually("another worker has started", || {
        now(&pool).iter().filter(|worker| **worker != before[0]).count() == 2
    });
    for _ in 0..4 {
        assert_eq!(shown(&pool), "first");
    }
    assert_reloads(&pool, "workers = 1\nenv = { SHOWN = \"second\" }\n");
    assert_shows(&pool, "second", 1);
    pool.stop();
}

#[test]
fn code_that_cannot_be_loaded_keeps_the_old_configuration() {
    let pool = start("workers = 1\nenv = { SHOWN = \"first\" }\n");
    fs::write(pool.setup().path("broken.wsgi"), "raise RuntimeError('broken')\n").unwrap();
    let ended = reload(
        &pool,
        "app = \"broken.wsgi\"\nworkers = 3\nenv = { SHOWN = \"second\" }\n\
         access-log = \"access.log\"\n",
    );
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("W0301"), "{}", ended.stderr);
    let old = pool.workers(1)[0];
    signal(old, Signal::KILL);
    eventually("another worker has started", || {
        now(&pool).first().is_some_and(|worker| *worker != old)
    });
    assert_eq!(shown(&pool), "first");
    pool.stop();
}

#[test]
fn options_that_only_a_restart_can_change_are_named_and_keep_their_values() {
    let pool = start("workers = 1\n");
    let text = "app = \"app.wsgi\"\nlisten = \"unix:other.sock\"\nworkers = 2\nthreads = 2\n\
                name = \"other\"\numask = \"077\"\nnice = 4\nsocket-mode = \"600\"\n\
                rlimit = { core = 0 }\nerror-log = \"error.log\"\n";
    for _ in 0..2 {
        let ended = reload(&pool, text);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        let names = "--listen, --socket-mode, --threads, --name, --error-log, --umask, --nice, \
                     --rlimit";
        for expected in ["warning[W0729]", names] {
            assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        }
        assert_shows(&pool, "-", 2);
        assert!(!pool.setup().path("other.sock").exists());
    }
    assert_reloads(&pool, "workers = 1\n");
    let log = pool.stop();
    assert_eq!(log.matches("W0729").count(), 2, "{log}");
}

#[test]
fn a_reload_loses_no_request_while_the_number_of_workers_changes() {
    let pool = start("workers = 4\n");
    let path = pool.setup().path("site.toml");
    let text = fs::read_to_string(&path).unwrap();
    let brief = FastcgiRequest::get("/").param("QUERY_STRING", "0.01");
    let (socket, stops) = (pool.socket(), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !stops.load(Ordering::Relaxed) {
                        let mut connection = FastcgiConnection::unix(&socket);
                        assert_eq!(connection.ask(&brief).text(), "-");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let failed = [1, 6, 2, 8, 3].into_iter().find_map(|workers| {
            let text = text.replace("workers = 4", &format!("workers = {workers}"));
            fs::write(&path, text).unwrap();
            let ended = pool.run_wsgate(&["reload", "site"]);
            (ended.code() != Some(0)).then_some(ended.stderr)
        });
        stops.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
        let served: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(served > 20, "{served}");
    });
    pool.workers(3);
    pool.stop();
}

#[test]
fn an_edit_of_one_site_reloads_its_pool_only() {
    let text = "workers = 2\nenv = { SHOWN = \"first\" }\n";
    let pools: Vec<Pool> = (0..5).map(|_| start(text)).collect();
    let before: Vec<_> = pools.iter().map(|pool| (pool.template(), pool.workers(2))).collect();
    assert_reloads(&pools[2], "workers = 1\nenv = { SHOWN = \"second\" }\n");
    assert_shows(&pools[2], "second", 1);
    for (number, (pool, before)) in pools.iter().zip(before).enumerate() {
        if number != 2 {
            assert_eq!((pool.template(), pool.workers(2)), before);
            assert_eq!(shown(pool), "first");
        }
    }
    for (number, pool) in pools.into_iter().enumerate() {
        assert_eq!(pool.stop().matches("W0711").count(), usize::from(number == 2));
    }
}
