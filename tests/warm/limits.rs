//! A pool has as many processes as it may have, for as long as it may have them; what comes beyond
//! that waits, and is then served cold or refused.

use std::{collections::HashSet, fs, process::Command, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{
        assertions::complete_response,
        child_process::{Gate, RunningProcess, piped},
        probe::CgiResponse,
        waiting::exits_within,
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

/// Counts in the process, waits at the gate, takes memory.
const COUNTS: &str = "
    import os
    BORN = os.getpid()
    COUNT = [0]
    KEPT = []
    def application(environ, start_response):
        COUNT[0] += 1
        query = environ['QUERY_STRING']
        if query.startswith('slow') and BORN != os.getpid():
            print('at the gate: %s.' % query)
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        if query == 'stay' and BORN != os.getpid():
            import atexit, signal
            atexit.register(signal.pause)
        if query == 'grow':
            KEPT.append(b'x' * 30_000_000)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Count', str(COUNT[0]))])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// A site, and the gate that its requests wait at.
struct Gated {
    site: WarmSite,
    gate: Gate,
}

impl Gated {
    fn of(mode: &str, options: &str) -> Self {
        let site = WarmSite::of(mode, options, COUNTS);
        let gate = Gate::new(&site.dir.path("site"));
        Self { site, gate }
    }

    /// A pool that serves.
    fn started(mode: &str, options: &str) -> Self {
        let gated = Self::of(mode, options);
        gated.ask("first");
        gated.site.await_pools(1);
        gated
    }

    fn request(&self, query: &str) -> Command {
        let mut command = self.site.request();
        command.env("QUERY_STRING", query).env("GATE", self.gate.path());
        command
    }

    #[track_caller]
    fn ask(&self, query: &str) -> CgiResponse {
        self.site.response(&mut self.request(query), "")
    }

    /// A request that is on its way.
    fn send(&self, query: &str) -> RunningProcess {
        let mut running = RunningProcess::start(&mut self.request(query));
        running.stdin = None;
        running
    }

    /// A request that a process of the pool has taken, and that waits at the gate.
    #[track_caller]
    fn occupy(&self, query: &str) -> RunningProcess {
        let running = self.send(query);
        eventually(&format!("it is at the gate: {}", self.site.log()), || {
            self.site.log().contains(&format!("at the gate: {query}."))
        });
        running
    }

    #[track_caller]
    fn response(&self, running: RunningProcess) -> CgiResponse {
        let ended = running.end();
        CgiResponse::parse(ended.stdout, self.site.log(), ended.status)
    }

    fn pool(&self) -> String {
        self.site.files(".sock").remove(0).file_stem().unwrap().to_str().unwrap().to_owned()
    }
}

#[test]
fn there_are_never_more_processes_than_the_limit() {
    for (mode, most) in [("warm", 1), ("warm", 3), ("resident", 3)] {
        let gated = Gated::started(mode, &format!("--max-processes {most} --queue 60"));
        let queries: Vec<String> = (0..most).map(|number| format!("slow{number}")).collect();
        let occupied: Vec<_> = queries.iter().map(|query| gated.occupy(query)).collect();
        assert_eq!(gated.site.workers().len(), most, "{}", gated.site.log());
        // These requests wait for a process.
        let queued: Vec<_> = (0..3).map(|number| gated.send(&format!("queued{number}"))).collect();
        occupied.iter().for_each(|_| gated.gate.open());
        for running in occupied.into_iter().chain(queued) {
            let response = gated.response(running);
            assert!(Who::of(&response).is_warm(), "{mode}: {}", gated.site.log());
            assert!(gated.site.workers().len() <= most, "{mode}: {}", gated.site.log());
        }
        assert!(!gated.site.log().contains("W038"), "{mode}: {}", gated.site.log());
    }
}

#[test]
fn with_all_processes_busy_requests_fall_back_to_cold_cgi_after_the_queue_timeout() {
    let gated = Gated::started("warm", "--max-processes 1");
    let occupied = gated.occupy("slow");
    for _ in 0..2 {
        assert!(!Who::of(&gated.ask("other")).is_warm(), "{}", gated.site.log());
    }
    gated.gate.open();
    assert!(Who::of(&gated.response(occupied)).is_warm());
    let log = gated.site.log();
    assert_eq!(log.matches("W0801").count(), 1, "{log}");
    assert!(log.contains("no worker was idle within --queue (1 s)"), "{log}");
}

#[test]
fn a_process_that_does_not_exit_after_its_request_frees_its_slot() {
    let gated = Gated::started("warm", "--max-processes 1 --queue 60 --timeout 1");
    for query in ["stay", "stay", "other"] {
        assert!(Who::of(&gated.ask(query)).is_warm(), "{}", gated.site.log());
    }
    let log = gated.site.log();
    assert_eq!(log.matches("W0705").count(), 2, "{log}");
}

#[test]
fn a_pool_stops_though_the_exit_handlers_of_its_processes_hang() {
    let site = WarmSite::of(
        "warm",
        "--timeout 1",
        "
        import atexit, os, time
        BORN = os.getpid()
        if 'REQUEST_METHOD' not in os.environ:
            # One for the template, and one for each process that is forked from that. A signal
            # does not end them.
            atexit.register(time.sleep, 3600)
            os.register_at_fork(after_in_child=lambda: atexit.register(time.sleep, 3600))
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'%d %d' % (BORN, os.getpid())]
        ",
    );
    site.warm_up();
    // A worker that is not waiting yet exits at once.
    eventually("a worker has served", || Who::of(&site.ask()).is_warm());
    site.wsgate(&["stop", site.files(".sock")[0].file_stem().unwrap().to_str().unwrap()]);
    site.await_no_process();
    let log = site.log();
    assert!(log.contains("W0705") && log.contains("W0718"), "{log}");
}

#[test]
fn or_they_are_refused() {
    for mode in ["warm", "resident"] {
        let gated = Gated::started(mode, "--max-processes 1 --when-full 503");
        let occupied = gated.occupy("slow");
        for number in 1..3 {
            let response = gated.ask("other");
            assert_eq!(complete_response(&response.raw).status, 503, "{}", gated.site.log());
            assert_eq!(
                gated.site.log().matches("error[W0804]").count(),
                number,
                "{}",
                gated.site.log()
            );
        }
        gated.gate.open();
        assert!(Who::of(&gated.response(occupied)).is_warm());
        eventually("the next is served", || {
            complete_response(&gated.ask("other").raw).status == 200
        });
    }
}

#[test]
fn requests_that_wait_for_a_stopping_pool_fall_back_to_cold_cgi() {
    for mode in ["warm", "resident"] {
        let gated = Gated::started(mode, "--max-processes 1 --queue 600 --when-full 503");
        let occupied = gated.occupy("slow");
        // The kernel's list has the listening socket, and one for each connection.
        let pool = gated.pool();
        let connections = || {
            let sockets = fs::read_to_string("/proc/net/unix").unwrap();
            sockets.lines().filter(|line| line.contains(&pool) && line.ends_with(".draft")).count()
        };
        let before = connections();
        let waiting: Vec<_> =
            (0..3).map(|number| gated.send(&format!("waiting{number}"))).collect();
        eventually("they wait", || connections() == before + 3);
        for pid in gated.site.supervisors() {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        }
        for running in waiting {
            let response = gated.response(running);
            assert_eq!(
                complete_response(&response.raw).status,
                200,
                "{mode}: {}",
                gated.site.log()
            );
            assert!(!Who::of(&response).is_warm(), "{mode}: {}", gated.site.log());
        }
        gated.gate.open();
        assert!(Who::of(&gated.response(occupied)).is_warm(), "{mode}: {}", gated.site.log());
        assert!(!gated.site.log().contains("W038"), "{mode}: {}", gated.site.log());
    }
}

#[test]
fn stop_waits_until_a_pool_has_finished_its_requests() {
    thread::scope(|scope| {
        for mode in ["warm", "resident"] {
            scope.spawn(move || {
                let gated = Gated::started(mode, "");
                let occupied = gated.occupy("slow");
                let mut command = Command::new(gated.site.dir.wsgate());
                command.args(["stop", &gated.pool()]).env_clear();
                command.env("WSGATE_RUNTIME_DIR", gated.site.dir.path("run"));
                let stop = RunningProcess::start(piped(&mut command));
                let pid = stop.pid().as_raw_nonzero().get();
                assert!(!exits_within(pid, Duration::from_secs(22)), "{:?}", stop.end());
                gated.gate.open();
                assert!(Who::of(&gated.response(occupied)).is_warm(), "{}", gated.site.log());
                let stop = stop.end();
                assert_eq!(stop.code(), Some(0), "{mode}: {stop:?}");
            });
        }
    });
}

#[test]
fn a_resident_process_serves_max_requests() {
    let gated = Gated::started("resident", "--max-requests 3 --max-processes 2 --queue 60");
    let mut pids = HashSet::new();
    for _ in 0..20 {
        let response = gated.ask("");
        let who = Who::of(&response);
        assert!(
            !who.is_warm() || response.header("X-Count").unwrap().parse::<u32>().unwrap() <= 3,
            "{response:?}"
        );
        pids.insert(who.pid);
    }
    assert!(pids.len() >= 7, "{pids:?}");
    let log = gated.site.log();
    assert!(
        log.contains("notice[W0708]") && log.contains("--max-requests reached (3 requests served)"),
        "{log}"
    );
    assert!(!log.contains("error["), "{log}");
}

#[test]
fn a_resident_process_is_replaced_when_it_is_old_or_large() {
    for (limit, query, why) in
        [("--max-age 1", "", "s old"), ("--max-rss 60M", "grow", "MiB of memory")]
    {
        for most in [1, 4] {
            let gated =
                Gated::started("resident", &format!("{limit} --max-processes {most} --queue 60"));
            let first = Who::of(&gated.ask(query)).pid;
            eventually("another one serves", || {
                let who = Who::of(&gated.ask(query));
                assert!(gated.site.workers().len() <= most, "{limit} {most}: {}", gated.site.log());
                who.is_warm() && who.pid != first && gated.site.log().contains(why)
            });
            let log = gated.site.log();
            assert!(
                log.contains("notice[W0708]") && !log.contains("error["),
                "{limit} {most}: {log}"
            );
        }
    }
}

#[test]
fn a_full_pool_changes_to_new_processes_all_the_same() {
    for mode in ["warm", "resident"] {
        let gated = Gated::started(mode, "--max-processes 2 --queue 60");
        let before = Who::of(&gated.ask("")).born;
        let occupied = gated.occupy("slow");
        gated.site.wsgate(&["reload", &gated.pool()]);
        eventually("new ones serve", || {
            let who = Who::of(&gated.ask(""));
            assert!(gated.site.workers().len() <= 2, "{mode}: {}", gated.site.log());
            who.is_warm() && who.born != before
        });
        gated.gate.open();
        assert_eq!(Who::of(&gated.response(occupied)).born, before, "{}", gated.site.log());
    }
}

#[test]
fn a_pool_at_its_maximum_age_stops_though_requests_arrive() {
    let gated = Gated::started("resident", "--warm-age 1");
    let supervisors = gated.site.supervisors();
    thread::scope(|scope| {
        let occupied = gated.occupy("slow");
        let request = scope.spawn(|| {
            eventually("another pool serves", || {
                let response = gated.ask("");
                assert_eq!(complete_response(&response.raw).status, 200, "{}", gated.site.log());
                Who::of(&response).is_warm() && gated.site.log().contains("notice[W0805]")
            });
        });
        request.join().unwrap();
        let status = gated.site.wsgate(&["status"]);
        assert_eq!(status.matches("-ends-").count(), 1, "{status}");
        gated.gate.open();
        // The old process has finished its request.
        assert!(Who::of(&gated.response(occupied)).is_warm());
    });
    eventually("the old one has ended", || {
        gated.site.supervisors().iter().all(|supervisor| !supervisors.contains(supervisor))
    });
    assert!(!gated.site.log().contains("error["), "{}", gated.site.log());
}
