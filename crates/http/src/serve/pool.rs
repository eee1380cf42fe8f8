//! The pool behind the server: `wsgate fastcgi` with one worker.
//!
//! Each change of a file starts another pool with the new code. The old one finishes its requests.
//! Requests that arrive meanwhile wait in the accept queue of the new pool, so that no client sees
//! old code after a change.

use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStringExt as _, net::UnixListener},
    },
    path::PathBuf,
    process::Stdio,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::{spawn_local, yield_now},
    time::{sleep, timeout},
};
use wire::serve::ServeLaunch;

use crate::serve::{pool_log::PoolLog, socket_directory::SocketDirectory};

/// A pool that could not load the application is started again by a request after this time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long processes have to exit when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// How the pools of a server are started.
pub(super) struct AppPools {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The part of names of pools that is the same for all.
    name: String,
    directory: SocketDirectory,
    current: RefCell<Rc<AppPool>>,
    running: Rc<Cell<usize>>,
    /// The number of the current pool.
    number: watch::Sender<u64>,
    /// A file has changed, and the next pool is about to be started.
    is_restart_expected: Cell<bool>,
}

/// A pool with the code of one moment.
pub(super) struct AppPool {
    /// Its number among those of the server.
    pub(super) number: u64,
    /// The path of its socket.
    pub(super) socket: PathBuf,
    pid: Option<Pid>,
    started: Instant,
    log: Rc<PoolLog>,
    state: watch::Receiver<State>,
}

/// How far a pool has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Loading,
    Serving,
    Exited,
}

impl AppPools {
    /// Starts the first pool of a server at `port`.
    ///
    /// # Errors
    /// If the directory of sockets cannot be created.
    pub(super) fn start(launch: &ServeLaunch, port: u16) -> io::Result<Self> {
        let directory = SocketDirectory::create()?;
        let os_string = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let program = PathBuf::from(os_string(&launch.program));
        let arguments = launch.arguments.iter().map(os_string).collect();
        // A pool of an earlier server at this port may still finish its requests.
        let name = format!("serve-{port}-{}", std::process::id());
        let running = Rc::new(Cell::new(0));
        let first = AppPool::failed(0, format!("`{}` has not been started", program.display()));
        let pools = Self {
            program,
            arguments,
            name,
            directory,
            current: RefCell::new(Rc::new(first)),
            running,
            number: watch::Sender::new(0),
            is_restart_expected: Cell::new(false),
        };
        pools.restart();
        Ok(pools)
    }

    /// The pool for the next request: the newest one, when it serves or has failed. Its code has
    /// the changes of all files that were saved before.
    pub(super) async fn ready(&self) -> Rc<AppPool> {
        // The task that watches the files may wait for its turn, with a change not yet seen.
        yield_now().await;
        let is_restart_expected = self.is_restart_expected.get();
        let needed = *self.number.borrow() + u64::from(is_restart_expected);
        let current = self.current.borrow().clone();
        if !is_restart_expected && current.has_exited() && current.started.elapsed() >= RETRY_PAUSE
        {
            // The cause may have been something else than a watched file, such as a database.
            self.restart();
        }
        loop {
            let mut numbers = self.numbers();
            let current = self.current.borrow().clone();
            let mut state = current.state.clone();
            tokio::select! {
                _ = state.wait_for(|state| *state != State::Loading),
                    if current.number >= needed => return current,
                _ = numbers.changed() => {}
            }
        }
    }

    /// Has code been loaded since `pool` was started?
    pub(super) fn is_old(&self, pool: &Rc<AppPool>) -> bool {
        !Rc::ptr_eq(pool, &self.current.borrow())
    }

    /// The numbers of the pools: a new one comes with each change.
    pub(super) fn numbers(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// Lets requests wait for the next pool, which [`Self::restart`] starts in a moment.
    pub(super) fn expect_restart(&self) {
        self.is_restart_expected.set(true);
    }

    /// Starts a pool with the present code, and stops the present pool when its requests have
    /// ended.
    pub(super) fn restart(&self) {
        self.is_restart_expected.set(false);
        let number = *self.number.borrow() + 1;
        let pool = self.spawn(number).unwrap_or_else(|error| {
            AppPool::failed(number, format!("cannot start `{}`: {error}", self.program.display()))
        });
        let old = self.current.replace(Rc::new(pool));
        old.ask_to_stop();
        self.number.send_replace(number);
    }

    fn spawn(&self, number: u64) -> io::Result<AppPool> {
        let socket = self.directory.path().join(format!("{number}.sock"));
        // Connections can be made before the pool runs.
        let listener = UnixListener::bind(&socket)?;
        fcntl_setfd(&listener, FdFlags::empty())?;
        let mut child = Command::new(&self.program)
            .args(["fastcgi", &format!("--listen=fd:{}", listener.as_raw_fd())])
            .arg(format!("--name={}-{number}", self.name))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = Rc::new(PoolLog::default());
        let (sender, state) = watch::channel(State::Loading);
        let is_ready = {
            let sender = sender.clone();
            move || {
                sender.send_replace(State::Serving);
            }
        };
        let reading =
            child.stderr.take().map(|stderr| spawn_local(log.clone().read(stderr, is_ready)));
        let (running, path) = (self.running.clone(), socket.clone());
        running.set(running.get() + 1);
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        spawn_local(async move {
            await_exit(&mut child).await;
            if let Some(reading) = reading {
                // A process of the application may keep standard error open.
                let _ = timeout(Duration::from_millis(100), reading).await;
            }
            let _ = fs::remove_file(path);
            running.set(running.get() - 1);
            sender.send_replace(State::Exited);
        });
        Ok(AppPool { number, socket, pid, started: Instant::now(), log, state })
    }

    /// Stops all pools, within [`STOP_TIMEOUT`].
    pub(super) async fn stop(&self) {
        let pool = self.current.borrow().clone();
        pool.ask_to_stop();
        // A second signal stops everything at once, requests included.
        pool.ask_to_stop();
        let all_have_exited = async {
            while self.running.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // The kernel kills what is left when this process exits.
        let _ = timeout(STOP_TIMEOUT, all_have_exited).await;
    }
}

async fn await_exit(child: &mut Child) {
    // The error would be that of another process that has waited for the child.
    let _ = child.wait().await;
}

impl AppPool {
    /// A pool that never ran, for this reason.
    fn failed(number: u64, reason: String) -> Self {
        let (_, state) = watch::channel(State::Exited);
        let log = Rc::new(PoolLog::of(reason));
        Self { number, socket: PathBuf::new(), pid: None, started: Instant::now(), log, state }
    }

    fn has_exited(&self) -> bool {
        *self.state.borrow() == State::Exited
    }

    /// Why the pool does not serve; `None` if it does, or has not exited within `wait`.
    pub(super) async fn failure(&self, wait: Duration) -> Option<String> {
        let mut state = self.state.clone();
        let exit = timeout(wait, state.wait_for(|state| *state == State::Exited)).await;
        matches!(exit, Ok(Ok(_))).then(|| self.log.text())
    }

    fn ask_to_stop(&self) {
        if let Some(pid) = self.pid.filter(|_| !self.has_exited()) {
            // The process may have exited this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}
