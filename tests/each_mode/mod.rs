//! One application in every mode: its environ and its state do not depend on the mode.

use std::{
    fs,
    os::unix::{net::UnixListener, process::ExitStatusExt as _},
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use crate::{
    pool::{Pool, PoolSetup},
    support::{assertions::codes, child_process::RunningProcess, probe::CgiResponse},
    warm::WarmSite,
};

/// The number of the responder's role (FastCGI 1.0, 6.1).
const RESPONDER: u16 = 1;

/// A way to serve an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A CGI request in a new interpreter.
    Cold,
    /// A CGI request in a process that was forked for it.
    Warm,
    /// CGI requests in a process that stays.
    Resident,
    /// A FastCGI pool whose worker was forked with the application loaded, with so many threads.
    Preloaded(u32),
    /// A FastCGI pool whose worker loads the application itself, with so many threads.
    NotPreloaded(u32),
    /// One worker on standard input, without a supervisor.
    Lone,
}

/// All modes.
pub(crate) const MODES: [Mode; 8] = [
    Mode::Cold,
    Mode::Warm,
    Mode::Resident,
    Mode::Preloaded(1),
    Mode::Preloaded(3),
    Mode::NotPreloaded(1),
    Mode::NotPreloaded(3),
    Mode::Lone,
];

impl Mode {
    /// Returns whether the web server starts a process for each request.
    pub(crate) fn is_cgi(self) -> bool {
        matches!(self, Self::Cold | Self::Warm | Self::Resident)
    }
}

/// An application that is served in some mode. The environment variable `OUT` names a directory of
/// its own.
pub(crate) struct ServedApp {
    mode: Mode,
    by: By,
    out: tempfile::TempDir,
}

enum By {
    Cgi(Box<WarmSite>),
    FastCgi(Box<Pool>),
    Stopped,
}

impl ServedApp {
    /// Serves the application in `code`, which need not be indented to the left, with `options`.
    ///
    /// Warm and resident applications have answered one cold request with an empty path.
    #[track_caller]
    pub(crate) fn start(mode: Mode, options: &[&str], code: &str) -> Self {
        let out = tempfile::TempDir::new().unwrap();
        let by = match mode {
            Mode::Cold => By::Cgi(Box::new(WarmSite::of("cold", &options.join(" "), code))),
            Mode::Warm => By::Cgi(Box::new(WarmSite::of("warm", &options.join(" "), code))),
            Mode::Resident => By::Cgi(Box::new(WarmSite::of("resident", &options.join(" "), code))),
            Mode::Preloaded(threads) | Mode::NotPreloaded(threads) => {
                let preload = if matches!(mode, Mode::Preloaded(_)) { "yes" } else { "no" };
                let setup = PoolSetup::new(code).variable("OUT", out.path()).args(options);
                let setup = setup.args(&["--preload", preload, "--threads", &threads.to_string()]);
                By::FastCgi(Box::new(setup.start()))
            }
            Mode::Lone => {
                let setup = PoolSetup::new(code).variable("OUT", out.path()).args(options);
                let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
                By::FastCgi(Box::new(setup.start_on(listener)))
            }
        };
        let served = Self { mode, by, out };
        if matches!(mode, Mode::Warm | Mode::Resident) {
            served.request("GET", "", &[], b"");
            let By::Cgi(site) = &served.by else { unreachable!() };
            site.await_pools(1);
        }
        served
    }

    /// The body of the response to a `GET` of this path; its status is 200.
    #[track_caller]
    pub(crate) fn ask(&self, path: &str) -> String {
        let response = self.request("GET", path, &[], b"");
        assert_eq!(response.status, "200 OK", "{:?}: {response:?}", self.mode);
        response.text()
    }

    /// The response to a request for `path`, with other variables. It is cut if its exit status is
    /// no success.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        variables: &[(&str, &str)],
        body: &[u8],
    ) -> CgiResponse {
        let length = body.len().to_string();
        let ours =
            [("REQUEST_METHOD", method), ("PATH_INFO", path), ("CONTENT_LENGTH", length.as_str())];
        match &self.by {
            By::Cgi(site) => {
                let mut command = site.request();
                command.stdin(Stdio::piped()).env("OUT", self.out.path());
                command.env("REQUEST_URI", format!("/cgi-bin/app.wsgi{path}"));
                command.envs(ours).envs(variables.iter().copied());
                let mut running = RunningProcess::start(&mut command);
                running.give(body);
                let ended = running.end();
                CgiResponse::parse(ended.stdout, String::new(), ended.status)
            }
            By::FastCgi(pool) => {
                let params = [&ours[..], &[("REQUEST_URI", path)], variables].concat();
                let output = pool.output(RESPONDER, &params, body);
                // A wait status has the exit code in its second byte.
                let status = ExitStatus::from_raw(if output.ended { 0 } else { 1 << 8 });
                CgiResponse::parse(output.stdout, String::new(), status)
            }
            By::Stopped => panic!("{:?}: the application is not served any more", self.mode),
        }
    }

    /// A CGI request that a test watches while it is served; none over FastCGI. Standard error is a
    /// file.
    pub(crate) fn begin(&self, method: &str, path: &str) -> Option<RunningProcess> {
        let By::Cgi(site) = &self.by else { return None };
        let mut command = site.request();
        command
            .stdin(Stdio::null())
            .env("OUT", self.out.path())
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", path);
        Some(RunningProcess::start(&mut command))
    }

    /// The error log of CGI requests as it is now.
    pub(crate) fn log(&self) -> String {
        if let By::Cgi(site) = &self.by { site.log() } else { String::new() }
    }

    /// The pool that serves the application over FastCGI.
    pub(crate) fn pool(&self) -> Option<&Pool> {
        if let By::FastCgi(pool) = &self.by { Some(pool) } else { None }
    }

    /// A variable in the environment of every process of the application.
    pub(crate) fn mark(&self) -> String {
        match &self.by {
            By::Cgi(site) => site.mark(),
            By::FastCgi(pool) => pool.mark(),
            By::Stopped => panic!("{:?}: the application is not served any more", self.mode),
        }
    }

    /// A path in the directory that `OUT` names.
    pub(crate) fn out(&self, relative: &str) -> PathBuf {
        self.out.path().join(relative)
    }

    /// The content of a file in that directory; empty if the file is missing.
    pub(crate) fn written(&self, relative: &str) -> String {
        fs::read_to_string(self.out(relative)).unwrap_or_default()
    }

    /// Ends all processes in good order, and gives the error log. What the application has written
    /// stays where it is until `self` is dropped.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> String {
        match std::mem::replace(&mut self.by, By::Stopped) {
            By::Cgi(site) => {
                for pool in site.files(".sock") {
                    site.wsgate(&["stop", pool.file_stem().unwrap().to_str().unwrap()]);
                }
                site.await_no_process();
                site.log()
            }
            By::FastCgi(pool) => pool.stop(),
            By::Stopped => String::new(),
        }
    }
}

/// Serves the application in every mode, and asserts something of each.
#[track_caller]
pub(crate) fn in_each_mode(code: &str, assert: impl Fn(&mut ServedApp, Mode)) {
    for mode in MODES {
        assert(&mut ServedApp::start(mode, &[], code), mode);
    }
}

/// A path that is misspelt, or not mounted yet, stops nothing and is named in the log.
#[test]
fn a_path_that_does_not_exist_is_a_warning_in_each_mode() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str('/nonexistent/lib' in sys.path).encode()]
        ";
    for mode in MODES {
        let mut served = ServedApp::start(mode, &["--path", "/nonexistent/lib"], code);
        assert_eq!(served.ask("/page"), "True", "{mode:?}");
        let log = served.stop();
        assert!(codes(&log).iter().all(|code| *code == "W0108"), "{mode:?}: {log}");
        let sentence = "warning[W0108]: `/nonexistent/lib` of --path does not exist\nhint: ";
        assert!(log.contains(sentence), "{mode:?}: {log}");
    }
}
