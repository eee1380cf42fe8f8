//! A pool that a test has started.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

pub(crate) use crate::support::processes::{children, count, resident, signal};
use crate::support::{
    artefacts,
    child_process::{ExitedProcess, Gate, RunningProcess, run},
    fastcgi_client::{FastcgiConnection, FastcgiRequest, FastcgiResponse},
    probe::{dedent, python},
    processes::pids,
    web_servers::eventually,
};

/// A pool that is to be started.
pub(crate) struct PoolSetup {
    program: PathBuf,
    directory: TempDir,
    args: Vec<OsString>,
    listen: Vec<String>,
    variables: Vec<(String, OsString)>,
    gate: Option<Gate>,
    own_interpreter: bool,
}

/// A pool that runs. Without [`Pool::stop`] or [`Pool::end`] it is killed.
pub(crate) struct Pool {
    running: RunningProcess,
    setup: PoolSetup,
}

impl PoolSetup {
    /// A pool of one worker for the application in `code`, which need not be indented to the left.
    pub(crate) fn new(code: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let listen = vec![format!("unix:{}", directory.path().join("app.sock").display())];
        let mark = directory.path().into();
        let setup = Self {
            program: artefacts::gateway().to_owned(),
            directory,
            args: Vec::new(),
            listen,
            variables: vec![("MARK".to_owned(), mark)],
            gate: None,
            own_interpreter: false,
        };
        setup.release(code);
        setup.args(&["--workers", "1"])
    }

    /// Lets wsgate choose the interpreter.
    pub(crate) fn own_interpreter(self) -> Self {
        Self { own_interpreter: true, ..self }
    }

    /// Sets another gateway than the one that was built.
    pub(crate) fn program(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Puts other code in the place of the application's.
    pub(crate) fn release(&self, code: &str) {
        let draft = self.path("app.draft");
        fs::write(&draft, dedent(code)).unwrap();
        fs::rename(draft, self.path("app.wsgi")).unwrap();
    }

    /// Adds options with their values; a later value of an option replaces the earlier one.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        for pair in args.chunks(2) {
            if let Some(known) = self.args.iter().position(|known| *known == pair[0]) {
                self.args.drain(known..known + 2);
            }
            self.args.extend(pair.iter().map(OsString::from));
        }
        self
    }

    /// A pool of a dynamic number of workers, in place of the one worker.
    pub(crate) fn dynamic(mut self, args: &[&str]) -> Self {
        self.args.drain(..2);
        self.args(args)
    }

    /// Sets the addresses to listen at.
    pub(crate) fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    /// A variable of the processes.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A gate, which the application knows as `GATE`.
    pub(crate) fn gated(mut self) -> Self {
        let gate = Gate::new(self.directory.path());
        let path = gate.path().to_owned();
        self.gate = Some(gate);
        self.variable("GATE", path)
    }

    /// Variables of the processes, as `NAME=VALUE`.
    pub(crate) fn assignments(&self) -> Vec<String> {
        let known = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string_lossy()));
        known.chain([format!("WSGATE_RUNTIME_DIR={}", self.path("run").display())]).collect()
    }

    /// A path beside the application.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// The command that starts the pool.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("fastcgi").args(&self.args);
        if !self.own_interpreter {
            command.arg("--python").arg(python());
        }
        for address in &self.listen {
            command.args(["--listen", address]);
        }
        if geteuid().is_root() && !self.args.iter().any(|word| word == "--user") {
            // Intended: without the option every test would log a warning.
            command.args(["--user", "root"]);
        }
        command
            .arg(self.path("app.wsgi"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("WSGATE_RUNTIME_DIR", self.path("run"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it, without waiting for anything.
    #[track_caller]
    pub(crate) fn launch(self) -> Pool {
        Pool { running: RunningProcess::start(&mut self.command()), setup: self }
    }

    /// Starts the pool with its error log on `log`.
    #[track_caller]
    pub(crate) fn launch_to(self, log: impl Into<OwnedFd>) -> Pool {
        let mut command = self.command();
        command.stderr(Stdio::from(log.into()));
        Pool { running: RunningProcess::start(&mut command), setup: self }
    }

    /// Starts it through a program that gets its command as last words and becomes it.
    #[track_caller]
    pub(crate) fn launch_by(self, args: &[&str]) -> Pool {
        let pool = self.command();
        let mut command = Command::new(args[0]);
        command.args(&args[1..]).arg(pool.get_program()).args(pool.get_args()).env_clear();
        command.envs(pool.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pool { running: RunningProcess::start(&mut command), setup: self }
    }

    /// Starts it by `command`, which is its own with more words, and waits until it serves.
    #[track_caller]
    pub(crate) fn launch_as(self, command: &mut Command) -> Pool {
        let mut pool = Pool { running: RunningProcess::start(command), setup: self };
        pool.await_log("W0710");
        pool
    }

    /// Starts it by `command`, whose log is elsewhere, and waits until somebody listens.
    #[track_caller]
    pub(crate) fn launch_quietly(self, command: &mut Command) -> Pool {
        let pool = Pool { running: RunningProcess::start(command), setup: self };
        eventually("the pool listens", || {
            std::os::unix::net::UnixStream::connect(pool.socket()).is_ok()
        });
        pool
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(self) -> Pool {
        let mut pool = self.launch();
        pool.await_log("W0710");
        pool
    }

    /// Starts it as process managers do: one worker, with `listener` on standard input.
    #[track_caller]
    pub(crate) fn start_on(mut self, listener: impl Into<OwnedFd>) -> Pool {
        self.listen.clear();
        let mut command = self.command();
        command.stdin(Stdio::from(listener.into()));
        Pool { running: RunningProcess::start(&mut command), setup: self }
    }
}

impl Pool {
    /// A connection to its Unix socket, or else its only address.
    #[track_caller]
    pub(crate) fn connect(&self) -> FastcgiConnection {
        if self.socket().exists() {
            FastcgiConnection::unix(&self.socket())
        } else {
            FastcgiConnection::tcp(&self.tcp_address())
        }
    }

    /// The address that its log tells, if that is of TCP.
    fn tcp_address(&self) -> String {
        self.log().split('`').nth(3).unwrap().to_owned()
    }

    /// How many connections are open that have been accepted from what [`Pool::connect`] connects
    /// to.
    pub(crate) fn accepted(&self) -> usize {
        // proc(5): one that waits to be accepted has no inode. State 3 is connected, and a
        // connection has the path of its listener.
        if self.socket().exists() {
            // The socket was bound under another name in the directory, and renamed when it was
            // ready.
            let directory = format!("{}/", self.setup.directory.path().display());
            let is_ours =
                |path: &str| path.strip_prefix(&directory).is_some_and(|name| !name.contains('/'));
            let lines = fs::read_to_string("/proc/net/unix").unwrap();
            let fields =
                lines.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
            return fields
                .filter(|fields| {
                    fields.last().is_some_and(|path| is_ours(path))
                        && fields[5] == "03"
                        && fields[6] != "0"
                })
                .count();
        }
        // State 1 is established.
        let address = self.tcp_address();
        let port = format!(":{:04X}", address.rsplit(':').next().unwrap().parse::<u16>().unwrap());
        let lines = fs::read_to_string("/proc/net/tcp").unwrap();
        let fields =
            lines.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        fields
            .filter(|fields| fields[1].ends_with(&port) && fields[3] == "01" && fields[9] != "0")
            .count()
    }

    /// The answer to a request over a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: &FastcgiRequest) -> FastcgiResponse {
        self.connect().ask(request)
    }

    /// The path of its Unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.setup.path("app.sock")
    }

    /// Its setup.
    pub(crate) fn setup(&self) -> &PoolSetup {
        &self.setup
    }

    /// Lets one request pass the gate.
    pub(crate) fn open_gate(&self) {
        self.setup.gate.as_ref().unwrap().open();
    }

    /// Waits until its log holds `word`.
    #[track_caller]
    pub(crate) fn await_log(&mut self, word: &str) {
        self.running.await_log(word);
    }

    /// Waits until its log holds `word` so many times.
    #[track_caller]
    pub(crate) fn await_times(&mut self, word: &str, times: usize) {
        self.running.await_log_times(word, times);
    }

    /// The content of the log.
    pub(crate) fn log(&self) -> String {
        self.running.log()
    }

    /// Runs `wsgate` as an administrator of this pool does, which is named `app`.
    pub(crate) fn run_wsgate(&self, args: &[&str]) -> ExitedProcess {
        let mut command = Command::new(artefacts::gateway());
        command.args(args).env_clear().env("WSGATE_RUNTIME_DIR", self.setup.path("run"));
        run(&mut command, "")
    }

    /// Sends the supervisor a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> i32 {
        self.running.pid().as_raw_nonzero().get()
    }

    /// A variable in the environment of every process of the pool.
    pub(crate) fn mark(&self) -> String {
        format!("MARK={}", self.setup.directory.path().display())
    }

    /// Its template, which there must be one of.
    #[track_caller]
    pub(crate) fn template(&self) -> i32 {
        let mut found = None;
        eventually("there is one template", || {
            found = if let [one] = children(self.pid())[..] { Some(one) } else { None };
            found.is_some()
        });
        found.unwrap()
    }

    /// Its workers, once there are `count` of them.
    #[track_caller]
    pub(crate) fn workers(&self, count: usize) -> Vec<i32> {
        let mut workers = Vec::new();
        eventually(&format!("there are {count} workers"), || {
            workers = children(self.pid()).into_iter().flat_map(children).collect();
            workers.len() == count
        });
        workers
    }

    /// Its workers, once `count` of them have loaded the application. With `--preload no` a worker
    /// is there before it has read the code that the test may be about to change.
    #[track_caller]
    pub(crate) fn loaded_workers(&self, count: usize) -> Vec<i32> {
        let mut workers = BTreeSet::new();
        eventually(&format!("{count} workers have loaded the application"), || {
            let ended = self.run_wsgate(&["status", "--json", "app"]);
            let status: serde_json::Value =
                serde_json::from_slice(&ended.stdout).unwrap_or_default();
            let threads = status["workers"].as_array().into_iter().flatten();
            let serving = threads.filter(|thread| thread["leaving"] == false);
            workers = serving.filter_map(|thread| thread["pid"].as_i64()).collect();
            workers.len() == count
        });
        workers.into_iter().map(|pid| i32::try_from(pid).unwrap()).collect()
    }

    /// Waits for its end, which something has brought about, and for that of all its processes.
    #[track_caller]
    pub(crate) fn end(self) -> ExitedProcess {
        self.end_and_leave().0
    }

    /// Like [`Pool::end`], and keeps the directory of the pool.
    #[track_caller]
    pub(crate) fn end_and_leave(self) -> (ExitedProcess, PoolSetup) {
        let Self { running, setup } = self;
        let ended = running.end();
        eventually("none of its processes is left", || marked(&setup).is_empty());
        (ended, setup)
    }

    /// Tells it to end and waits until it has, in good order.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.signal(Signal::TERM);
        let ended = self.end();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        ended.stderr
    }
}

/// Running processes of the pool, children of any parent.
pub(crate) fn marked(setup: &PoolSetup) -> Vec<i32> {
    let mark = format!("MARK={}", setup.directory.path().display());
    let has_mark = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids().filter(has_mark).collect()
}
