//! Files, processes and random numbers of an import, in processes that were forked after it.

use std::{collections::HashSet, fs};

use crate::{
    support::{
        assertions::{codes, complete_response},
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

/// Adds a line to a file that it has open and locked, and answers with the number of lines.
const KEEPS_OPEN: &str = "
    import fcntl, os
    data = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data'), 'r+')
    fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lines = data.readlines()
    def application(environ, start_response):
        lines.append('%d\\n' % os.getpid())
        data.write(lines[-1])
        data.flush()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%d' % len(lines)]
    ";

#[test]
fn an_exclusive_resource_is_lost_by_no_request_and_logged_once() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "", KEEPS_OPEN);
        fs::write(site.dir.path("site/data"), "").unwrap();
        for number in 1..=8 {
            let response = site.ask();
            assert_eq!(
                (complete_response(&response.raw).status, response.text()),
                (200, number.to_string()),
                "{}",
                response.log
            );
        }
        let lines = fs::read_to_string(site.dir.path("site/data")).unwrap();
        let pids: HashSet<&str> = lines.lines().collect();
        assert_eq!((lines.lines().count(), pids.len()), (8, 8), "{lines}");
        let log = site.log();
        assert_eq!(codes(&log), ["W0310"], "{log}");
        assert!(
            log.contains("\n  module `app.wsgi` (line 4) opened the file `")
                && log.contains("/data` and locked it\n"),
            "{log}"
        );
        assert!(log.contains("--workers 1 --threads 8"), "{log}");
        assert_eq!(site.processes(), [0; 0]);
    }
}

#[test]
fn new_code_that_may_be_forked_is() {
    let site = WarmSite::new(KEEPS_OPEN);
    fs::write(site.dir.path("site/data"), "").unwrap();
    assert_eq!(site.ask().text(), "1");
    site.release(super::TELLS_ITSELF);
    eventually("a process that was forked answers", || Who::of(&site.ask()).is_warm());
}

#[test]
fn an_exclusive_resource_of_a_warm_up_request_makes_requests_fall_back_to_cold_cgi() {
    let code = KEEPS_OPEN.replace("'data'), 'r+')", "'data'), 'a')").replace(
        "    def application(environ, start_response):\n",
        "    def application(environ, start_response):\n        global more\n        if \
            environ['PATH_INFO'] == '/open':\n            more = open(data.name, 'r+')\n",
    );
    let code = code.replace(
        "    fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)\n    lines = data.readlines()",
        "    lines = []",
    );
    let site = WarmSite::with("--warm-up /open", &code);
    site.ask();
    eventually(&format!("the pool has ended: {}", site.log()), || site.log().contains("W0310"));
    site.await_no_process();
    for _ in 0..3 {
        assert_eq!(site.ask().text(), "1");
    }
    assert_eq!(codes(&site.log()), ["W0310"], "{}", site.log());
    assert_eq!(site.processes(), [0; 0]);
}

#[test]
fn threads_and_connections_are_named_with_the_code_that_made_them() {
    let site = WarmSite::new(
        "
        import os, threading
        BORN = os.getppid()
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(thread.is_alive()).encode()]
        ",
    );
    site.warm_up();
    for _ in 0..3 {
        assert_eq!(site.ask().text(), "True", "{}", site.log());
    }
    let log = site.log();
    assert_eq!(log.matches("W0309").count(), 1, "{log}");
    assert!(log.contains("\n  module `app.wsgi` (line 6) started 1 thread\n"), "{log}");
    // An option that warm mode refuses is no help.
    let hint = log.split("hint: ").nth(1).unwrap().lines().next().unwrap();
    assert!(hint.contains("--mode resident") && !hint.contains("--preload"), "{hint}");
    assert!(hint.contains("a secret that is made at import"), "{hint}");
}

#[test]
fn a_child_that_falls_out_of_an_import_serves_no_request() {
    let code = "
        import os
        BORN = os.getpid()
        if os.fork():
            os.wait()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ";
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "", code);
        let first = Who::of(&site.warm_up());
        assert!(!first.is_warm());
        eventually("a process that was forked answers", || Who::of(&site.ask()).is_warm());
        let pool = site.supervisors();
        assert_eq!(pool.len(), 1);
        assert_eq!(crate::pool::children(pool[0]).len(), 1, "{}", site.log());
        // The one of the first request, and the one of the template.
        let log = site.log();
        assert!(codes(&log).iter().all(|code| *code == "W0608") && codes(&log).len() >= 2, "{log}");
    }
}

#[test]
fn random_numbers_differ_from_request_to_request() {
    let code = "
        import os, random
        random.seed(1)
        again, same = random.Random(1), random.Random(1)
        os.register_at_fork(after_in_child=again.seed)
        BORN = os.getpid()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Born', str(BORN != \
            os.getpid()))])
            return [' '.join(map(str, [random.random(), again.random(), same.random()])).encode()]
        ";
    let site = WarmSite::new(code);
    site.warm_up();
    let mut drawn: [HashSet<String>; 3] = Default::default();
    for _ in 0..4 {
        let response = site.ask();
        assert_eq!(response.header("X-Born"), Some("True"), "{}", site.log());
        for (set, value) in drawn.iter_mut().zip(response.text().split(' ')) {
            set.insert(value.to_owned());
        }
    }
    assert_eq!(drawn.map(|set| set.len()), [4, 4, 1]);
}
