//! What the monitor knows of the pools: their last status, and samples of the last minutes.
//!
//! Any number of requests asks each pool at most once a second, and never twice at the same time.
//! A pool that does not answer at once does not delay the others: its answer counts when it comes.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use control::{
    pool_error::PoolError,
    pool_status::{PoolStatus, WorkerStatus},
    process_stacks::ProcessStacks,
    sockets::PoolSocket,
    user_name::UserNames,
};
use diagnostics::{escape::Escaped, shorten::shorten};
use tokio::{
    sync::{Mutex, Notify},
    task::{JoinHandle, spawn_blocking, spawn_local},
    time::{Instant, timeout_at},
};

use crate::{
    cpu_time::CpuTime,
    history::{History, Sample},
    pool_query::{Budget, QueryError, stacks, status},
};

/// Time between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// How long an answer of a pool is passed on.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// How long a request waits for the answers of pools.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Maximum length of a shown error in bytes.
const MAX_ERROR_BYTES: usize = 300;

/// A request to a pool that has no answer yet. There is at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Status,
    Stacks,
}

/// What is known of one pool.
#[derive(Default)]
pub(crate) struct PoolRecord {
    latest: Option<Rc<PoolStatus>>,
    /// Name of the pool's user, or the number of a user without a name.
    user: String,
    /// The process at the other end of the last connection: the supervisor.
    supervisor: Option<i32>,
    /// Why the last request has no answer.
    failure: Option<String>,
    failures: u64,
    pending: Option<Pending>,
    history: History,
    cpu: CpuTime,
}

impl PoolRecord {
    /// The status, if the pool has answered the last request.
    pub(crate) fn status(&self) -> Option<&PoolStatus> {
        self.latest.as_deref().filter(|_| self.failure.is_none())
    }

    /// Name of the pool's user, or the number of a user without a name.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Is this the pool `name` or `USER/NAME`?
    pub(crate) fn is_named(&self, socket: &PoolSocket, name: &[u8]) -> bool {
        let pool = socket.name().as_bytes();
        pool == name || [self.user.as_bytes(), b"/", pool].concat() == name
    }

    /// Why the last request has no answer.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// How often the pool has stopped answering.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// The samples of the last minutes.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Processor time of the pool's workers, as far as this monitor has seen it.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.cpu.total()
    }

    fn fail(&mut self, error: &PoolError) {
        if self.failure.is_none() {
            self.failures += 1;
        }
        let reason = format!("{error}; {}", error.hint());
        self.failure = Some(shorten(&Escaped(&reason).to_string(), MAX_ERROR_BYTES).into_owned());
    }
}

/// The pools by their control sockets.
pub(crate) type PoolRecords = BTreeMap<PoolSocket, PoolRecord>;

/// What a search finds, or why it finds nothing.
type Found = Result<(Vec<PoolSocket>, UserNames), String>;

/// All pools that this user may see.
#[derive(Default)]
pub(crate) struct Pools {
    records: RefCell<PoolRecords>,
    /// Names of the pools' users.
    users: RefCell<UserNames>,
    /// Why no pools can be found.
    search_failure: RefCell<Option<String>>,
    /// The search that is running: a directory of another user may hang.
    search: RefCell<Option<JoinHandle<Found>>>,
    /// Changes with every change of the records.
    version: Cell<u64>,
    refreshed: Cell<Option<Instant>>,
    turn: Mutex<()>,
    answered: Notify,
}

impl Pools {
    /// Looks at what is known. The number changes when the records change.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&PoolRecords, u64) -> T) -> T {
        look(&self.records.borrow(), self.version.get())
    }

    /// Why no pools can be found.
    pub(crate) fn search_failure(&self) -> Option<String> {
        self.search_failure.borrow().clone()
    }

    /// Asks all pools, unless that was done a moment ago.
    pub(crate) async fn refresh(self: &Rc<Self>) {
        let _turn = self.turn.lock().await;
        let begun = Instant::now();
        if self.refreshed.get().is_some_and(|last| begun.duration_since(last) < CACHE_TIME) {
            return;
        }
        let due = begun + ANSWER_WAIT;
        self.search(due).await;
        let asked = self.ask();
        while self.is_awaited(&asked) && timeout_at(due, self.answered.notified()).await.is_ok() {}
        let mut records = self.records.borrow_mut();
        for (socket, record) in records.iter_mut() {
            if record.pending == Some(Pending::Status) {
                record.fail(&PoolError::silent(socket.name(), record.supervisor));
            }
        }
        self.version.update(|version| version + 1);
        self.refreshed.set(Some(begun));
    }

    /// Asks the pool `name` or `USER/NAME` for the Python stacks of its worker `pid`; `None` if the
    /// last status has no such worker.
    pub(crate) async fn stacks(
        self: &Rc<Self>,
        name: &[u8],
        pid: i32,
    ) -> Option<Result<ProcessStacks, String>> {
        self.refresh().await;
        let socket = {
            let mut records = self.records.borrow_mut();
            let (socket, record) = records.iter_mut().find(|(socket, record)| {
                let mut workers = record.status().into_iter().flat_map(|status| &status.workers);
                record.is_named(socket, name) && workers.any(|worker| worker.pid == pid)
            })?;
            if record.pending.is_some() {
                return Some(Err("the pool is being asked; try again".to_owned()));
            }
            record.pending = Some(Pending::Stacks);
            socket.clone()
        };
        let pools = self.clone();
        // The task ends also if the client has disconnected.
        let asked = spawn_local(async move {
            let answer = stacks(&socket, pid).await;
            if let Some(record) = pools.records.borrow_mut().get_mut(&socket) {
                record.pending = None;
            }
            let mut stacks = answer.map_err(|error| match error {
                QueryError::Absent => "the pool has ended".to_owned(),
                QueryError::Failed(error) => format!("{error}; {}", error.hint()),
            })?;
            let threads = stacks.threads.iter_mut();
            without_queries(threads.filter_map(|thread| thread.status.as_mut()));
            Ok(stacks)
        });
        asked.await.ok()
    }

    /// Adds a sample of each pool to its history.
    pub(crate) async fn sample(self: &Rc<Self>) {
        self.refresh().await;
        for record in self.records.borrow_mut().values_mut() {
            let sample = record.status().map(Sample::of);
            record.history.push(sample);
        }
        self.version.update(|version| version + 1);
    }

    /// Searches the sockets of pools, until `due`. A search that takes longer goes on.
    async fn search(&self, due: Instant) {
        let running = self.search.borrow_mut().take();
        let mut search = running.unwrap_or_else(|| {
            spawn_blocking(|| {
                let sockets = PoolSocket::find_all().map_err(|error| error.to_string())?;
                Ok((sockets, UserNames::read()))
            })
        });
        match timeout_at(due, &mut search).await {
            Ok(Ok(Ok((sockets, users)))) => {
                *self.users.borrow_mut() = users;
                *self.search_failure.borrow_mut() = None;
                self.keep_only(sockets);
            }
            Ok(Ok(Err(error))) => {
                *self.search_failure.borrow_mut() = Some(error);
                self.keep_only(Vec::new());
            }
            // The next search finds out more.
            Ok(Err(_)) => {}
            Err(_) => *self.search.borrow_mut() = Some(search),
        }
    }

    fn keep_only(&self, sockets: Vec<PoolSocket>) {
        let mut records = self.records.borrow_mut();
        let mut before = std::mem::take(&mut *records);
        *records = sockets
            .into_iter()
            .map(|socket| {
                let mut record = before.remove(&socket).unwrap_or_default();
                record.user = self.users.borrow().name(socket.owner());
                (socket, record)
            })
            .collect();
    }

    /// Asks each pool that has no request pending. Returns the pools that were asked.
    fn ask(self: &Rc<Self>) -> Vec<PoolSocket> {
        let mut asked = Vec::new();
        let mut budgets: BTreeMap<u32, Rc<Budget>> = BTreeMap::new();
        let mut records = self.records.borrow_mut();
        for (socket, record) in records.iter_mut().filter(|(_, record)| record.pending.is_none()) {
            record.pending = Some(Pending::Status);
            asked.push(socket.clone());
            let budget = budgets.entry(socket.owner()).or_default().clone();
            let (pools, socket) = (self.clone(), socket.clone());
            spawn_local(async move {
                let note_peer = |pid| {
                    if let Some(record) = pools.records.borrow_mut().get_mut(&socket) {
                        record.supervisor = Some(pid);
                    }
                };
                let answer = status(&socket, &budget, note_peer).await;
                pools.note(&socket, answer);
            });
        }
        asked
    }

    fn is_awaited(&self, asked: &[PoolSocket]) -> bool {
        let records = self.records.borrow();
        asked
            .iter()
            .any(|socket| records.get(socket).is_some_and(|record| record.pending.is_some()))
    }

    fn note(&self, socket: &PoolSocket, answer: Result<PoolStatus, QueryError>) {
        let mut records = self.records.borrow_mut();
        let Some(record) = records.get_mut(socket) else { return };
        record.pending = None;
        match answer {
            Ok(mut status) => {
                // A pool of another user may claim anything.
                socket.name().clone_into(&mut status.name);
                status.user.clone_from(&record.user);
                status.directory = socket.directory().to_string_lossy().into_owned();
                record.cpu.add(&status);
                without_queries(&mut status.workers);
                record.latest = Some(Rc::new(status));
                record.failure = None;
            }
            Err(QueryError::Absent) => {
                records.remove(socket);
            }
            Err(QueryError::Failed(error)) => record.fail(&error),
        }
        drop(records);
        self.version.update(|version| version + 1);
        self.answered.notify_waiters();
        self.answered.notify_one();
    }
}

/// Removes the queries of requests, which may hold secrets: the monitor shows them to others than
/// the pool's user.
fn without_queries<'a>(workers: impl IntoIterator<Item = &'a mut WorkerStatus>) {
    for request in workers.into_iter().filter_map(|worker| worker.request.as_mut()) {
        let path_end = request.target.find('?').unwrap_or(request.target.len());
        request.target.truncate(path_end);
    }
}
