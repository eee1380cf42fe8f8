//! An application under attack, in some mode, and the process that starts it again: the web server
//! or a service manager.

mod requests;

use std::{
    fs::{
        File, {self},
    },
    os::unix::{net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{
    attack::{
        BOUND,
        outcome::{CgiProcess, Outcome},
    },
    each_mode::Mode,
    support::{
        install_dir::InstallDir,
        probe::python,
        processes::{all_children, description, pids},
        web_servers::eventually,
    },
};

/// The application under attack.
pub(super) struct Target {
    dir: Arc<InstallDir>,
    directory: PathBuf,
    mode: Mode,
    options: Vec<String>,
    /// The program that starts everything, with its words.
    through: Vec<String>,
    variables: Vec<(String, String)>,
    /// The socket of a lone worker, which its manager has.
    listener: Option<UnixListener>,
    leader: Mutex<Leader>,
    /// Gateways that serve a request of [`Target::ask`].
    gateways: Mutex<Vec<i32>>,
}

/// The process that was started for a pool.
#[derive(Default)]
struct Leader {
    child: Option<Child>,
    ends: Vec<ExitStatus>,
}

/// Options of a target.
#[derive(Clone, Copy, Default)]
pub(super) struct Options<'a> {
    /// Words for the command line or the `#!` line.
    pub(super) args: &'a [&'a str],
    /// A program that becomes the gateway.
    pub(super) through: &'a [&'a str],
    /// The user that it runs as.
    pub(super) user: Option<u32>,
    /// Variables of its processes.
    pub(super) variables: &'a [(&'a str, &'a str)],
}

/// Locks whatever another thread has left.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// The application in `code`, in the directory `name` of `dir`. It serves.
    #[track_caller]
    pub(super) fn start(
        dir: &Arc<InstallDir>,
        name: &str,
        mode: Mode,
        code: &str,
        options: Options<'_>,
    ) -> Self {
        let directory = dir.path(name);
        fs::create_dir_all(directory.join("run")).unwrap();
        let strings = |args: &[&str]| args.iter().map(|&word| word.to_owned()).collect();
        let variables = options
            .variables
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut target = Self {
            dir: dir.clone(),
            directory,
            mode,
            options: strings(options.args),
            through: strings(options.through),
            variables,
            listener: None,
            leader: Mutex::default(),
            gateways: Mutex::default(),
        };
        if let Some(user) = options.user {
            let ids =
                [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
            target.through.splice(
                ..0,
                ["setpriv".to_owned()].into_iter().chain(ids).chain(["--".to_owned()]),
            );
        }
        let word = match mode {
            Mode::Warm => "warm",
            Mode::Resident => "resident",
            _ => "cold",
        };
        let first_line = match target.is_cgi() {
            true => format!("#!WSGATE --mode {word} {}", options.args.join(" ")),
            false => "#!WSGATE".to_owned(),
        };
        dir.script(&format!("{name}/app.wsgi"), &first_line, code);
        fs::set_permissions(
            target.path("run"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        if let Some(user) = options.user {
            let owner = Command::new("chown")
                .arg("-R")
                .arg(user.to_string())
                .arg(&target.directory)
                .status();
            assert!(owner.unwrap().success());
        }
        if mode == Mode::Lone {
            target.listener = Some(UnixListener::bind(target.socket()).unwrap());
        }
        if target.is_cgi() {
            target.wait_for_the_clock();
        } else {
            lock(&target.leader).child = Some(target.launch());
        }
        target.await_good("/good-start");
        if matches!(mode, Mode::Warm | Mode::Resident) {
            eventually("the pool serves", || !target.sockets().is_empty());
        }
        target
    }

    /// Nobody can say of a file as young as this whether it was changed after it was
    /// loaded.
    fn wait_for_the_clock(&self) {
        eventually("the script is no longer new", || {
            let changed = fs::metadata(self.path("app.wsgi")).unwrap().modified().unwrap();
            changed.elapsed().is_ok_and(|age| age > Duration::from_millis(50))
        });
    }

    /// Returns whether each request is a CGI request.
    pub(super) fn is_cgi(&self) -> bool {
        matches!(self.mode, Mode::Cold | Mode::Warm | Mode::Resident)
    }

    /// A path beside the application.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }

    /// Where a pool listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.path("app.sock")
    }

    /// Sockets of warm pools.
    fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("run")) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
    }

    /// The content of the log.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("error.log")).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> File {
        File::options().append(true).create(true).open(self.path("error.log")).unwrap()
    }

    /// A command that starts something of it: a process group of its own, since the applications
    /// send signals to theirs.
    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.through[..] {
            [] => Command::new(program),
            [through, args @ ..] => {
                let mut command = Command::new(through);
                command.args(args).arg(program);
                command
            }
        };
        command.process_group(0).stderr(self.log_file());
        command
    }

    fn describe(&self, command: &mut Command) {
        self.dir.describe(command, &self.path("app.wsgi"));
        command.env("WSGATE_RUNTIME_DIR", self.path("run")).env("RUN_OF_ATTACK", self.path("run"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    fn launch(&self) -> Child {
        // The parent of a lone worker may get its signals. Hence the test is not the parent.
        let mut command = match self.mode {
            Mode::Lone => {
                let mut command = self.command(Path::new("/bin/sh"));
                command.args(["-c", "\"$@\"; exit $?", "sh"]).arg(self.dir.wsgate());
                command
            }
            _ => self.command(&self.dir.wsgate()),
        };
        command.args(["fastcgi", "--python"]).arg(python());
        let mut args: Vec<String> = Vec::new();
        if let Mode::Preloaded(threads) | Mode::NotPreloaded(threads) = self.mode {
            let preload = if matches!(self.mode, Mode::Preloaded(_)) { "yes" } else { "no" };
            args.extend(["--preload", preload, "--threads"].map(str::to_owned));
            args.extend([threads.to_string(), "--drain".to_owned(), "2".to_owned()]);
            args.extend(["--listen".to_owned(), format!("unix:{}", self.socket().display())]);
            if !self.options.iter().any(|word| word == "--workers") {
                args.extend(["--workers", "1"].map(str::to_owned));
            }
        }
        if geteuid().is_root() && self.through.is_empty() {
            // Intended: a pool of root logs no warning with this option.
            command.args(["--user", "root"]);
        }
        command.args(args).args(&self.options).arg(self.path("app.wsgi"));
        self.describe(&mut command);
        command.env_remove("GATEWAY_INTERFACE");
        if let Some(listener) = &self.listener {
            command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())));
        }
        command.spawn().unwrap()
    }

    /// Starts the pool again if it has ended, as a service manager does. Has it?
    pub(super) fn revive(&self) -> bool {
        let mut leader = lock(&self.leader);
        let Some(child) = &mut leader.child else { return false };
        let Some(status) = child.try_wait().unwrap() else { return false };
        leader.ends.push(status);
        leader.child = Some(self.launch());
        true
    }

    /// How the process that was started for it has ended, each time.
    pub(super) fn ends(&self) -> Vec<ExitStatus> {
        lock(&self.leader).ends.clone()
    }

    /// The supervisor, or the lone worker.
    pub(super) fn leader(&self) -> Option<i32> {
        let pid = {
            let leader = lock(&self.leader);
            Pid::from_child(leader.child.as_ref()?).as_raw_nonzero().get()
        };
        if self.mode == Mode::Lone { all_children(pid).first().copied() } else { Some(pid) }
    }

    /// Supervisors that run, of whatever kind.
    pub(super) fn supervisors(&self) -> Vec<i32> {
        if !self.is_cgi() {
            return self.leader().into_iter().collect();
        }
        let is_supervisor = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.windows(12).any(|part| part == b", supervisor")
        };
        self.processes().into_iter().filter(is_supervisor).collect()
    }

    /// Templates that run.
    pub(super) fn templates(&self) -> Vec<i32> {
        self.supervisors().into_iter().flat_map(all_children).collect()
    }

    /// Processes that serve or wait.
    pub(super) fn workers(&self) -> Vec<i32> {
        if self.mode == Mode::Lone {
            return self.leader().into_iter().collect();
        }
        self.templates().into_iter().flat_map(all_children).collect()
    }

    /// Gateways that serve a request of [`Target::ask`].
    pub(super) fn gateways(&self) -> Vec<i32> {
        lock(&self.gateways).clone()
    }

    /// All running processes of the target, children of any parent.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mark = format!("RUN_OF_ATTACK={}/run\0", self.directory.display());
        let is_ours = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        pids().filter(is_ours).collect()
    }

    /// Asks the supervisor to stop.
    pub(super) fn terminate(&self) {
        if let Some(pid) = self.leader().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Stops the warm pools that listen now.
    fn stop_pools(&self, bound: Duration, wrong: &mut Vec<String>) {
        for socket in self.sockets() {
            let mut command = self.command(&self.dir.wsgate());
            command.arg("stop").arg(socket.file_stem().unwrap());
            command.env_clear().env("WSGATE_RUNTIME_DIR", self.path("run")).stdout(Stdio::null());
            if let Ok(program) = CgiProcess::start(&mut command, bound)
                && let Outcome::Hung(what) = program.outcome()
            {
                wrong.push(format!("`wsgate stop` hangs: {what}"));
            }
        }
    }

    /// Ends it in good order and gives its log. No process may be left.
    pub(super) fn stop(&self) -> Result<String, String> {
        let mut wrong = Vec::new();
        // A warm pool gives its processes thirty seconds.
        let bound = if self.is_cgi() { BOUND * 2 } else { BOUND };
        self.stop_pools(bound, &mut wrong);
        let began = Instant::now();
        self.terminate();
        let mut left = self.processes();
        while !left.is_empty() && began.elapsed() < bound {
            pause(Duration::from_millis(10));
            // The last requests may have started a pool that did not listen before.
            self.stop_pools(bound, &mut wrong);
            left = self.processes();
            // A process manager kills a worker that does not exit, too.
            if self.mode == Mode::Lone
                && began.elapsed() > Duration::from_secs(5)
                && let Some(pid) = self.leader().and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if !left.is_empty() {
            let names: Vec<String> = left.iter().map(|pid| description(*pid)).collect();
            wrong.push(format!("{} processes are left: {}", left.len(), names.join(", ")));
        }
        self.kill();
        if wrong.is_empty() { Ok(self.log()) } else { Err(wrong.join("; ")) }
    }

    fn kill(&self) {
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if let Some(mut child) = lock(&self.leader).child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Pauses between two looks at a condition that no event announces.
pub(super) fn pause(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}
