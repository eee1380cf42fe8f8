//! Whatever user an application has become, its processes end with those that watch over them.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    pool::{children, orphans::has_left, privileges::users},
    support::{child_process::RunningProcess, waiting::exits_within, web_servers::eventually},
    warm::WarmSite,
};

/// Becomes another user while it is loaded, or for a request, which may not end.
const LEAVES: &str = "
    import os, time
    def leave():
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
    def application(environ, start_response):
        if environ['PATH_INFO'].startswith('/leave'):
            leave()
        while environ['PATH_INFO'].endswith('hang'):
            time.sleep(1)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
    ";

#[track_caller]
fn await_end(pid: i32) {
    eventually(&format!("{pid} has ended"), || users(pid).is_empty());
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn no_process_outlives_a_gateway_that_is_killed() {
    if !geteuid().is_root() {
        return;
    }
    for (mode, at_import) in [("cold", false), ("cold", true), ("warm", false), ("resident", false)]
    {
        let code = if at_import {
            LEAVES.replace("    def application", "    leave()\n    def application")
        } else {
            LEAVES.to_owned()
        };
        let site = WarmSite::of(mode, "", &code);
        if mode != "cold" {
            site.ask();
            site.await_pools(1);
        }
        let path = if at_import { "/hang" } else { "/leave/hang" };
        let mut command = site.request();
        command
            .env("PATH_INFO", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let running = RunningProcess::start(&mut command);
        let mut found = None;
        eventually(&format!("a process is another user: {mode}"), || {
            let templates = site.supervisors().into_iter().flat_map(children).flat_map(children);
            let gateway = running.pid().as_raw_nonzero().get();
            found = children(gateway).into_iter().chain(templates).find(|&pid| has_left(pid));
            found.is_some()
        });
        running.signal(Signal::KILL);
        running.end();
        await_end(found.unwrap());
    }
}

#[test]
fn no_process_outlives_a_supervisor_or_template_that_is_killed() {
    if !geteuid().is_root() {
        return;
    }
    for (mode, kills_template) in
        [("warm", false), ("warm", true), ("resident", false), ("resident", true)]
    {
        let code = "
            import os
            def leave():
                os.setresuid(54321, 54321, 54321)
            if os.environ.get('LEAVES'):
                os.register_at_fork(after_in_child=leave)
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'served']
            ";
        let site = WarmSite::of(mode, "--env LEAVES=1", code);
        site.ask();
        site.await_pools(1);
        let supervisor = site.supervisors()[0];
        let template = children(supervisor)[0];
        let mut spares = Vec::new();
        eventually("processes wait", || {
            spares = children(template);
            !spares.is_empty() && spares.iter().all(|&pid| has_left(pid))
        });
        kill(if kills_template { template } else { supervisor });
        spares.into_iter().chain([template]).for_each(await_end);
        if kills_template {
            kill(supervisor);
        }
    }
}

/// Answers with its process, and does not react to anything in `close()`.
const NEVER_CLOSES: &str = "
    import os, time
    class Body:
        def __iter__(self):
            yield b'%d' % os.getpid()
        def close(self):
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return Body() if environ['PATH_INFO'] == '/hang' else [b'served']
    ";

/// A pool with a process that has answered, and is in `close()`.
fn closing(mode: &str) -> (WarmSite, i32) {
    let site = WarmSite::of(mode, "", NEVER_CLOSES);
    site.ask();
    site.await_pools(1);
    let response = site.response(site.request().env("PATH_INFO", "/hang"), "");
    let pid = response.text().parse().unwrap();
    (site, pid)
}

#[test]
fn no_process_in_close_outlives_its_pool() {
    for mode in ["warm", "resident"] {
        let (site, pid) = closing(mode);
        site.supervisors().into_iter().for_each(kill);
        await_end(pid);
    }
}

#[test]
fn close_has_a_limit_without_a_timeout() {
    std::thread::scope(|scope| {
        for mode in ["warm", "resident"] {
            scope.spawn(move || {
                let (site, pid) = closing(mode);
                assert!(exits_within(pid, Duration::from_secs(50)), "{mode}: {}", site.log());
                assert!(site.log().contains("W0604"), "{mode}: {}", site.log());
            });
        }
    });
}
