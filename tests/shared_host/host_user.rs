//! A user of a shared host: an account of the machine, with a virtualenv that wsgate is installed
//! in. Both vanish with the value.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    child_process::{ExitedProcess, run},
    waiting::eventually,
    web_servers::venv,
    wheel::wheel,
};

/// Where suexec looks for scripts.
const HOMES: &str = "/home";

/// The database of users has one writer at a time.
static ACCOUNTS: Mutex<()> = Mutex::new(());

/// Accounts made so far, for their names.
static COUNT: AtomicU32 = AtomicU32::new(0);

pub(super) struct HostUser {
    pub(super) name: String,
    uid: u32,
    gid: u32,
}

impl HostUser {
    /// Makes an account. Only the user can read the home directory; others can pass through it.
    pub(super) fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsgt{}x{number}", std::process::id());
        let home = format!("{HOMES}/{name}");
        account("useradd", &["--create-home", "--home-dir", &home, "--user-group", &name]);
        fs::set_permissions(&home, Permissions::from_mode(0o711)).unwrap();
        let found = fs::metadata(&home).unwrap();
        Self { name, uid: found.uid(), gid: found.gid() }
    }

    /// A path below the home directory.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        Path::new(HOMES).join(&self.name).join(relative)
    }

    /// Writes a file of the user.
    pub(super) fn file(&self, relative: &str, content: &str) -> PathBuf {
        let path = self.path(relative);
        self.directory(path.parent().unwrap());
        fs::write(&path, content).unwrap();
        self.give(&path);
        path
    }

    /// Makes a directory of the user, and those above it.
    pub(super) fn directory(&self, path: &Path) {
        if !path.exists() {
            self.directory(path.parent().unwrap());
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
            self.give(path);
        }
    }

    fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    /// Gives everything below `path` to the user.
    pub(super) fn give_all(&self, path: &Path) {
        let owner = format!("{}:{}", self.uid, self.gid);
        let status = Command::new("chown").arg("-R").arg(owner).arg(path).status().unwrap();
        assert!(status.success());
    }

    /// Makes `~/venv`, and installs wsgate there from its wheel. The virtualenv has no pip.
    pub(super) fn make_venv(&self) {
        let made = self.run(&["/usr/bin/python3", "-m", "venv", "--without-pip", "venv"]);
        assert_eq!(made.code(), Some(0), "{}", made.stderr);
        let pip = venv().join("bin/pip");
        let options = ["--python", "venv/bin/python", "install", "--no-index", "--no-cache-dir"];
        let wheel = self.wheel();
        let of = [&[pip.to_str().unwrap()], &options[..], &[wheel.to_str().unwrap()]].concat();
        let installed = self.run(&of);
        assert_eq!(installed.code(), Some(0), "{}", installed.stderr);
    }

    /// Copies the wheel into the home directory, and returns its path.
    pub(super) fn wheel(&self) -> PathBuf {
        let wheel = wheel();
        let path = self.path(&wheel.name);
        fs::write(&path, &wheel.content).unwrap();
        self.give(&path);
        path
    }

    /// Runs a command as the user, in the home directory.
    pub(super) fn run(&self, arguments: &[&str]) -> ExitedProcess {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid))
            .args(["--clear-groups", "--"])
            .args(arguments)
            .env_clear()
            .env("HOME", self.path(""))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir(self.path(""));
        run(&mut command, "")
    }

    /// Runs `~/venv/bin/wsgate`, which must succeed.
    #[track_caller]
    pub(super) fn wsgate(&self, arguments: &[&str]) -> String {
        let program = self.path("venv/bin/wsgate");
        let ended = self.run(&[&[program.to_str().unwrap()], arguments].concat());
        assert_eq!(ended.code(), Some(0), "{arguments:?}: {} {}", ended.text(), ended.stderr);
        ended.text()
    }

    /// The processes of the user.
    pub(super) fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == self.uid)
        })
        .collect()
    }
}

impl Drop for HostUser {
    fn drop(&mut self) {
        eventually("no process of the user is left", || {
            let processes = self.processes();
            for pid in &processes {
                let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
            }
            processes.is_empty()
        });
        let _ = fs::remove_dir_all(format!("/tmp/wsgate-{}", self.uid));
        account("userdel", &["--remove", &self.name]);
    }
}

/// Runs a program that changes accounts. Another program may hold their lock.
fn account(program: &str, arguments: &[&str]) {
    let _one_at_a_time = ACCOUNTS.lock();
    eventually(&format!("{program} {arguments:?}"), || {
        Command::new(program).args(arguments).output().unwrap().status.success()
    });
}
