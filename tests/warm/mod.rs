//! `--mode warm`: requests that are handed to processes with the application loaded, through the
//! built binary as a CGI program.

mod apart;
mod audit;
mod behind_apache;
mod builds;
mod error_log;
mod failures;
mod forks;
mod leftovers;
mod limits;
mod load;
mod orphans;
mod process;
mod resident;
mod response_timeout;
mod runtime_directory;
mod sharing;
mod stale;
mod stalls;
mod starting;
pub(crate) mod state;
mod status;
mod titles;
mod warm_up;

use std::{
    fs::{
        File, {self},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    pool::children,
    support::{
        child_process::{RunningProcess, run},
        install_dir::InstallDir,
        probe::CgiResponse,
        web_servers::eventually,
    },
};

/// Tells who answers: where the application was loaded, and which process this is.
pub(crate) const TELLS_ITSELF: &str = "
    import os
    BORN = os.getpid()
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// A script, and the pools that its requests start. They are ended with it.
pub(crate) struct WarmSite {
    pub(crate) dir: InstallDir,
    script: PathBuf,
}

/// The process that answered, and the one that loaded the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    born: i32,
    pid: i32,
}

impl Who {
    #[track_caller]
    pub(crate) fn of(response: &CgiResponse) -> Self {
        let text = response.text();
        let (born, pid) = text.split_once(' ').unwrap_or_else(|| panic!("{response:?}"));
        Self { born: born.parse().unwrap(), pid: pid.parse().unwrap() }
    }

    pub(crate) fn is_warm(self) -> bool {
        self.born != self.pid
    }
}

impl WarmSite {
    /// The application in `code`, which need not be indented to the left.
    fn new(code: &str) -> Self {
        Self::with("", code)
    }

    /// Creates a site in warm mode, with more options on the `#!` line.
    fn with(options: &str, code: &str) -> Self {
        Self::of("warm", options, code)
    }

    /// Creates a site in any mode.
    pub(crate) fn of(mode: &str, options: &str, code: &str) -> Self {
        let dir = InstallDir::new();
        let script =
            dir.script("site/app.wsgi", &format!("#!WSGATE --mode {mode} {options}"), code);
        // Nobody can say of a file as young as this whether it was changed after it was
        // loaded, and it is loaded again.
        eventually("the script is no longer new", || {
            let changed = fs::metadata(&script).unwrap().modified().unwrap();
            changed.elapsed().is_ok_and(|age| age > Duration::from_millis(50))
        });
        Self { dir, script }
    }

    /// Puts other code in the place of the application's.
    fn release(&self, code: &str) {
        self.dir.script("site/app.wsgi", "#!WSGATE --mode warm", code);
    }

    /// A request.
    pub(crate) fn request(&self) -> Command {
        let mut command = self.dir.request(&self.script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(self.log_file());
        command
    }

    /// The answer to a request, with `body`.
    #[track_caller]
    pub(crate) fn response(&self, command: &mut Command, body: &str) -> CgiResponse {
        let mut running = RunningProcess::start(command);
        running.give(body);
        let ended = running.end();
        CgiResponse::parse(ended.stdout, self.log(), ended.status)
    }

    /// The answer to an ordinary request.
    #[track_caller]
    pub(crate) fn ask(&self) -> CgiResponse {
        self.response(&mut self.request(), "")
    }

    /// Makes a request, and waits until the pool that it has started serves.
    #[track_caller]
    pub(crate) fn warm_up(&self) -> CgiResponse {
        let response = self.ask();
        self.await_pools(1);
        response
    }

    /// Waits until so many pools serve.
    #[track_caller]
    pub(crate) fn await_pools(&self, count: usize) {
        eventually(&format!("{count} pools serve: {}", self.log()), || {
            self.files(".sock").len() == count
        });
    }

    /// Files of the runtime directory whose names end so.
    pub(crate) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.dir.path("run")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect()
    }

    /// The error log of the web server.
    pub(crate) fn log_file(&self) -> File {
        File::options().append(true).create(true).open(self.dir.path("error.log")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path("error.log")).unwrap_or_default()
    }

    /// The output of `wsgate` for an administrator.
    pub(crate) fn wsgate(&self, args: &[&str]) -> String {
        let mut command = Command::new(self.dir.wsgate());
        command.args(args).env_clear().env("WSGATE_RUNTIME_DIR", self.dir.path("run"));
        run(&mut command, "").text()
    }

    /// A path in the directory of the site.
    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path(relative)
    }

    /// A variable in the environment of every process of the pool.
    pub(crate) fn mark(&self) -> String {
        format!("_RUNTIME_DIR={}", self.dir.path("").display())
    }

    /// Supervisors and templates that run.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mark = self.mark();
        let is_ours = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap();
        entries
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// Supervisors that run.
    pub(crate) fn supervisors(&self) -> Vec<i32> {
        let command = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_supervisor =
            |pid: &i32| command(pid).windows(12).any(|part| part == b", supervisor");
        self.processes().into_iter().filter(is_supervisor).collect()
    }

    /// Processes that serve or wait, of pools whose supervisors and templates live.
    pub(crate) fn workers(&self) -> Vec<i32> {
        self.supervisors().into_iter().flat_map(children).flat_map(children).collect()
    }

    #[track_caller]
    pub(crate) fn await_no_process(&self) {
        eventually("no process is left", || self.processes().is_empty());
    }
}

impl Drop for WarmSite {
    fn drop(&mut self) {
        // Templates and idle workers end with their supervisors, and requests with their gateways.
        for pid in self.supervisors() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}
