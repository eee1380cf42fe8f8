//! `wsgate monitor`: its pages and metrics, who may read them, and hostile clients and pools.

mod browser;
mod failures;
mod hostile;
mod listening;
mod log;
mod metrics;
mod prometheus;
mod responses;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::support::{
    artefacts,
    child_process::{ExitedProcess, RunningProcess},
    pool::Pool,
    web_servers::{HttpClient, HttpResponse, eventually},
};

/// A monitor that a test has started.
pub(crate) struct Monitor {
    running: RunningProcess,
    /// `HOST:PORT` of its first address.
    address: String,
}

/// The command of a monitor of the pools in a runtime directory.
fn command(run: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(artefacts::gateway());
    command.arg("monitor").args(args).env_clear().env("WSGATE_RUNTIME_DIR", run);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Monitor {
    /// A monitor of `pool`, at a free port.
    #[track_caller]
    fn of(pool: &Pool) -> Self {
        Self::start(&pool.setup().path("run"), &[])
    }

    /// A monitor with more arguments.
    #[track_caller]
    fn start(run: &Path, args: &[&str]) -> Self {
        let args = [&["--listen", "127.0.0.1:0"], args].concat();
        let mut running = RunningProcess::start(&mut command(run, &args));
        running.await_log("W0760");
        running.await_log("request: ");
        let log = running.log();
        let (_, address) = log.split_once("http://").unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        Self { running, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> HttpResponse {
        HttpClient::get(self.url(path)).run()
    }

    /// The metrics in the text format.
    #[track_caller]
    fn metrics(&self) -> String {
        let response = self.get("/metrics");
        assert_eq!((response.status, response.exit), (200, 0), "{response:?}");
        response.text()
    }

    /// Waits until the metrics have this line.
    #[track_caller]
    fn await_metric(&self, line: &str) {
        eventually(&format!("the metrics have {line}"), || {
            self.metrics().lines().any(|found| found == line)
        });
    }

    fn pid(&self) -> i32 {
        self.running.pid().as_raw_nonzero().get()
    }

    #[track_caller]
    fn stop(self) -> ExitedProcess {
        self.running.signal(Signal::TERM);
        let ended = self.running.end();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        ended
    }
}

/// The user of this test, as labels name it.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A metric of the pool `app`.
fn sample(name: &str, labels: &str, value: &str) -> String {
    format!("{name}{{pool=\"app\",user=\"{}\"{labels}}} {value}", user())
}
