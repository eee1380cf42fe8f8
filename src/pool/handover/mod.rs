//! What a supervisor hands over to the program that replaces it in an upgrade of wsgate.
//!
//! The process stays the same (execve(2)), so its children, its sockets and its number do, too. The
//! state is JSON in a file in memory, and names descriptors that the next program inherits. Both
//! programs may be of different builds: a missing field has its default, an unknown one is ignored,
//! and a change that another build cannot understand needs another [`VERSION`].
//!
//! Before that, a trial process of the next program receives the sockets and logs alone, loads the
//! application, and reports the result in another file.

mod draft;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::File,
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::{
            fs::FileExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::PathBuf,
};

use control::pool_status::PoolStatus;
use diagnostics::message::{Code, LogMessage};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use wire::connection_queue::{ConnectionHistory, ConnectionQueue, QueuedConnection};

pub(in crate::pool) use crate::pool::handover::draft::{Draft, Inheritance};
use crate::{
    exit::CommandError,
    pool::{
        address::Address, inherited_sockets::own, listeners::Listener, log_file::OpenLogs,
        unix_listener::SocketFile,
    },
};

/// Variable with the number of the state's descriptor. In a trial, `:` and the number of the
/// descriptor for the result follow.
pub(super) const VARIABLE: &str = "WSGATE_UPGRADE";

/// Version of the state.
const VERSION: u32 = 1;

/// Result of a successful trial.
pub(super) const READY: &str = "ready\n";

/// Maximum size of the state, and of the result of a trial, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The state of a pool that is handed over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Handover {
    version: u32,
    /// The addresses of `--listen`.
    pub(super) listen: Vec<Address>,
    /// The addresses that the pool was started with, which include passed sockets.
    pub(super) addresses: Vec<Address>,
    /// Name of the pool.
    pub(super) name: String,
    sockets: Vec<SocketState>,
    /// The socket of the status page.
    status_socket: Option<SocketState>,
    /// Both ends of the connection queue.
    queue: Option<(RawFd, RawFd)>,
    /// Both ends of the supervisor's side, if requests wait for a limited time.
    relay: Option<(RawFd, RawFd)>,
    /// Connections that the supervisor holds, each with its history.
    held: Vec<(RawFd, u8)>,
    logs: Vec<(PathBuf, RawFd)>,
    control: Option<ControlState>,
    templates: Vec<TemplateState>,
    /// Workers of these templates.
    pub(super) workers: Vec<HandedWorker>,
    /// Number of templates that were started.
    pub(super) started: u64,
    /// The status of the pool.
    pub(super) status: PoolStatus,
    /// Descriptors that were inherited, by their number in the previous program.
    #[serde(skip)]
    descriptors: BTreeMap<RawFd, OwnedFd>,
    /// Where a trial reports its result.
    #[serde(skip)]
    result: Option<File>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SocketState {
    descriptor: RawFd,
    address: Address,
    file: Option<SocketFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ControlState {
    listener: RawFd,
    path: PathBuf,
    /// Connections without a command.
    silent: Vec<RawFd>,
    /// Clients that wait for the end of the upgrade.
    waiting: Vec<RawFd>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TemplateState {
    pid: i32,
    generation: u64,
    channel: Option<RawFd>,
    gateway_pipe: RawFd,
}

/// A worker that is handed over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HandedWorker {
    pub(super) pid: i32,
    /// Generation of its template.
    pub(super) generation: u64,
    /// Milliseconds until the worker is killed, if it was asked to stop.
    pub(super) leaving: Option<u64>,
}

/// A template process that is handed over.
#[derive(Debug)]
pub(super) struct HandedTemplate {
    pub(super) pid: Pid,
    pub(super) generation: u64,
    pub(super) channel: Option<OwnedFd>,
    pub(super) gateway_pipe: OwnedFd,
    pub(super) workers: Vec<Pid>,
}

/// A control socket that is handed over.
#[derive(Debug)]
pub(super) struct HandedControl {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    /// Connections without a command.
    pub(super) silent: Vec<UnixStream>,
    /// Clients that wait for the end of the upgrade.
    pub(super) waiting: Vec<UnixStream>,
}

/// Reports to the previous program, if this one is that of an upgrade, why its arguments or its
/// configuration file are refused.
pub(crate) fn report_refusal(reason: &str) {
    if let Ok(Some(handover)) = Handover::from_environment() {
        handover.report(reason);
    }
}

impl Handover {
    /// The state that the previous program has handed over to this process, if there was one. Call
    /// this before opening any file: a number could be a file descriptor of this program.
    ///
    /// # Errors
    /// If the state cannot be read, or this program does not understand it.
    pub(super) fn from_environment() -> Result<Option<Self>, CommandError> {
        let Some(value) = env::var_os(VARIABLE) else { return Ok(None) };
        let value = value.to_string_lossy();
        let (state, result) = match value.split_once(':') {
            Some((state, result)) => (state.parse().ok(), Some(result.parse().ok())),
            None => (value.parse().ok(), None),
        };
        let (Some(state), false) = (state, result == Some(None)) else {
            let sentence = format!("{VARIABLE} is `{value}`, which names no descriptor");
            return Err(refused(sentence, "unset the variable, which wsgate sets for itself"));
        };
        let mut files = own(&BTreeSet::from_iter([state].into_iter().chain(result.flatten())))?;
        let file = files.remove(&state).map(File::from);
        let mut handover = file
            .ok_or_else(|| io::Error::other("its descriptor is missing"))
            .and_then(|file| Self::read(&file))
            .map_err(|error| {
                refused(format!("cannot read the state of the pool: {error}"), RESTART)
            })?;
        handover.result = result.flatten().and_then(|number| files.remove(&number)).map(File::from);
        handover.descriptors = own(&handover.numbers())?;
        Ok(Some(handover))
    }

    fn read(file: &File) -> io::Result<Self> {
        let state: Self = serde_json::from_slice(&contents(file)?)?;
        if state.version != VERSION {
            return Err(io::Error::other(format!(
                "it has version {}, and this build of wsgate reads version {VERSION}",
                state.version
            )));
        }
        Ok(state)
    }

    /// The numbers of all descriptors.
    fn numbers(&self) -> BTreeSet<RawFd> {
        let mut numbers: BTreeSet<RawFd> = self
            .sockets
            .iter()
            .chain(&self.status_socket)
            .map(|socket| socket.descriptor)
            .collect();
        let queues = self.queue.iter().chain(&self.relay);
        numbers.extend(queues.flat_map(|(push, pop)| [*push, *pop]));
        numbers.extend(self.held.iter().map(|(socket, _)| *socket));
        numbers.extend(self.logs.iter().map(|(_, file)| *file));
        numbers.extend(self.control.iter().flat_map(|control| {
            let clients = control.silent.iter().chain(&control.waiting);
            clients.copied().chain([control.listener])
        }));
        numbers.extend(
            self.templates
                .iter()
                .flat_map(|template| template.channel.into_iter().chain([template.gateway_pipe])),
        );
        numbers
    }

    fn take(&mut self, number: RawFd) -> Result<OwnedFd, CommandError> {
        let found = self.descriptors.remove(&number);
        found.ok_or_else(|| refused(format!("descriptor `{number}` is named twice"), RESTART))
    }

    /// Is this process a trial?
    pub(super) fn is_trial(&self) -> bool {
        self.result.is_some()
    }

    /// Reports the result of a trial.
    pub(super) fn report(&self, result: &str) {
        // Without a result, the previous program keeps serving.
        let _ = self.result.as_ref().map(|file| file.write_all_at(result.as_bytes(), 0));
    }

    /// Checks that what an upgrade keeps was not changed in the configuration.
    ///
    /// # Errors
    /// If it was.
    pub(super) fn check(
        &self,
        listen: &[Address],
        name: &str,
        is_lone_worker: bool,
    ) -> Result<(), CommandError> {
        let changed = match () {
            () if self.listen != listen => "--listen has changed",
            () if self.name != name => "the name of the pool has changed",
            () if is_lone_worker => "the pool is to be a single process",
            () => return Ok(()),
        };
        Err(refused(format!("{changed}, which an upgrade cannot do"), RESTART))
    }

    /// The listening sockets.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(super) fn listeners(&mut self) -> Result<Vec<Listener>, CommandError> {
        let sockets = std::mem::take(&mut self.sockets);
        sockets.into_iter().map(|socket| self.listener(socket)).collect()
    }

    /// The listening socket of the status page, if the pool has one. `configured` is the address of
    /// `--status-listen`.
    ///
    /// # Errors
    /// If a descriptor is missing, or the address has changed.
    pub(super) fn status_listener(
        &mut self,
        configured: Option<&Address>,
    ) -> Result<Option<Listener>, CommandError> {
        let socket = self.status_socket.take();
        let is_same = match (&socket, configured) {
            (Some(socket), Some(Address::Unix(_))) => Some(&socket.address) == configured,
            // The kernel may have chosen the port.
            (Some(socket), Some(_)) => matches!(socket.address, Address::Tcp(_)),
            (socket, configured) => socket.is_some() == configured.is_some(),
        };
        if !is_same {
            let sentence = "--status-listen has changed, which an upgrade cannot do";
            return Err(refused(sentence.to_owned(), RESTART));
        }
        socket.map(|socket| self.listener(socket)).transpose()
    }

    fn listener(&mut self, socket: SocketState) -> Result<Listener, CommandError> {
        // The pool that goes on removes the file, not its trial.
        let file = socket.file.filter(|_| !self.is_trial());
        Ok(Listener::handed_over(self.take(socket.descriptor)?, socket.address, file))
    }

    /// The connection queue. If `is_limited`, with the supervisor's side of it.
    ///
    /// # Errors
    /// If there is another kind of queue.
    pub(super) fn queue(
        &mut self,
        is_limited: bool,
    ) -> Result<(ConnectionQueue, Option<ConnectionQueue>), CommandError> {
        let (Some(workers), true) = (self.queue.take(), self.relay.is_some() == is_limited) else {
            let sentence = "--queue or --queue-length was added or removed, which an upgrade \
                cannot do";
            return Err(refused(sentence.to_owned(), RESTART));
        };
        let relay = self.relay.take();
        let mut own = |(push, pop)| {
            Ok::<_, CommandError>(ConnectionQueue::from_ends(self.take(push)?, self.take(pop)?))
        };
        Ok((own(workers)?, relay.map(own).transpose()?))
    }

    /// The connections that the supervisor holds.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(super) fn held(&mut self) -> Result<Vec<QueuedConnection>, CommandError> {
        let held = std::mem::take(&mut self.held).into_iter();
        let held = held.map(|(socket, history)| {
            let history = ConnectionHistory::from_byte(history);
            Ok(QueuedConnection { socket: self.take(socket)?, history })
        });
        held.collect()
    }

    /// The open logs.
    pub(super) fn logs(&mut self) -> OpenLogs {
        let logs = std::mem::take(&mut self.logs).into_iter();
        logs.filter_map(|(path, number)| Some((path, self.descriptors.remove(&number)?))).collect()
    }

    /// The control socket, if the pool has one.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(super) fn control(&mut self) -> Result<Option<HandedControl>, CommandError> {
        let Some(control) = self.control.take() else { return Ok(None) };
        let mut streams = |numbers: Vec<RawFd>| {
            let streams = numbers.into_iter().map(|number| Ok(self.take(number)?.into()));
            streams.collect::<Result<Vec<UnixStream>, CommandError>>()
        };
        Ok(Some(HandedControl {
            silent: streams(control.silent)?,
            waiting: streams(control.waiting)?,
            listener: self.take(control.listener)?.into(),
            path: control.path,
        }))
    }

    /// The template processes.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(super) fn templates(&mut self) -> Result<Vec<HandedTemplate>, CommandError> {
        let states = std::mem::take(&mut self.templates);
        let templates =
            states.into_iter().filter_map(|state| Some((Pid::from_raw(state.pid)?, state)));
        let templates = templates.map(|(pid, state)| {
            let workers = self.workers.iter().filter(|it| it.generation == state.generation);
            let workers = workers.filter_map(|worker| Pid::from_raw(worker.pid)).collect();
            Ok(HandedTemplate {
                pid,
                generation: state.generation,
                channel: state.channel.map(|channel| self.take(channel)).transpose()?,
                gateway_pipe: self.take(state.gateway_pipe)?,
                workers,
            })
        });
        templates.collect()
    }
}

/// The next step if an upgrade is impossible.
const RESTART: &str = "restart the pool instead";

fn refused(sentence: String, hint: &str) -> CommandError {
    CommandError::settings(LogMessage::new(Code::UpgradeFailed, sentence).hint(hint))
}

/// The contents of a file in memory.
///
/// # Errors
/// If the file cannot be read, or is too large.
pub(super) fn contents(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > MAX_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
