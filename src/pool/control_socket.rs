//! Server side of the control socket, for the pool's own user and for root.
//!
//! The socket is in the user's runtime directory, and the peer's user is checked, too. The
//! supervisor never blocks on a client: a command is one short line, and a response is sent as fast
//! as the client reads, for [`ANSWER_TIMEOUT`] at most.

use std::{
    fmt::Display,
    fs, io,
    io::{Read as _, Write as _},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use control::protocol::{ControlCommand, MAX_LINE_BYTES, SOCKET_SUFFIX, connect_within};
use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::sockopt,
    process::geteuid,
};

use crate::{
    pool::handover::{Draft, HandedControl},
    system::runtime_directory::{
        RuntimeDirectoryError, {self},
    },
};

/// Maximum number of connections without a command. Above the limit, the oldest is closed.
const MAX_SILENT_CONNECTIONS: usize = 64;

/// Maximum number of responses that are being sent. Above the limit, the oldest is cut.
const MAX_PENDING_ANSWERS: usize = 64;

/// How long a client may take to read its response.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections that are accepted in one turn of the supervisor's loop.
const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Pause before the next accept after file descriptors ran out. A new pool also waits this long for
/// an older pool with its name.
const PAUSE: Duration = Duration::from_secs(1);

/// The control socket of a pool.
pub(super) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Connections that have sent no command yet.
    silent: Vec<UnixStream>,
    answers: Vec<PendingAnswer>,
    /// End of the pause after file descriptors ran out.
    pause_end: Option<Instant>,
}

/// Response that is being sent.
struct PendingAnswer {
    stream: UnixStream,
    text: Rc<str>,
    sent: usize,
    due: Instant,
}

impl ControlSocket {
    /// Creates the control socket of the pool `name`.
    ///
    /// # Errors
    /// The log message: the runtime directory is unusable, or a pool with this name is running.
    pub(super) fn create(name: &str) -> Result<Self, LogMessage> {
        let path = path_of(name).map_err(|error| not_created(&error, error.hint()))?;
        // A pool whose accept queue is full is running, too.
        if matches!(connect_within(&path, PAUSE), Ok(_) | Err(Errno::AGAIN)) {
            return Err(not_created(
                &format!("a pool named `{name}` is already running"),
                "give this pool another name with --name",
            ));
        }
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        // A file of this name can only be a leftover of a process that had our pid.
        let _ = fs::remove_file(&draft);
        let listener = (|| {
            let listener = UnixListener::bind(&draft)?;
            listener.set_nonblocking(true)?;
            fs::rename(&draft, &path)?;
            Ok(listener)
        })();
        match listener {
            Ok(listener) => Ok(Self {
                listener,
                path,
                silent: Vec::new(),
                answers: Vec::new(),
                pause_end: None,
            }),
            Err(error) => {
                let error: io::Error = error;
                let _ = fs::remove_file(&draft);
                Err(not_created(
                    &format!("`{}`: {error}", path.display()),
                    "check the directory and its file system, or set WSGATE_RUNTIME_DIR to \
                     another directory with a short path",
                ))
            }
        }
    }

    /// The control socket of the previous program.
    pub(super) fn handed_over(handed: HandedControl) -> (Self, Vec<UnixStream>) {
        let socket = Self {
            listener: handed.listener,
            path: handed.path,
            silent: handed.silent,
            answers: Vec::new(),
            pause_end: None,
        };
        (socket, handed.waiting)
    }

    /// Adds the socket to `draft`, with the clients `waiting` for the end of an upgrade.
    pub(super) fn hand_over<'a>(&'a self, draft: &mut Draft<'a>, waiting: &'a [UnixStream]) {
        draft.add_control(&self.listener, &self.path, &self.silent, waiting);
    }

    /// Have all responses been sent?
    pub(super) fn has_answered(&self) -> bool {
        self.answers.is_empty()
    }

    /// Renames the pool.
    ///
    /// # Errors
    /// If the socket's file cannot be renamed.
    pub(super) fn rename(&mut self, name: &str) -> anyhow::Result<()> {
        let path = path_of(name)?;
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// File descriptors to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let is_pausing = self.pause_end.is_some_and(|end| Instant::now() < end);
        let readers =
            self.silent.iter().map(AsFd::as_fd).chain((!is_pausing).then(|| self.listener.as_fd()));
        let readers = readers.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        readers.chain(self.answers.iter().map(|answer| PollFd::new(&answer.stream, PollFlags::OUT)))
    }

    /// Time of the next timeout.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let pause = self.pause_end.filter(|end| *end > Instant::now());
        self.answers.iter().map(|answer| answer.due).chain(pause).min()
    }

    /// Sends `text` to a client, without blocking.
    pub(super) fn answer(&mut self, stream: UnixStream, text: Rc<str>) {
        if self.answers.len() == MAX_PENDING_ANSWERS {
            self.answers.remove(0);
        }
        let due = Instant::now() + ANSWER_TIMEOUT;
        self.answers.push(PendingAnswer { stream, text, sent: 0, due });
        self.send_answers();
    }

    /// Sends the rest of pending responses without blocking.
    pub(super) fn send_answers(&mut self) {
        let now = Instant::now();
        self.answers.retain_mut(|answer| answer.due > now && answer.send());
    }

    /// Commands that have arrived, each with the connection for the response.
    pub(super) fn commands(&mut self) -> Vec<(ControlCommand, UnixStream)> {
        let mut commands = Vec::new();
        self.accept(&mut commands);
        self.read_into(&mut commands);
        commands
    }

    fn accept(&mut self, commands: &mut Vec<(ControlCommand, UnixStream)>) {
        for _ in 0..MAX_ACCEPTS_PER_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Probably no file descriptor is free. Closing a silent connection frees a file
                // descriptor.
                Err(_) if self.silent.is_empty() => {
                    self.pause_end = Some(Instant::now() + PAUSE);
                    return;
                }
                Err(_) => {
                    self.silent.remove(0);
                    continue;
                }
            };
            let peer = sockopt::socket_peercred(&stream).map(|peer| peer.uid);
            let is_allowed = peer.is_ok_and(|uid| uid == geteuid() || uid.is_root());
            if is_allowed && stream.set_nonblocking(true).is_ok() {
                if self.silent.len() == MAX_SILENT_CONNECTIONS {
                    // Clients that have sent a command are not silent: read before closing one.
                    self.read_into(commands);
                }
                if self.silent.len() == MAX_SILENT_CONNECTIONS {
                    self.silent.remove(0);
                }
                self.silent.push(stream);
            }
        }
    }

    fn read_into(&mut self, commands: &mut Vec<(ControlCommand, UnixStream)>) {
        for mut stream in std::mem::take(&mut self.silent) {
            let mut line = [0; MAX_LINE_BYTES];
            match stream.read(&mut line) {
                Ok(length) => {
                    let command = ControlCommand::from_line(&line[..length]);
                    commands.extend(command.map(|command| (command, stream)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.silent.push(stream),
                Err(_) => {}
            }
        }
    }
}

impl PendingAnswer {
    /// Sends as much as possible without blocking. Returns whether a rest is left.
    fn send(&mut self) -> bool {
        while self.sent < self.text.len() {
            match self.stream.write(&self.text.as_bytes()[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Somebody else may have removed the file already.
        let _ = fs::remove_file(&self.path);
    }
}

/// The log message about a control socket that could not be created, with a hint for the cause.
fn not_created(reason: &dyn Display, hint: &str) -> LogMessage {
    LogMessage::new(Code::NoControlSocket, format!("cannot create the control socket: {reason}"))
        .hint(format!("{hint}; without the socket, SIGHUP reloads the pool and SIGTERM stops it"))
}

fn path_of(name: &str) -> Result<PathBuf, RuntimeDirectoryError> {
    Ok(runtime_directory::open()?.join(format!("{name}{SOCKET_SUFFIX}")))
}
