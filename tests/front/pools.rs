//! Pools for web servers that start none themselves: one for each script that is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::process::{eventually, gone_within};
use super::site::{ServerUser, Site};

/// The pools behind a web server, by the names of their scripts.
pub(crate) struct Pools {
    log: PathBuf,
    running: Mutex<BTreeMap<String, Child>>,
    words: Vec<String>,
}

impl Pools {
    /// None yet. What they have to say goes to `log`.
    pub(crate) fn new(site: &Site, log: &Path) -> Self {
        let sockets = site.path("run/pools");
        fs::create_dir(&sockets).unwrap();
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            chown(&sockets, Some(uid), Some(gid)).unwrap();
        }
        Self { log: log.to_owned(), running: Mutex::default(), words: Vec::new() }
    }

    /// With more words for their command lines.
    pub(crate) fn with_words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Where the pool of a script listens.
    pub(crate) fn socket(site: &Site, script: &str) -> PathBuf {
        site.path(&format!("run/pools/{script}.sock"))
    }

    /// Has the pool of the script that `path` asks for serve, or end because it cannot.
    pub(crate) fn want(&self, site: &Site, path: &str) {
        let Some(script) = script_of(site, path) else { return };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(script) {
            return;
        }
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let socket = Self::socket(site, script);
        let mut command = site.as_server("setpriv");
        // A test run that is interrupted takes its pools along.
        command.args(["--pdeathsig", "TERM", "--"]).arg(site.path("bin/wsgate"));
        command.arg("fastcgi").arg(site.path("cgi-bin").join(script));
        command.arg("--listen").arg(format!("unix:{}", socket.display())).args(["--workers", "2"]);
        command.args(&self.words);
        // Another test has pools of the same names at the same time.
        command.env("WSGATE_RUNTIME_DIR", site.path("var/wsgate"));
        command.env("DJANGO_DB", site.path("var/django.sqlite3"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut pool = command.spawn().unwrap();
        let ready = format!("at `unix:{}`", socket.display());
        eventually("the pool serves or has ended", || {
            let serves = |line: &str| line.contains("[W0710]") && line.contains(&ready);
            fs::read_to_string(&self.log).unwrap().lines().any(serves) || pool.try_wait().unwrap().is_some()
        });
        running.insert(script.to_owned(), pool);
    }

    /// Ends them all.
    pub(crate) fn stop(&mut self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for mut pool in running.into_values() {
            if matches!(pool.try_wait(), Ok(Some(_))) {
                continue;
            }
            let pid = Pid::from_child(&pool);
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::TERM);
            if !gone_within(pid.as_raw_nonzero().get(), std::time::Duration::from_secs(10)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = pool.wait();
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The script of cgi-bin that `path` asks for, if there is one.
pub(crate) fn script_of<'a>(site: &Site, path: &'a str) -> Option<&'a str> {
    let script = path.strip_prefix("/cgi-bin/")?.split(['/', '?']).next()?;
    (script.ends_with(".wsgi") && site.path("cgi-bin").join(script).exists()).then_some(script)
}

/// The names of all scripts of cgi-bin.
pub(crate) fn scripts(site: &Site) -> Vec<String> {
    let names = fs::read_dir(site.path("cgi-bin")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.ends_with(".wsgi"));
    names.sort_unstable();
    names
}
