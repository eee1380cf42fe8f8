//! Release after release, half of them broken, and nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    pool::load::{Attempt, Clients, compare, turn},
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, children},
        web_servers::eventually,
    },
};

/// A release of the application.
fn release(number: u64) -> String {
    format!(
        "
        import os
        def application(environ, start_response):
            body = environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'release {number}|', body]
        "
    )
}

/// Releases that cannot be loaded, and the code that says why. The last one ends its process
/// without a word.
const BROKEN: [(&str, &str); 5] = [
    ("def application(:", "W0301"),
    ("import there_is_no_such_module", "W0302"),
    ("raise RuntimeError('not today')", "W0301"),
    ("application = None", "W0303"),
    ("import os; os._exit(1)", "W0703"),
];

/// The release that answered. No connection that is kept is ever closed.
fn release_of(asked: &Attempt) -> Result<u64, String> {
    let response = match &asked.outcome {
        Ok(response) => response,
        Err(lost) => {
            return Err(format!(
                "{lost:?}, answered before on this connection: {:?}",
                asked.worker
            ));
        }
    };
    let text = response.text();
    let number: Option<u64> =
        text.strip_prefix("release ").and_then(|rest| rest.split('|').next()?.parse().ok());
    let number = number.ok_or_else(|| format!("`{text}` is of no release"))?;
    compare(response, &format!("release {number}|{}", asked.body))?;
    Ok(number)
}

#[test]
fn a_hundred_reloads_under_load_half_of_them_broken_fail_no_request() {
    let _turn = turn();
    let pool = PoolSetup::new(&release(0)).args(&["--workers", "2", "--threads", "2"]).start();
    // Releases from the oldest to the newest may answer: the old workers stay until the new ones
    // are there.
    let (oldest, newest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (clock, latest) = (oldest.clone(), newest.clone());
    let clients = Clients::start(
        &pool,
        8,
        move || clock.load(Ordering::SeqCst),
        move |asked| {
            let number = release_of(asked)?;
            let current = asked.began..=latest.load(Ordering::SeqCst);
            if current.contains(&number) {
                Ok(())
            } else {
                Err(format!("release {number}, when {current:?} was current"))
            }
        },
    );
    let mut expected = Vec::new();
    for number in 1..=100 {
        let (code, outcome) = if number % 2 == 0 {
            newest.store(number, Ordering::SeqCst);
            (release(number), Some(0))
        } else {
            let (code, cause) = BROKEN[usize::try_from(number / 2).unwrap() % BROKEN.len()];
            expected.extend([cause, "W0715"]);
            (code.to_owned(), Some(1))
        };
        pool.setup().release(&code);
        let reported = pool.run_wsgate(&["reload", "app"]);
        assert_eq!(reported.code(), outcome, "reload {number}: {}", reported.stderr);
        assert_eq!(
            reported.stderr.contains("error[W0715]"),
            outcome == Some(1),
            "reload {number}: {}",
            reported.stderr
        );
        if outcome == Some(0) {
            eventually("the old template and its workers have ended", || {
                children(pool.pid()).len() == 1
            });
            oldest.store(number, Ordering::SeqCst);
        }
        clients.each_answered(2);
    }
    clients.end();
    pool.workers(2);
    let log = pool.stop();
    assert_eq!(codes(&log), expected, "{log}");
}

#[test]
fn a_dynamic_pool_that_changes_all_the_time_fails_no_request() {
    let _turn = turn();
    let args =
        ["--max", "4", "--idle", "1", "--max-requests", "100", "--max-age", "1", "--threads", "2"];
    let mut pool = PoolSetup::new(&release(0)).dynamic(&args).start();
    for round in 1..=3 {
        let clients = Clients::start(&pool, 6, || 0, |asked| release_of(asked).map(drop));
        clients.each_answered(300);
        pool.setup().release(&release(round));
        assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
        clients.each_answered(300);
        assert!(
            pool.ask(&FastcgiRequest::post("/", ""))
                .text()
                .starts_with(&format!("release {round}"))
        );
        clients.end();
        // The pool is dormant before each round.
        pool.await_times("W0716", usize::try_from(round).unwrap());
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
