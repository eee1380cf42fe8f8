//! Two applications in warm mode within the limits of a small service: 100 processes, 512 MB of
//! memory, and one processor, which 20 clients keep busy.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    attack::{report::Counts, times, turn_in_short_form},
    support::{
        assertions::{codes, complete_response},
        child_process::RunningProcess,
        control_group::{ControlGroup, GroupLimits},
    },
    warm::WarmSite,
};

const LIMITS: GroupLimits = GroupLimits { processes: 100, bytes: 512 << 20, processors: 1 };

/// Clients, each with one request at a time.
const CLIENTS: usize = 20;

/// An application of usual size: it loads what frameworks load, and has some data.
const LARGE: &str = "
    import ast, decimal, email.message, http.client, json, logging, os, sqlite3, ssl
    DATA = json.dumps([str(number) for number in range(50_000)])
    BORN = os.getpid()
    def application(environ, start_response):
        rows = json.loads('[' + ','.join(map(str, range(20_000))) + ']')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%s %d %d' % (environ['QUERY_STRING'].encode(), BORN != os.getpid(), sum(rows))]
    ";

const SMALL: &str = "
    import os
    BORN = os.getpid()
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%s %d 199990000' % (environ['QUERY_STRING'].encode(), BORN != os.getpid())]
    ";

/// Requests that were answered, and the most that was used meanwhile.
#[derive(Default)]
struct Use {
    is_over: AtomicBool,
    warm: AtomicU64,
    cold: AtomicU64,
    processes: AtomicU64,
    memory: AtomicU64,
}

/// Sends requests to both sites in turn, until the time is over.
fn ask(group: &ControlGroup, sites: &[WarmSite; 2], client: usize, used: &Use) {
    for number in 0.. {
        if used.is_over.load(Ordering::Relaxed) {
            return;
        }
        let site = &sites[(client + number) % 2];
        let query = format!("{client}-{number}");
        let mut request = site.request();
        request.env("QUERY_STRING", &query);
        let mut command = group.command(&request);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(site.log_file());
        let ended = RunningProcess::start(&mut command).end();
        let response = complete_response(&ended.stdout);
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 200, "{query}: {body}\n{}", site.log());
        match body.split_once(' ').map(|(own, rest)| (own == query, rest)) {
            Some((true, "1 199990000")) => used.warm.fetch_add(1, Ordering::Relaxed),
            Some((true, "0 199990000")) => used.cold.fetch_add(1, Ordering::Relaxed),
            _ => panic!("{query}: {body}"),
        };
    }
}

#[test]
fn two_warm_applications_of_a_small_service_answer_all_requests() {
    let Some(group) = ControlGroup::new(LIMITS) else { return };
    let _turn = turn_in_short_form();
    let seconds = times(20, 300);
    let sites = [WarmSite::of("warm", "", SMALL), WarmSite::of("warm", "", LARGE)];
    let used = Use::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (group, sites, used) = (&group, &sites, &used);
                scope.spawn(move || ask(group, sites, client, used))
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(seconds as u64);
        while Instant::now() < end && clients.iter().all(|client| !client.is_finished()) {
            used.processes.fetch_max(group.tasks(), Ordering::Relaxed);
            used.memory.fetch_max(group.memory(), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
        used.is_over.store(true, Ordering::Relaxed);
    });
    let [warm, cold, processes, memory] = [&used.warm, &used.cold, &used.processes, &used.memory]
        .map(|count| count.load(Ordering::Relaxed));
    for site in &sites {
        let log = site.log();
        let is_expected = |code: &&str| ["W0801", "W0802"].contains(code);
        assert!(codes(&log).iter().all(is_expected), "{log}");
    }
    assert!(warm > 0 && processes > 0 && memory > 0, "{warm} {processes} {memory}");
    Counts {
        tried: format!(
            "{seconds} s with 20 clients; at most {processes} processes, {} MB; {cold} requests \
             by cold CGI",
            memory >> 20
        ),
        answered: warm + cold,
        lost: 0,
        how: String::new(),
    }
    .report("Two warm applications in a small control group");
}
