//! The units in `packaging/systemd`, as they stand: systemd reads them without a complaint, and
//! what they say works.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    pool::ECHO,
    support::{
        artefacts,
        assertions::codes,
        child_process::{RunningProcess, piped, run},
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::PoolSetup,
        probe::{dedent, python},
        web_servers::{eventually, source},
    },
};

fn wsgate() -> &'static str {
    artefacts::gateway().to_str().unwrap()
}

fn unit(name: &str) -> String {
    fs::read_to_string(source("packaging/systemd").join(name)).unwrap()
}

/// Values of a setting in a unit.
fn values<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// A machine in small, on which the site `shop` has its files.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().unwrap());
        for directory in ["srv/shop", "run/wsgate", "etc/wsgate/pools"] {
            fs::create_dir_all(machine.path(directory)).unwrap();
        }
        let app = machine.path("srv/shop/app.wsgi");
        let text = format!("app = {app:?}\nworkers = 1\npython = {:?}\n", python());
        fs::write(machine.path("etc/wsgate/pools/shop.toml"), text).unwrap();
        machine
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().join(relative)
    }

    fn release(&self, code: &str) {
        fs::write(self.path("srv/shop/app.wsgi"), dedent(code)).unwrap();
    }

    /// A value of a unit as systemd gives it to the instance `shop`.
    fn instance(&self, value: &str) -> String {
        let root = self.0.path().display().to_string();
        let value = value.replace("%i", "shop").replace("%t", &format!("{root}/run"));
        let value = value
            .replace("/srv/", &format!("{root}/srv/"))
            .replace("/usr/local/bin/wsgate", wsgate());
        value.replace("/etc/wsgate/", &format!("{root}/etc/wsgate/"))
    }

    /// A command of a unit, as its process finds itself.
    fn command(&self, unit: &str, setting: &str, before: &[String]) -> Command {
        let line = self.instance(values(unit, setting)[0]);
        let args: Vec<String> =
            before.iter().cloned().chain(line.split_whitespace().map(str::to_owned)).collect();
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]).env_clear().env("PATH", "/usr/bin:/bin");
        for assignment in values(unit, "Environment") {
            let assignment = self.instance(assignment);
            let (name, value) = assignment.split_once('=').unwrap();
            command.env(name, value);
        }
        command
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let directory = TempDir::new().unwrap();
    let names = ["wsgate@.service", "wsgate@.socket", "wsgate-monitor.service"];
    let paths = names.map(|name| directory.path().join(name));
    for (name, path) in names.iter().zip(&paths) {
        // systemd-analyze checks that the program exists.
        fs::write(path, unit(name).replace("/usr/local/bin/wsgate", wsgate())).unwrap();
    }
    let verify = |paths: &[PathBuf]| {
        run(piped(Command::new("systemd-analyze").args(["--man=no", "verify"]).args(paths)), "")
    };
    let ended = verify(&paths);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    // systemd-analyze reports a broken unit.
    let broken = unit(names[0])
        .replace("/usr/local/bin/wsgate", wsgate())
        .replace("WatchdogSec", "WatchdogSecond");
    fs::write(&paths[0], broken).unwrap();
    assert!(verify(&paths[..1]).stderr.contains("WatchdogSecond"));
}

#[test]
fn the_systemd_units_serve_a_site_and_reload_it() {
    let machine = Machine::new();
    machine.release(ECHO);
    let (service, socket) = (unit("wsgate@.service"), unit("wsgate@.socket"));
    // Acts as systemd before it starts the pool: creates the directory, the socket and the
    // variables.
    let directory =
        machine.path("run").join(machine.instance(values(&service, "RuntimeDirectory")[0]));
    let mode = u32::from_str_radix(values(&service, "RuntimeDirectoryMode")[0], 8).unwrap();
    fs::DirBuilder::new().mode(mode).create(&directory).unwrap();
    let path = machine.instance(values(&socket, "ListenStream")[0]);
    let variable = machine.instance(values(&service, "Environment")[0]);
    let before = ["systemd-socket-activate", "-l", &path, "-E", &variable].map(str::to_owned);
    let mut command = machine.command(&service, "ExecStart", &before);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = RunningProcess::start(&mut command);
    running.await_log("Listening on");
    assert_eq!(
        FastcgiConnection::unix(Path::new(&path)).ask(&FastcgiRequest::get("/shop")).text(),
        "/shop|"
    );
    running.await_log("W0710");
    let log = running.log();
    assert!(log.contains(&format!("`unix:{path}`")), "{log}");
    // Nobody else comes near its control socket.
    assert!(directory.join("shop.pool").exists());
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

    let reload = || run(piped(&mut machine.command(&service, "ExecReload", &[])), "");
    machine.release("import there_is_no_such_module");
    let ended = reload();
    assert_eq!((ended.code(), codes(&ended.stderr)), (Some(1), vec!["W0715"]), "{}", ended.stderr);
    assert_eq!(
        FastcgiConnection::unix(Path::new(&path)).ask(&FastcgiRequest::get("/still")).text(),
        "/still|"
    );
    machine.release(&ECHO.replace("b'|'", "b'+'"));
    assert_eq!(reload().code(), Some(0));
    eventually("the new code answers", || {
        FastcgiConnection::unix(Path::new(&path)).ask(&FastcgiRequest::get("/new")).text()
            == "/new+"
    });
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
    assert!(Path::new(&path).exists(), "the socket is systemd's");
}

#[test]
fn a_permanent_failure_is_not_restarted() {
    let service = unit("wsgate@.service");
    let prevented: Vec<i32> = values(&service, "RestartPreventExitStatus")[0]
        .split(' ')
        .map(|code| code.parse().unwrap())
        .collect();
    for args in [&["fastcgi", "--no-such-option"][..], &["fastcgi", "/there/is/no/app.wsgi"]] {
        let ended = run(piped(Command::new(artefacts::gateway()).args(args)), "");
        assert!(ended.code().is_some_and(|code| prevented.contains(&code)), "{args:?}: {ended:?}");
    }
}

#[test]
fn logrotate_rotates_the_logs_of_a_pool_that_goes_on_writing() {
    let pool = PoolSetup::new(ECHO);
    let logs = pool.path("wsgate/shop");
    fs::create_dir_all(&logs).unwrap();
    let log = logs.join("access.log");
    let mut pool = pool.args(&["--access-log", log.to_str().unwrap()]).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/before")).text(), "/before|");
    // logrotate leaves an empty file alone.
    eventually("the request is logged", || fs::read_to_string(&log).unwrap().contains("/before"));
    // The shipped file, with the directory and the process of this pool.
    let text = fs::read_to_string(source("packaging/logrotate/wsgate")).unwrap();
    let signal = "systemctl kill --kill-who=main --signal=USR1 'wsgate@*.service'";
    assert!(text.contains(signal) && text.contains("/var/log/wsgate/*/"), "{text}");
    let text = text
        .replace("/var/log/wsgate/", &format!("{}/", pool.setup().path("wsgate").display()))
        .replace(signal, &format!("kill -USR1 {}", pool.pid()));
    let (config, state) = (pool.setup().path("logrotate"), pool.setup().path("state"));
    fs::write(&config, text).unwrap();
    for rotation in ["access.log.1", "access.log.2.gz"] {
        let mut command = Command::new("/usr/sbin/logrotate");
        command.arg("--force").arg("--state").arg(&state).arg(&config);
        let ended = run(piped(&mut command), "");
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
        eventually(rotation, || logs.join(rotation).exists() && log.exists());
        assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
        eventually("the new file has the request", || {
            fs::read_to_string(&log).unwrap().contains("GET /after")
        });
    }
    pool.await_times("W0742", 2);
    pool.stop();
}
