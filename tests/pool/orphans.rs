//! Whatever user an application has become, its processes end with those that watch over them.

use rustix::process::{Signal, geteuid};

use crate::{
    pool::privileges::users,
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, children, signal},
        web_servers::eventually,
    },
};

/// The user that applications become.
const USER: &str = "54321";

/// Becomes another user while it is loaded, or for a request, which may not end.
const LEAVES: &str = "
    import os, time
    def leave():
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
    if os.environ['WHEN'] == 'import':
        leave()
    if os.environ['WHEN'] == 'fork':
        os.register_at_fork(after_in_child=leave)
    def application(environ, start_response):
        if environ['PATH_INFO'].startswith('/leave'):
            leave()
        while environ['PATH_INFO'].endswith('hang'):
            time.sleep(1)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
    ";

/// Returns whether the process runs as that user.
pub(crate) fn has_left(pid: i32) -> bool {
    users(pid).first().is_some_and(|user| user == USER)
}

/// Starts a pool whose worker becomes another user at `when`, and gives the worker, once it has.
fn left(
    when: &str,
    args: &[&str],
    path: &str,
) -> (super::Pool, crate::support::fastcgi_client::FastcgiConnection) {
    let pool = PoolSetup::new(LEAVES).variable("WHEN", when).args(args).start();
    let worker = pool.workers(1)[0];
    let connection = pool.connect();
    connection.send(&FastcgiRequest::get(path).bytes());
    eventually(&format!("a worker is another user: {when} {args:?} {path}"), || has_left(worker));
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
            let (pool, _wire) = left(when, &["--preload", preload, "--threads", threads], path);
            pool.signal(Signal::KILL);
            // Waits for all of them.
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
        let (pool, _wire) = left(when, &["--preload", "yes"], path);
        let worker = pool.workers(1)[0];
        let template = pool.template();
        signal(template, Signal::KILL);
        eventually("the worker has ended, too", || users(worker).is_empty());
        eventually("another template serves", || {
            !children(pool.pid()).contains(&template) && pool.template() > 0
        });
        pool.signal(Signal::KILL);
        pool.end();
    }
}
