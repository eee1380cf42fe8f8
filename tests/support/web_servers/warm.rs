//! Web servers whose scripts say `--mode warm` or `--mode resident`: each script has its pool
//! before it is asked what a test asks it.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
};

use crate::support::{
    assertions::first_line,
    waiting::eventually,
    web_servers::{
        Apache, ApacheSetup, CgiModule, Habits, HttpClient, WebServer, lighttpd::Lighttpd,
        pools::script_of, site::WebSite,
    },
};

/// Scripts that have no pool: their applications cannot be loaded.
const UNFIT: [&str; 7] = [
    "calls_os_exit_at_import.wsgi",
    "missing_module.wsgi",
    "no_application.wsgi",
    "python_not_there.wsgi",
    "raises_at_import.wsgi",
    "syntax_error.wsgi",
    "venv_not_there.wsgi",
];

/// A web server and the warm pools behind it, which end with it.
pub(crate) struct Warm {
    web_server: Box<dyn WebServer>,
    /// Scripts whose pools serve.
    warmed: Mutex<BTreeSet<String>>,
}

impl Warm {
    /// Apache, which hands over one socket as both ends (mod_cgid), or two pipes (mod_cgi).
    pub(crate) fn apache(module: CgiModule, mode: &'static str) -> Self {
        Self::of(Box::new(Apache::start(module, ApacheSetup::ScriptAlias, WebSite::of_mode(mode))))
    }

    /// lighttpd, which hands over a file that holds the body, and a pipe.
    pub(crate) fn lighttpd(mode: &'static str) -> Self {
        Self::of(Box::new(Lighttpd::over(WebSite::of_mode(mode))))
    }

    fn of(web_server: Box<dyn WebServer>) -> Self {
        Self { web_server, warmed: Mutex::default() }
    }

    /// Asks until a process of a pool answers.
    #[track_caller]
    fn warm_up(&self, script: &str) {
        let url = self.web_server.url(&format!("/cgi-bin/{script}"));
        eventually("a pool serves", || {
            let text = HttpClient::get(&url).header("X-Who-Serves", "?").run().expect(200).text();
            let [born, pid, mode] = text.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            let template = born.parse().unwrap();
            assert!(
                born == pid || self.site().pool_processes().contains(&template),
                "{template} is no template"
            );
            mode == "warm"
        });
    }

    /// Ends the pools, in the words of an administrator.
    fn end_pools(&self) {
        let runtime = self.site().runtime_directory().expect("a warm site");
        let wsgate = |args: &[&str]| {
            let mut command = self.site().as_server(self.site().path("bin/wsgate"));
            command.args(args).env("WSGATE_RUNTIME_DIR", &runtime).output().unwrap()
        };
        for line in String::from_utf8(wsgate(&["status", "--json"]).stdout).unwrap().lines() {
            let pool: serde_json::Value = serde_json::from_str(line).unwrap();
            // The pool may have stopped meanwhile.
            wsgate(&["stop", pool["name"].as_str().unwrap()]);
        }
        eventually("no process is left", || self.site().all_processes().is_empty());
    }

    /// Fails unless the requests of the test were served warm; where one was not, the log has to
    /// say why.
    fn were_warm(&self) {
        let warmed = self.warmed.lock().unwrap_or_else(PoisonError::into_inner);
        let served = fs::read_to_string(self.site().path("var/served")).unwrap_or_default();
        for script in warmed.iter() {
            let how: Vec<&str> =
                served.lines().filter_map(|line| line.strip_prefix(script.as_str())).collect();
            let is_logged = self.web_server.log().contains("[W0801]");
            assert!(how.iter().all(|how| *how == " warm" || is_logged), "{script}: {how:?}");
            assert!(how.is_empty() || how.contains(&" warm"), "{script}: {how:?}");
        }
    }
}

impl WebServer for Warm {
    fn site(&self) -> &WebSite {
        self.web_server.site()
    }

    fn url(&self, path: &str) -> String {
        if let Some(script) = script_of(self.site(), path)
            && !UNFIT.contains(&script)
            && self.warmed.lock().unwrap_or_else(PoisonError::into_inner).insert(script.to_owned())
        {
            self.warm_up(script);
        }
        self.web_server.url(path)
    }

    /// The log without the messages that a pool starts or stops.
    fn log(&self) -> String {
        of_requests(&self.web_server.log())
    }

    fn stop(&mut self) -> String {
        let log = self.web_server.stop();
        self.end_pools();
        self.were_warm();
        of_requests(&log)
    }

    fn habits(&self) -> Habits {
        self.web_server.habits()
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        // A test that has failed says more than what follows from it. Its processes end with the
        // site.
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// The log without the notices of pools: each is a log message of two lines.
fn of_requests(log: &str) -> String {
    let mut lines = log.split_inclusive('\n').peekable();
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        let of_pool = |next: &&str| next.starts_with("request: none, pool of ");
        let is_notice = first_line(line).is_some_and(|text| text.starts_with("notice["));
        if is_notice && lines.next_if(of_pool).is_some() {
            continue;
        }
        rest.push_str(line);
    }
    rest
}
