//! CGI processes that have become another user exit with their gateway, supervisor or template.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    pool::children,
    support::{
        child_process::RunningProcess,
        processes::user_and_group_ids,
        user_change::{CHANGES_USER, has_changed_user},
        waiting::exits_within,
        web_servers::eventually,
    },
    warm::WarmSite,
};

#[track_caller]
fn await_end(pid: i32) {
    eventually(&format!("process {pid} has exited"), || user_and_group_ids(pid).is_empty());
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
        let options = if at_import { "--env WHEN=import" } else { "" };
        let site = WarmSite::of(mode, options, CHANGES_USER);
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
            found =
                children(gateway).into_iter().chain(templates).find(|&pid| has_changed_user(pid));
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
        let site = WarmSite::of(mode, "--env WHEN=fork", CHANGES_USER);
        site.ask();
        site.await_pools(1);
        let supervisor = site.supervisors()[0];
        let template = children(supervisor)[0];
        let mut spares = Vec::new();
        eventually("processes wait", || {
            spares = children(template);
            !spares.is_empty() && spares.iter().all(|&pid| has_changed_user(pid))
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
