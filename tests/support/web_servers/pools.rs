//! Pools for web servers that start none themselves: one for each script that is asked for.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    os::{fd::OwnedFd, unix::fs::chown},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    waiting::{eventually, exits_within},
    web_servers::site::{ServerUser, WebSite},
};

/// The pools behind a web server, by the names of their scripts.
pub(crate) struct Pools {
    log: PathBuf,
    running: Mutex<BTreeMap<String, Child>>,
    /// The port of each script's pool, over TCP.
    ports: BTreeMap<String, u16>,
    /// The listening sockets of pools that have not been started.
    listeners: Mutex<BTreeMap<String, TcpListener>>,
    args: Vec<String>,
}

impl Pools {
    /// Creates the set without a pool. The messages of all pools go to `log`.
    pub(crate) fn new(site: &WebSite, log: &Path) -> Self {
        let sockets = site.path("run/pools");
        fs::create_dir(&sockets).unwrap();
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            chown(&sockets, Some(uid), Some(gid)).unwrap();
        }
        Self {
            log: log.to_owned(),
            running: Mutex::default(),
            ports: BTreeMap::new(),
            listeners: Mutex::default(),
            args: Vec::new(),
        }
    }

    /// Creates the set for TCP: all ports are reserved now, and a web server can be configured with
    /// them.
    pub(crate) fn over_tcp(site: &WebSite, log: &Path) -> Self {
        let mut pools = Self::new(site, log);
        let listeners = pools.listeners.get_mut().unwrap_or_else(PoisonError::into_inner);
        for script in scripts(site) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            pools.ports.insert(script.clone(), listener.local_addr().unwrap().port());
            listeners.insert(script, listener);
        }
        pools
    }

    /// The port of a script's pool, over TCP.
    pub(crate) fn port(&self, script: &str) -> Option<u16> {
        self.ports.get(script).copied()
    }

    /// The ports of all.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.ports.values().copied().collect()
    }

    /// Adds arguments for all pools.
    pub(crate) fn with_words(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&word| word.to_owned()));
        self
    }

    /// Where the pool of a script listens.
    pub(crate) fn socket(site: &WebSite, script: &str) -> PathBuf {
        site.path(&format!("run/pools/{script}.sock"))
    }

    /// Starts the pool of the script that `path` names, if any.
    pub(crate) fn want_for(&self, site: &WebSite, path: &str) {
        if let Some(script) = script_of(site, path) {
            self.want(site, script);
        }
    }

    /// Starts the pool of `script`, and waits until it serves or has failed.
    pub(crate) fn want(&self, site: &WebSite, script: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(script) {
            return;
        }
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let listener = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(script);
        let (address, input) = match listener {
            Some(listener) => ("fd:0".to_owned(), Stdio::from(OwnedFd::from(listener))),
            None => (format!("unix:{}", Self::socket(site, script).display()), Stdio::null()),
        };
        let file = site.path("cgi-bin").join(script);
        let mut command = site.as_server("setpriv");
        // A test run that is interrupted takes its pools along.
        command.args(["--pdeathsig", "TERM", "--"]).arg(site.path("bin/wsgate"));
        command.arg("fastcgi").arg(&file).arg("--listen").arg(address);
        if !self.args.iter().any(|word| word == "--workers") {
            command.args(["--workers", "2"]);
        }
        command.args(&self.args);
        // Other tests have pools of the same names.
        command.env("WSGATE_RUNTIME_DIR", site.path("var/wsgate"));
        command.env("DJANGO_DATA", site.path("var"));
        command.stdin(input).stdout(Stdio::null()).stderr(log);
        let mut pool = command.spawn().unwrap();
        // Over TCP only the pool may hold the listening socket: it closes when the pool exits.
        drop(command);
        let ready = format!("`{}`", file.display());
        eventually("the pool serves or has ended", || {
            let serves = |line: &str| line.contains("[W0710]") && line.contains(&ready);
            fs::read_to_string(&self.log).unwrap().lines().any(serves)
                || pool.try_wait().unwrap().is_some()
        });
        running.insert(script.to_owned(), pool);
    }

    /// Ends them all.
    pub(crate) fn stop(&mut self) {
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for mut pool in running.into_values() {
            if matches!(pool.try_wait(), Ok(Some(_))) {
                continue;
            }
            let pid = Pid::from_child(&pool);
            // The process may have exited by itself.
            let _ = kill_process(pid, Signal::TERM);
            if !exits_within(pid.as_raw_nonzero().get(), std::time::Duration::from_secs(10)) {
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
pub(crate) fn script_of<'a>(site: &WebSite, path: &'a str) -> Option<&'a str> {
    let script = path.strip_prefix("/cgi-bin/")?.split(['/', '?']).next()?;
    (script.ends_with(".wsgi") && site.path("cgi-bin").join(script).exists()).then_some(script)
}

/// The names of all scripts of cgi-bin.
pub(crate) fn scripts(site: &WebSite) -> Vec<String> {
    let names = fs::read_dir(site.path("cgi-bin")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.ends_with(".wsgi"));
    names.sort_unstable();
    names
}
