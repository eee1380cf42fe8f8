//! A user who may have no more processes: each request has a valid response, the log names the
//! limit, and everything recovers when there is room again.

use std::{
    fs::{
        File, Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    support::{
        artefacts::gateway,
        assertions::{codes, complete_response},
        child_process::{Gate, RunningProcess, run},
        fastcgi_client::FastcgiRequest,
        own_user::{OwnUser, lift, set_limit},
        pool::{Pool, PoolSetup},
        probe::CgiResponse,
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

/// More than the tests need.
const ENOUGH: usize = 200;

/// Waits at the gate if the query asks for that.
const WAITS: &str = "
    import os
    BORN = os.getpid()
    def application(environ, start_response):
        if environ['QUERY_STRING'] == 'wait':
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'%d %d' % (BORN, os.getpid())]
    ";

/// A site whose requests run as a user with a limit of processes.
struct LimitedSite {
    site: WarmSite,
    user: OwnUser,
    gate: Gate,
}

impl LimitedSite {
    fn new(mode: &str, options: &str) -> Option<Self> {
        let user = OwnUser::new()?;
        let site = WarmSite::of(mode, options, WAITS);
        let gate = Gate::new(&site.dir.path("site"));
        user.give(&site.dir.path("site"));
        user.give(&site.dir.path("run"));
        // Others may not enter a runtime directory.
        fs::set_permissions(site.dir.path("run"), Permissions::from_mode(0o700)).unwrap();
        Some(Self { site, user, gate })
    }

    /// A request whose gateway, and each process that this starts, has a limit of processes.
    fn request(&self, query: &str, limit: usize) -> Command {
        let mut command = self.user.limit(&self.site.request(), limit);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.site.log_file());
        command.env("QUERY_STRING", query).env("GATE", self.gate.path());
        command
    }

    fn send(&self, query: &str, limit: usize) -> RunningProcess {
        RunningProcess::start(&mut self.request(query, limit))
    }

    #[track_caller]
    fn response(&self, running: RunningProcess) -> CgiResponse {
        let ended = running.end();
        CgiResponse::parse(ended.stdout, self.site.log(), ended.status)
    }

    #[track_caller]
    fn ask(&self, limit: usize) -> CgiResponse {
        self.response(self.send("", limit))
    }

    #[track_caller]
    fn await_log(&self, word: &str) {
        eventually(&format!("the log has `{word}`"), || self.site.log().contains(word));
    }

    /// Asks without a limit until a worker of a warm pool answers.
    #[track_caller]
    fn recovers(&self) {
        eventually(&format!("a worker answers: {}", self.site.log()), || {
            // wsgate tries again half a minute after a failure.
            let long_ago = SystemTime::now() - Duration::from_secs(60);
            for lock in self.site.files(".lock") {
                // The pool may be removing the file.
                let _ = File::options().write(true).open(lock).map(|it| it.set_modified(long_ago));
            }
            let response = self.ask(ENOUGH);
            assert_eq!(complete_response(&response.raw).status, 200, "{}", self.site.log());
            Who::of(&response).is_warm()
        });
    }
}

#[test]
fn a_request_that_may_start_no_process_is_refused_with_the_name_of_the_limit() {
    for mode in ["cold", "warm", "resident"] {
        let Some(site) = LimitedSite::new(mode, "") else { return };
        // The gateway alone.
        let page = complete_response(&site.ask(1).raw);
        let log = site.site.log();
        // A gateway in a warm mode tries to start the pool, too.
        assert_eq!(page.status, 503, "{mode}: {log}");
        assert!(["W0204", "W0802"].starts_with(&codes(&log)), "{mode}: {log}");
        assert!(log.contains("Resource temporarily unavailable"), "{log}");
        assert!(log.contains("the limit of processes is reached"), "{log}");
        if mode == "cold" {
            assert_eq!(complete_response(&site.ask(2).raw).status, 200, "{}", site.site.log());
        } else {
            site.recovers();
        }
    }
}

#[test]
fn a_warm_pool_that_cannot_be_started_fails_no_request_and_is_started_later() {
    for mode in ["warm", "resident"] {
        // Gateway and python have room; then the supervisor, and its template process.
        for limit in [2, 3, 4] {
            let Some(site) = LimitedSite::new(mode, "") else { return };
            let first = site.send("wait", limit);
            let (code, processes) = match limit {
                2 => ("W0802", 0),
                3 => ("W0204", 0),
                _ => ("W0704", 2),
            };
            site.await_log(code);
            let log = site.site.log();
            assert!(log.contains("Resource temporarily unavailable"), "{mode} {limit}: {log}");
            assert!(limit == 2 || log.contains("the limit of processes is reached"), "{log}");
            eventually("no other process is left", || site.site.processes().len() <= processes + 2);
            site.gate.open();
            assert_eq!(complete_response(&site.response(first).raw).status, 200, "{mode} {limit}");
            site.recovers();
        }
    }
}

#[test]
fn a_call_or_check_without_a_process_names_the_limit_and_its_value() {
    for (subcommand, limit) in [("call", 1), ("call", 2), ("check", 1), ("check", 2)] {
        let Some(site) = LimitedSite::new("cold", "") else { return };
        let script = site.site.dir.path("site/app.wsgi");
        let mut command = site.user.limit(
            Command::new(gateway())
                .arg(subcommand)
                .arg(&script)
                .current_dir(script.parent().unwrap()),
            limit,
        );
        let ended = run(&mut command, "");
        let said = [String::from_utf8_lossy(&ended.stdout).into_owned(), ended.stderr].concat();
        let named = format!("RLIMIT_NPROC: {limit} of {limit} processes and threads are in use");
        assert!(said.contains("error[W0204]"), "{subcommand} {limit}: {said}");
        assert!(!said.contains("W0510"), "{subcommand} {limit}: {said}");
        assert!(said.contains("the limit of processes is reached"), "{subcommand}: {said}");
        // A thread that could not be started may have exited again.
        assert!(limit == 2 || said.contains(&named), "{subcommand} {limit}: {said}");
    }
}

#[test]
fn an_application_without_a_thread_or_memory_gets_the_name_of_the_limit() {
    let code = "
    import threading
    def application(environ, start_response):
        if environ['QUERY_STRING'] == 'wait':
            raise MemoryError
        threading.Thread(target=print).start()
    ";
    let Some(user) = OwnUser::new() else { return };
    let site = WarmSite::of("cold", "", code);
    user.give(&site.dir.path("site"));
    for (query, limit) in [("", "RLIMIT_NPROC: 2 processes"), ("wait", "RLIMIT_AS: 953 MB")] {
        let mut command = user.limit(&site.request(), 2);
        let mut whole = Command::new("prlimit");
        whole.arg("--as=1000000000").arg(command.get_program()).args(command.get_args());
        whole.env_clear();
        whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        whole.current_dir(command.get_current_dir().unwrap()).env("QUERY_STRING", query);
        command = whole;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(site.log_file());
        let response = site.response(&mut command, "");
        let log = site.log();
        assert_eq!(complete_response(&response.raw).status, 500, "{log}");
        assert!(log.contains(limit), "{log}");
    }
}

/// A pool of a user with no other process.
fn limited(setup: PoolSetup, limit: usize) -> Option<Pool> {
    let user = OwnUser::new()?;
    user.give(&setup.path(""));
    let (args, id) = (user.limited_to(limit), user.id().to_string());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Some(setup.args(&["--user", &id, "--group", &id]).launch_by(&args))
}

#[test]
fn a_pool_whose_template_process_cannot_be_started_exits_with_the_name_of_the_limit() {
    // The supervisor alone.
    let Some(pool) = limited(PoolSetup::new(WAITS), 1) else { return };
    let ended = pool.end();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert_eq!(codes(&ended.stderr), ["W0204"], "{}", ended.stderr);
    assert!(ended.stderr.contains("the limit of processes is reached"), "{}", ended.stderr);
}

#[test]
fn a_pool_whose_first_worker_cannot_be_forked_exits_with_the_name_of_the_limit() {
    // Supervisor and template process, which has not loaded the application.
    let Some(pool) = limited(PoolSetup::new(WAITS).args(&["--preload", "no"]), 2) else { return };
    let ended = pool.end();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert_eq!(codes(&ended.stderr), ["W0704"], "{}", ended.stderr);
    assert!(ended.stderr.contains("RLIMIT_NPROC: 2 processes"), "{}", ended.stderr);
}

#[test]
fn a_pool_without_a_process_for_workers_refuses_requests_until_there_is_one() {
    // Supervisor and template process.
    let setup = PoolSetup::new(WAITS).args(&["--preload", "yes"]);
    let Some(mut pool) = limited(setup, 2) else { return };
    let begun = Instant::now();
    pool.await_log("W0704");
    for number in 0..5 {
        let page = pool.ask(&FastcgiRequest::get("/")).valid();
        assert_eq!(page.status, 503, "{number}: {}", pool.log());
    }
    pool.await_log("cannot fork a worker: Resource temporarily unavailable");
    pool.await_log("workers cannot be forked");
    let log = pool.log();
    // The pauses grow: 0.1, 0.2, 0.4 s and so on.
    let failures = i32::try_from(log.matches("error[W0704]").count()).unwrap();
    assert!(begun.elapsed().as_secs_f64() > 0.05 * (2_f64.powi(failures - 1) - 1.0), "{log}");
    lift(pool.template());
    eventually("the pool serves", || pool.ask(&FastcgiRequest::get("/")).valid().status == 200);
    pool.stop();
}

#[test]
fn a_reload_that_may_start_no_process_keeps_the_old_code() {
    // Supervisor, template process, worker.
    let Some(mut pool) = limited(PoolSetup::new(WAITS), 3) else { return };
    pool.await_log("W0710");
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1), "{}", pool.log());
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    pool.await_log("cannot start a template process: Resource temporarily unavailable");
    pool.await_log("the limit of processes is reached");
    pool.await_log("W0715");
    lift(pool.pid());
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0), "{}", pool.log());
    eventually("a new worker serves", || pool.ask(&FastcgiRequest::get("/")).pid() != worker);
    pool.stop();
}

#[test]
fn a_warm_pool_grows_within_half_of_the_limit() {
    for mode in ["warm", "resident"] {
        let Some(site) = LimitedSite::new(mode, "--queue 60") else { return };
        site.ask(ENOUGH);
        site.site.await_pools(1);
        let supervisors = site.site.supervisors();
        let [supervisor] = supervisors[..] else { panic!("{supervisors:?}") };
        // The pool checks its own limit, and the limit that it passes on is that of its template.
        set_limit(supervisor, 60);
        let requests: Vec<_> = (0..24).map(|_| site.send("wait", ENOUGH)).collect();
        site.await_log("notice[W0726]");
        let log = site.site.log();
        assert!(log.contains("RLIMIT_NPROC leaves"), "{mode}: {log}");
        assert!(log.contains("of 60 processes and threads"), "{mode}: {log}");
        // Of 60 processes, the pool may have 30: supervisor, template process, and two for each
        // request.
        let workers = site.site.workers().len();
        assert!((2..=14).contains(&workers), "{mode}: {workers}, {log}");
        requests.iter().for_each(|_| site.gate.open());
        for request in requests {
            let response = site.response(request);
            assert!(Who::of(&response).is_warm(), "{mode}: {}", site.site.log());
        }
        assert_eq!(codes(&site.site.log()), [""; 0], "{mode}: {}", site.site.log());
    }
}

#[test]
fn a_default_number_of_workers_stays_within_the_limit() {
    // Of 4 processes, 2 are for the pool: supervisor and template process. A pool has a worker.
    let Some(mut pool) = limited(PoolSetup::new(WAITS).dynamic(&[]), 4) else { return };
    pool.await_log("W0710");
    let log = pool.log();
    assert_eq!(codes(&log), [""; 0], "{log}");
    let is_reduced = std::thread::available_parallelism().unwrap().get() > 1;
    assert_eq!(log.contains("notice[W0726]"), is_reduced, "{log}");
    assert_eq!(pool.workers(1).len(), 1);
    pool.stop();
}

#[test]
fn an_option_that_the_limit_does_not_hold_is_used_with_a_warning() {
    for (args, named) in [
        (&["--workers", "30"][..], "--workers 30 needs 32 processes and threads"),
        (&["--max", "4", "--threads", "8"], "--max 4 needs 34 processes and threads"),
    ] {
        let setup = PoolSetup::new(WAITS).dynamic(args);
        let Some(mut pool) = limited(setup, 20) else { return };
        pool.await_log("W0710");
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 200, "{}", pool.log());
        let log = pool.stop();
        assert!(log.contains("warning[W0719]"), "{log}");
        assert!(log.contains(named), "{log}");
        assert!(log.contains("RLIMIT_NPROC leaves 19 of 20"), "{log}");
    }
    let Some(site) = LimitedSite::new("warm", "--max-processes 50") else { return };
    site.ask(20);
    site.await_log("warning[W0719]");
    site.await_log("--max-processes 50 needs 52 processes and threads");
}
