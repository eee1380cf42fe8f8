//! One application in every mode: what comes out must not depend on how it is run.

mod authorizer;
mod lints;
mod model;
mod streams;

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};

use crate::{pool::served::Served, probe::Reply, running::Running, warm::Site};

/// How an application is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Cold,
    Warm,
    Resident,
    /// A pool with so many threads a worker.
    Pool(&'static str),
    Lone,
}

const MODES: [Mode; 6] = [Mode::Cold, Mode::Warm, Mode::Resident, Mode::Pool("1"), Mode::Pool("3"), Mode::Lone];

/// An application that runs in some mode.
enum Run {
    Cgi(Site),
    FastCgi(Box<Served>),
}

impl Run {
    /// The application in `code`.
    fn start(mode: Mode, code: &str) -> Self {
        let site = |mode: &str| Site::of(mode, "", code);
        let warm = |mode| {
            let site = site(mode);
            site.ask();
            site.await_pools(1);
            Self::Cgi(site)
        };
        match mode {
            Mode::Cold => Self::Cgi(site("cold")),
            Mode::Warm => warm("warm"),
            Mode::Resident => warm("resident"),
            Mode::Pool(threads) => Self::FastCgi(Box::new(Served::start(code, &["--threads", threads]))),
            Mode::Lone => Self::FastCgi(Box::new(Served::start_lone(code))),
        }
    }

    /// The response to a request for `path`, with other variables. It is cut if it does not end with success.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, variables: &[(&str, &str)], body: &[u8]) -> Reply {
        let length = body.len().to_string();
        let ours = [("REQUEST_METHOD", method), ("PATH_INFO", path), ("CONTENT_LENGTH", length.as_str())];
        match self {
            Self::Cgi(site) => {
                let mut command = site.request();
                command.stdin(Stdio::piped()).envs(ours).envs(variables.iter().copied());
                command.env("REQUEST_URI", format!("/cgi-bin/app.wsgi{path}"));
                let mut running = Running::start(&mut command);
                running.give(body);
                let ended = running.end();
                Reply::parse(ended.stdout, String::new(), ended.status)
            }
            Self::FastCgi(served) => {
                let params = [&ours[..], &[("REQUEST_URI", path)], variables].concat();
                let output = served.ask(1, &params, body);
                // A wait status has the exit code in its second byte.
                let status = ExitStatus::from_raw(if output.ended { 0 } else { 1 << 8 });
                Reply::parse(output.stdout, String::new(), status)
            }
        }
    }

    /// What the log says in the end.
    fn stop(self) -> String {
        match self {
            Self::Cgi(site) => site.log(),
            Self::FastCgi(served) => served.stop(),
        }
    }
}
