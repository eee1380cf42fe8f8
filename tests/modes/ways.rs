//! The ways to run the application: those of wsgate, and the plain ones that they are compared
//! with.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    modes::{Observed, Report, end},
    support::{
        child_process::{RunningProcess, piped, run},
        install_dir::InstallDir,
        probe::{CgiResponse, python},
        web_servers::{eventually, exists, wait_for_exit},
    },
};

/// Requests of `mode` by a web server that has blocked a signal: the first, and one to a forked
/// process.
pub(super) fn with_a_signal_blocked(mode: &str) -> Vec<Report> {
    // Cold CGI refuses the option.
    let limit = if mode == "cold" { "" } else { " --max-processes 1" };
    let site = CgiSite::new(&format!("--mode {mode}{limit}"));
    let request = |number| {
        let mut command = Command::new("env");
        site.dir.describe(&mut command, &site.script);
        site.ask(number, command.arg("--block-signal=WINCH").arg(&site.script))
    };
    let mut reports = vec![request(0)];
    if mode != "cold" {
        eventually("a pool serves", || sockets(&site).len() == 1);
        reports.push(request(0));
        end_pools(&site);
    }
    reports
}

/// A way to serve an application.
pub(super) trait Way: Sync {
    /// Runs the application for two requests, and to its end.
    fn observe(&self) -> Observed;
}

/// The modes, by the names that `docs/modes.md` has for them.
pub(super) const MODES: [(&str, &dyn Way); 9] = [
    ("cold", &Cold),
    ("first", &First),
    ("warm", &Forked { mode: "warm" }),
    ("resident", &Forked { mode: "resident" }),
    ("pool", &Fastcgi { threads: "1", preload: "yes" }),
    ("threads", &Fastcgi { threads: "4", preload: "yes" }),
    ("alone", &Fastcgi { threads: "1", preload: "no" }),
    ("threads alone", &Fastcgi { threads: "4", preload: "no" }),
    ("lone", &Lone),
];

/// `wsgiref.handlers.CGIHandler`.
pub(super) struct Reference;

/// A program that serves nothing.
pub(super) struct Plain;

/// `--mode cold`.
struct Cold;

/// The request that starts a warm pool, which is served beside it.
struct First;

/// `--mode warm` and `--mode resident`.
struct Forked {
    mode: &'static str,
}

/// `wsgate fastcgi`.
struct Fastcgi {
    threads: &'static str,
    preload: &'static str,
}

/// A script whose standard input is a listening socket.
struct Lone;

/// The application as a script, alone in a directory.
struct CgiSite {
    dir: InstallDir,
    script: PathBuf,
}

impl CgiSite {
    fn new(options: &str) -> Self {
        let dir = InstallDir::new();
        let first_line = format!("#!WSGATE --python {} {options}", python().display());
        let script = dir.script("site/app.wsgi", &first_line, include_str!("observer.py"));
        // A file that is as young as this may be loaded again.
        eventually("the script is no longer new", || {
            let changed = fs::metadata(&script).unwrap().modified().unwrap();
            changed.elapsed().is_ok_and(|age| age > Duration::from_millis(50))
        });
        Self { dir, script }
    }

    /// Sends the request that `command` is.
    #[track_caller]
    fn ask(&self, number: u32, command: &mut Command) -> Report {
        self.try_to_ask(number, command).unwrap()
    }

    /// Like `report`; none if the application wants the request to be repeated.
    #[track_caller]
    fn try_to_ask(&self, number: u32, command: &mut Command) -> Option<Report> {
        let ended = run(command.env("QUERY_STRING", format!("request={number}")), "");
        let response = CgiResponse::parse(ended.stdout, ended.stderr, ended.status);
        assert_eq!(response.status, "200 OK", "{response:?}");
        let length: usize = response.header("Content-Length").unwrap().parse().unwrap();
        Report::read(
            &response.body[..length],
            self.dir.path("").to_str().unwrap().trim_end_matches('/'),
        )
    }

    /// A request as a web server makes it that executes the script.
    #[track_caller]
    fn executed(&self, number: u32) -> Report {
        self.ask(number, &mut self.dir.request(&self.script))
    }

    /// A request by CGIHandler, or none.
    #[track_caller]
    fn by_python(&self, number: u32, args: &[&str]) -> Report {
        let mut command = Command::new(python());
        self.dir.describe(&mut command, &self.script);
        self.ask(number, command.arg(&self.script).args(args))
    }

    /// The request to a FastCGI server; with several threads, to a thread other than the first.
    #[track_caller]
    fn connected(&self, number: u32, socket: &Path) -> Report {
        let mut command = Command::new("cgi-fcgi");
        self.dir.describe(&mut command, &self.script);
        command.args(["-bind", "-connect"]).arg(socket);
        let mut report = None;
        eventually("another thread than the first serves", || {
            report = self.try_to_ask(number, &mut command);
            report.is_some()
        });
        report.unwrap()
    }

    /// The environment of a pool: that of its requests without what is theirs.
    fn environment(&self, command: &mut Command) {
        let mut request = Command::new("true");
        self.dir.describe(&mut request, &self.script);
        let own = ["PATH", "WSGATE_RUNTIME_DIR"];
        let own = request.get_envs().filter(|(name, _)| own.iter().any(|own| name == own));
        command
            .env_clear()
            .envs(own.filter_map(|(name, value)| Some((name, value?))))
            .current_dir(self.dir.path(""));
    }

    /// A site's two requests, when all its processes have ended.
    fn observed(&self, reports: [Report; 2]) -> Observed {
        let end = end::facts(&self.dir.path("site"), &reports);
        Observed { reports, end }
    }
}

impl Way for Reference {
    fn observe(&self) -> Observed {
        let site = CgiSite::new("");
        site.observed([1, 2].map(|number| site.by_python(number, &[])))
    }
}

impl Way for Plain {
    fn observe(&self) -> Observed {
        let site = CgiSite::new("");
        site.observed([1, 2].map(|number| site.by_python(number, &["plain"])))
    }
}

impl Way for Cold {
    fn observe(&self) -> Observed {
        let site = CgiSite::new("--mode cold");
        let reports = [1, 2].map(|number| {
            let report = site.executed(number);
            wait_for_exit(report.pid);
            report
        });
        site.observed(reports)
    }
}

impl Way for First {
    fn observe(&self) -> Observed {
        let reports = [1, 2].map(|number| {
            let site = CgiSite::new("--mode warm");
            let report = site.executed(number);
            wait_for_exit(report.pid);
            end_pools(&site);
            report
        });
        // The request leaves the traces of a cold one, apart from those of the pool.
        let cold = Cold.observe();
        Observed { reports, end: cold.end }
    }
}

impl Way for Forked {
    fn observe(&self) -> Observed {
        let site = CgiSite::new(&format!("--mode {} --max-processes 1", self.mode));
        // The first request starts the pool and leaves no trace.
        wait_for_exit(site.executed(0).pid);
        eventually("a pool serves", || sockets(&site).len() == 1);
        let reports = [1, 2].map(|number| {
            let report = site.executed(number);
            assert_ne!(report.pid, report.loaded_by, "served cold");
            if self.mode == "warm" {
                wait_for_exit(report.pid);
            }
            report
        });
        assert_eq!(
            reports.each_ref().map(|report| report.requests),
            if self.mode == "warm" { [1, 1] } else { [1, 2] }
        );
        end_pools(&site);
        site.observed(reports)
    }
}

impl Way for Fastcgi {
    fn observe(&self) -> Observed {
        let site = CgiSite::new("");
        let socket = site.dir.path("app.sock");
        let mut command = Command::new(site.dir.wsgate());
        site.environment(&mut command);
        command.args([
            "fastcgi",
            "--workers",
            "1",
            "--threads",
            self.threads,
            "--preload",
            self.preload,
        ]);
        command
            .arg("--python")
            .arg(python())
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()));
        let mut pool = RunningProcess::start(piped(command.arg(&site.script)));
        pool.await_log("W0710");
        let reports = [1, 2].map(|number| site.connected(number, &socket));
        pool.signal(Signal::TERM);
        assert!(pool.end().status.success());
        site.observed(reports)
    }
}

impl Way for Lone {
    fn observe(&self) -> Observed {
        let site = CgiSite::new("");
        let socket = site.dir.path("app.sock");
        let mut command = Command::new(&site.script);
        site.environment(&mut command);
        let listener = UnixListener::bind(&socket).unwrap();
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let worker = RunningProcess::start(&mut command);
        let reports = [1, 2].map(|number| site.connected(number, &socket));
        worker.signal(Signal::TERM);
        assert!(worker.end().status.success());
        site.observed(reports)
    }
}

fn sockets(site: &CgiSite) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(site.dir.path("run")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
}

/// Ends the pool that requests have started, and waits for all its processes.
fn end_pools(site: &CgiSite) {
    eventually("a pool serves", || sockets(site).len() == 1);
    let mark = site.dir.path("");
    let processes: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ)
                .contains(&format!("WSGATE_RUNTIME_DIR={}", mark.display()))
        })
        .collect();
    for &pid in &processes {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if args.windows(12).any(|part| part == b", supervisor") {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        }
    }
    eventually("all processes of the pool have ended", || {
        !processes.iter().any(|&pid| exists(pid))
    });
}
