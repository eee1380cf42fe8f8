//! Processes that have become another user exit with their supervisor or template.

use rustix::process::{Signal, geteuid};

use crate::support::{
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup, children, signal},
    processes::user_and_group_ids,
    user_change::{CHANGES_USER, has_changed_user},
    web_servers::eventually,
};

/// Starts a pool, and waits until its worker has become another user at `when`.
fn start_and_change(when: &str, args: &[&str], path: &str) -> (Pool, FastcgiConnection) {
    let pool = PoolSetup::new(CHANGES_USER).variable("WHEN", when).args(args).start();
    let worker = pool.workers(1)[0];
    let connection = pool.connect();
    connection.send(&FastcgiRequest::get(path).bytes());
    eventually(&format!("a worker is another user: {when} {args:?} {path}"), || {
        has_changed_user(worker)
    });
    (pool, connection)
}

#[test]
fn no_process_outlives_a_supervisor_that_is_killed() {
    if !geteuid().is_root() {
        return;
    }
    for (preload, threads) in [("yes", "1"), ("no", "1"), ("yes", "3")] {
        for (when, path) in
            [("import", "/"), ("fork", "/hang"), ("request", "/leave"), ("request", "/leave/hang")]
        {
            if when == "fork" && preload == "no" {
                continue;
            }
            let (pool, _connection) =
                start_and_change(when, &["--preload", preload, "--threads", threads], path);
            pool.signal(Signal::KILL);
            // Waits for all processes.
            pool.end();
        }
    }
}

#[test]
fn no_worker_outlives_a_template_that_is_killed() {
    if !geteuid().is_root() {
        return;
    }
    for (when, path) in
        [("import", "/hang"), ("fork", "/hang"), ("request", "/leave"), ("request", "/leave/hang")]
    {
        let (pool, _connection) = start_and_change(when, &["--preload", "yes"], path);
        let worker = pool.workers(1)[0];
        let template = pool.template();
        signal(template, Signal::KILL);
        eventually("the worker has exited, too", || user_and_group_ids(worker).is_empty());
        eventually("another template serves", || {
            !children(pool.pid()).contains(&template) && pool.template() > 0
        });
        pool.signal(Signal::KILL);
        pool.end();
    }
}
