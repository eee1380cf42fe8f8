//! Owner of the pool's control interfaces: control socket, service manager, and clients that wait
//! for a result.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    rc::Rc,
    time::{Duration, Instant},
};

use control::{
    pool_status::PoolStatus,
    protocol::{ControlCommand, ReloadResult},
};
use diagnostics::{log_style, message::LogMessage};
use rustix::event::PollFd;
use wire::running_clock;

use crate::{
    pool::{
        control_socket::ControlSocket,
        handover::{Draft, HandedControl},
        notify::{ManagedState, Notifier},
        supervisor::{action::Action, lifecycle::Event},
    },
    system::command_line::show_title,
};

/// Maximum number of clients that wait for the end of a reload or of the pool. Above the limit, the
/// oldest is disconnected.
const MAX_WAITING_CLIENTS: usize = 256;

/// How long the result of a reload may wait until no older worker takes requests.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Control interfaces of a pool.
pub(super) struct Control {
    name: String,
    /// `None` if the socket could not be created.
    socket: Option<ControlSocket>,
    notifier: Notifier,
    /// Clients whose status is due in this turn.
    status_clients: Vec<UnixStream>,
    /// Clients that wait for the end of a reload.
    reload_clients: Vec<UnixStream>,
    /// New code serves; clients learn that when no older worker takes requests, or at this time.
    loaded: Option<(ReloadResult, Instant)>,
    /// Clients that wait for the end of an upgrade.
    upgrade_clients: Vec<UnixStream>,
    /// Clients that wait for the end of the pool. Closing the connection is the response.
    stop_clients: Vec<UnixStream>,
}

impl Control {
    /// Control interfaces of the pool `name`, which stops within `stop_limit`, without a control
    /// socket yet.
    pub(super) fn new(name: String, stop_limit: Duration) -> Self {
        Self {
            name,
            socket: None,
            notifier: Notifier::from_environment(stop_limit),
            status_clients: Vec::new(),
            reload_clients: Vec::new(),
            loaded: None,
            upgrade_clients: Vec::new(),
            stop_clients: Vec::new(),
        }
    }

    /// Continues the reload of the previous program, with its control socket and its clients.
    pub(super) fn take_over(&mut self, handed: Option<HandedControl>) {
        self.notifier.continue_reload();
        if let Some(handed) = handed {
            let (socket, waiting) = ControlSocket::handed_over(handed);
            (self.socket, self.reload_clients) = (Some(socket), waiting);
        }
    }

    /// Adds the control socket and the clients that wait for an upgrade to `draft`.
    pub(super) fn hand_over<'a>(&'a self, draft: &mut Draft<'a>) {
        self.socket.iter().for_each(|socket| socket.hand_over(draft, &self.upgrade_clients));
    }

    /// Does no client wait for a status, or for the rest of one?
    pub(super) fn has_answered(&self) -> bool {
        let has_answered = self.socket.as_ref().is_none_or(ControlSocket::has_answered);
        has_answered && self.status_clients.is_empty()
    }

    /// Shows what this process is in place of its command line, and creates the control socket, if
    /// there is none. Returns a log message if that fails: the pool serves without it.
    pub(super) fn open(&mut self) -> Option<LogMessage> {
        show_title(&format!("wsgate: pool {}, supervisor", log_style::get().pool));
        if self.socket.is_some() {
            return None;
        }
        match ControlSocket::create(&self.name) {
            Ok(socket) => {
                self.socket = Some(socket);
                None
            }
            Err(message) => Some(message),
        }
    }

    /// Name of the pool.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Renames the pool, while its socket is still found.
    pub(super) fn rename(&mut self, name: String) {
        if self.socket.as_mut().is_some_and(|socket| socket.rename(&name).is_ok()) {
            self.name = name;
        }
    }

    /// The pool stops within `stop_limit` from now on.
    pub(super) fn set_stop_limit(&mut self, stop_limit: Duration) {
        self.notifier.set_stop_limit(stop_limit);
    }

    /// Reads the commands that have arrived.
    pub(super) fn poll(&mut self, mut is_stopping: bool) -> Vec<Action> {
        let Some(socket) = &mut self.socket else { return Vec::new() };
        socket.send_answers();
        let mut actions = Vec::new();
        let mut reloads = false;
        for (command, client) in socket.commands() {
            match command {
                ControlCommand::Status => self.status_clients.push(client),
                ControlCommand::Processes => actions.push(Action::AskForStacks(client, None)),
                ControlCommand::Stacks(pid) => {
                    actions.push(Action::AskForStacks(client, Some(pid)));
                }
                // The pool closes the connection, which is the response.
                ControlCommand::Reload if is_stopping => {}
                ControlCommand::Reload => {
                    push_bounded(&mut self.reload_clients, client);
                    reloads = true;
                }
                ControlCommand::Upgrade if is_stopping => {}
                ControlCommand::Upgrade => {
                    push_bounded(&mut self.upgrade_clients, client);
                    actions.push(Action::Upgrade);
                }
                ControlCommand::Stop => {
                    push_bounded(&mut self.stop_clients, client);
                    is_stopping = true;
                    actions.push(Action::Raise(Event::Stop));
                }
            }
        }
        actions.extend(reloads.then_some(Action::Raise(Event::Reload)));
        actions
    }

    /// Does a client wait for the status?
    pub(super) fn wants_status(&self) -> bool {
        !self.status_clients.is_empty()
    }

    /// Sends the status to all clients that wait for it.
    pub(super) fn send_status(&mut self, status: &PoolStatus) {
        // The types of a status cannot make serialization fail.
        let text: Rc<str> = serde_json::to_string(status).unwrap_or_default().into();
        if let Some(socket) = &mut self.socket {
            for client in self.status_clients.drain(..) {
                socket.answer(client, text.clone());
            }
        }
    }

    /// Sends `text` to a client.
    pub(super) fn answer(&mut self, client: UnixStream, text: &str) {
        if let Some(socket) = &mut self.socket {
            socket.answer(client, text.into());
        }
    }

    /// Announces a reload to the service manager.
    pub(super) fn announce_reload(&mut self) {
        self.notifier.announce_reload();
    }

    /// New code serves, and older workers are replaced from now on.
    pub(super) fn begin_replacement(&mut self, note: String) {
        let due = running_clock::instant() + REPLACE_TIMEOUT;
        self.loaded = Some((ReloadResult::Done(note), due));
    }

    /// Code is loaded again: its result is that of a reload whose workers are being replaced, too.
    pub(super) fn begin_load(&mut self) {
        self.loaded = None;
    }

    /// Are older workers being replaced?
    pub(super) fn is_replacing(&self) -> bool {
        self.loaded.is_some()
    }

    /// Reports that new code serves, unless a worker `has_older` code. A worker may hang.
    pub(super) fn end_replacement(&mut self, has_older: impl FnOnce() -> bool) {
        let now = running_clock::instant();
        if let Some((result, _)) = self.loaded.take_if(|(_, due)| *due <= now || !has_older()) {
            self.report_load(&result);
        }
    }

    /// Reports the result of a reload, or of the first load, to the service manager and to clients.
    pub(super) fn report_load(&mut self, result: &ReloadResult) {
        self.notifier.announce_reloaded(matches!(result, ReloadResult::Done(_)));
        report(&mut self.reload_clients, result);
    }

    /// Reports that an upgrade has failed, for `reason`.
    pub(super) fn report_failed_upgrade(&mut self, reason: String) {
        self.notifier.announce_reloaded(false);
        report(&mut self.upgrade_clients, &ReloadResult::Failed(reason));
    }

    /// Disconnects the clients that wait for an upgrade.
    pub(super) fn cancel_upgrade(&mut self) {
        self.upgrade_clients.clear();
    }

    /// Tells the service manager what has changed.
    pub(super) fn update(&mut self, state: ManagedState) -> Option<Action> {
        self.notifier.update(state).map(Action::Log)
    }

    /// File descriptors to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.socket.iter().flat_map(ControlSocket::watched)
    }

    /// Time of the next timeout or watchdog message.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let socket = self.socket.as_ref().and_then(ControlSocket::next_due);
        let loaded = self.loaded.as_ref().map(|(_, due)| *due);
        socket.into_iter().chain(self.notifier.next_due()).chain(loaded).min()
    }
}

fn report(clients: &mut Vec<UnixStream>, result: &ReloadResult) {
    for mut client in clients.drain(..) {
        // A line always fits into the socket's buffer. The client may have disconnected.
        let _ = client.write_all(result.line().as_bytes());
    }
}

fn push_bounded(clients: &mut Vec<UnixStream>, client: UnixStream) {
    if clients.len() == MAX_WAITING_CLIENTS {
        clients.remove(0);
    }
    clients.push(client);
}
