//! The status of warm and resident pools.

use std::{collections::HashMap, process::Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    support::{
        child_process::{Gate, RunningProcess},
        web_servers::eventually,
    },
    warm::{WarmSite, Who, runtime_directory::wsgate_with},
};

/// Waits at the gate if it is asked to.
const WAITS: &str = "
    import os
    BORN = os.getpid()
    def application(environ, start_response):
        if environ['QUERY_STRING'].startswith('slow') and BORN != os.getpid():
            print('at the gate: %s.' % environ['QUERY_STRING'])
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

#[track_caller]
fn status_of(site: &WarmSite) -> Value {
    let text = site.wsgate(&["status", "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn request_for(site: &WarmSite, query: &str, gate: &Gate) -> Command {
    let mut command = site.request();
    let uri = format!("/cgi-bin/app.wsgi?{query}");
    command.env("QUERY_STRING", query).env("REQUEST_URI", uri).env("GATE", gate.path());
    command
}

fn workers(status: &Value) -> &Vec<Value> {
    status["workers"].as_array().unwrap()
}

fn count(status: &Value, is_counted: impl Fn(&Value) -> bool) -> usize {
    workers(status).iter().filter(|worker| is_counted(worker)).count()
}

#[test]
fn requests_are_counted_and_current_ones_are_named() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--queue 60 --max-processes 5", WAITS);
        let gate = Gate::new(&site.dir.path("site"));
        site.response(&mut request_for(&site, "first", &gate), "");
        site.await_pools(1);
        assert_eq!(status_of(&site)["requests"], 0, "the first was served cold");
        let mut per_process = HashMap::new();
        for _ in 0..7 {
            let who = Who::of(&site.response(&mut request_for(&site, "", &gate), ""));
            assert!(who.is_warm(), "{}", site.log());
            *per_process.entry(who.pid).or_insert(0) += 1;
        }
        let status = status_of(&site);
        assert_eq!(
            (&status["mode"], &status["requests"], &status["max"]),
            (&mode.into(), &7.into(), &5.into())
        );
        let slow = RunningProcess::start(&mut request_for(&site, "slow", &gate));
        eventually("it is at the gate", || site.log().contains("at the gate: slow."));
        eventually(&format!("two wait beside it: {}", status_of(&site)), || {
            let status = status_of(&site);
            let busy: Vec<_> =
                workers(&status).iter().filter(|worker| worker["busy"] == true).collect();
            assert_eq!((busy.len(), &status["requests"]), (1, &8.into()), "{status}");
            assert!(
                busy[0]["request"]["method"] == "GET"
                    && busy[0]["request"]["target"] == "/cgi-bin/app.wsgi?slow",
                "{status}"
            );
            assert!(busy[0]["milliseconds"].is_u64(), "{status}");
            for worker in workers(&status).iter().filter(|worker| worker["busy"] == false) {
                // No value of a process that had the row before.
                let own = per_process
                    .get(&(worker["pid"].as_i64().unwrap() as i32))
                    .copied()
                    .unwrap_or(0);
                assert_eq!(worker["requests"], own, "{status}");
                assert_eq!(worker["request"].is_null(), own == 0, "{status}");
            }
            count(&status, |worker| worker["busy"] == false && worker["leaving"] == false) >= 1
        });
        let text = site.wsgate(&["status"]);
        assert!(
            text.contains(&format!(": {mode}, 1 busy, "))
                && text.contains("5 at most, 8 requests in "),
            "{text}"
        );
        let rows: Vec<&str> = text.lines().skip(3).collect();
        assert!(
            rows.iter()
                .any(|row| row.contains(" busy ") && row.contains(" GET /cgi-bin/app.wsgi?slow ")),
            "{text}"
        );
        assert_eq!(mode == "warm", rows.len() == 1, "{text}");
        gate.open();
        slow.end();
    }
}

#[test]
fn the_stacks_of_a_process_show_its_cgi_request() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--queue 60 --max-processes 2", WAITS);
        let gate = Gate::new(&site.dir.path("site"));
        site.response(&mut request_for(&site, "first", &gate), "");
        site.await_pools(1);
        let slow = RunningProcess::start(&mut request_for(&site, "slow", &gate));
        eventually("it is at the gate", || site.log().contains("at the gate: slow."));
        let name = status_of(&site)["name"].as_str().unwrap().to_owned();
        eventually("its line is shown", || {
            let text = site.wsgate(&["stacks", &name]);
            let busy = text.split("\n\n").find(|process| process.contains("(busy for"));
            busy.is_some_and(|busy| {
                busy.contains(" GET /cgi-bin/app.wsgi?slow\n")
                    && busy.contains("    application (/")
            })
        });
        gate.open();
        assert_eq!(slow.end().code(), Some(0), "{}", site.log());
    }
}

#[test]
fn a_process_that_outlives_its_template_leaves_others_alone() {
    let site = WarmSite::with("--max-processes 2 --queue 60", WAITS);
    let gate = Gate::new(&site.dir.path("site"));
    site.response(&mut request_for(&site, "first", &gate), "");
    site.await_pools(1);
    let slow: Vec<_> = ["slow1", "slow2"]
        .map(|query| RunningProcess::start(&mut request_for(&site, query, &gate)))
        .into();
    eventually("both are at the gate", || {
        site.log().contains("slow1.") && site.log().contains("slow2.")
    });
    let supervisor = site.supervisors()[0];
    let template = crate::pool::children(supervisor)[0];
    kill_process(Pid::from_raw(template).unwrap(), Signal::KILL).unwrap();
    let waits = |status: &Value| {
        count(status, |worker| worker["busy"] == false && worker["leaving"] == false) == 2
    };
    eventually(&format!("others wait: {}", site.log()), || waits(&status_of(&site)));
    slow.iter().for_each(|_| gate.open());
    for running in slow {
        assert_eq!(running.end().code(), Some(0), "{}", site.log());
    }
    let status = status_of(&site);
    assert!(waits(&status) && status["requests"] == 2, "{status}");
}

#[test]
fn a_suspended_supervisor_is_reported() {
    let site = WarmSite::new(WAITS);
    site.warm_up();
    let name = site.files(".sock").remove(0).file_stem().unwrap().to_str().unwrap().to_owned();
    let supervisor = Pid::from_raw(site.supervisors()[0]).unwrap();
    kill_process(supervisor, Signal::STOP).unwrap();
    for args in [vec!["status"], vec!["stop", &name]] {
        let (code, message) = wsgate_with(&site, &args, &[("WSGATE_RUNTIME_DIR", "run")]);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("W0905") && message.contains(&name), "{message}");
    }
    kill_process(supervisor, Signal::CONT).unwrap();
    site.wsgate(&["stop", &name]);
    site.await_no_process();
}
