//! The control socket of a pool: status, reload and stop, for the user that runs the pool and for
//! root.
//!
//! It lies in the user's own directory and the peer's user is checked besides. The supervisor never
//! waits for whoever is on the other end: a question is one short line, and an answer leaves as it
//! is read, for [`ANSWER_TIME_LIMIT`] at most.

use std::{
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

use anyhow::{Context as _, Result, bail};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::sockopt,
    process::geteuid,
};
use serde::{Deserialize, Serialize};

use crate::{pool::control_client::connect_within, system::runtime_directory};

/// What stands behind a pool's name in its socket's.
pub(super) const SUFFIX: &str = ".pool";

/// Connections that may be open and say nothing; the oldest goes for one more.
const MOST: usize = 64;

/// Answers that are being sent at the same time; the oldest is cut for one more.
const MAX_ANSWERS: usize = 64;

/// How long whoever has asked may take to read the answer.
const ANSWER_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Connections that are accepted before other things have their turn.
const MAX_ACCEPTS_A_TURN: usize = 64;

/// How long nothing is accepted after no descriptor was free.
const PAUSE: Duration = Duration::from_secs(1);

/// What somebody wants of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// How it is.
    Status,
    /// Change to new code, and say whether that could be loaded.
    Reload,
    /// End, and say nothing more.
    Stop,
}

impl Question {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Status => "status\n",
            Self::Reload => "reload\n",
            Self::Stop => "stop\n",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Status, Self::Reload, Self::Stop]
            .into_iter()
            .find(|question| question.word() == word)
    }
}

/// What a pool serves, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PoolMode {
    /// FastCGI.
    #[default]
    Fastcgi,
    /// CGI requests, each by a process of its own.
    Warm,
    /// CGI requests, by processes that stay.
    Resident,
}

/// How a pool is. A pool of an older build does not say all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolStatus {
    /// Its name.
    pub(crate) name: String,
    /// Its application, as APP.
    pub(crate) app: String,
    /// Process of the supervisor.
    pub(crate) pid: i32,
    /// Where it listens.
    pub(crate) listen: Vec<String>,
    /// How often code was loaded.
    pub(crate) generation: u64,
    /// Whether workers are forked from a process that has loaded the application: `yes`, `no`, or
    /// `auto` until that is known.
    pub(crate) preload: String,
    /// Workers that it has at least.
    pub(crate) min: usize,
    /// Workers that it has at most.
    pub(crate) max: usize,
    /// New code is being loaded beside the old.
    pub(crate) reloading: bool,
    /// Code is being loaded.
    pub(crate) loading: bool,
    /// There is no process of Python; the next connection starts one.
    pub(crate) resting: bool,
    /// What it serves, and how.
    #[serde(default)]
    pub(crate) mode: PoolMode,
    /// Seconds since it began.
    #[serde(default)]
    pub(crate) seconds: u64,
    /// Requests that it has served since then, those that are being served included.
    #[serde(default)]
    pub(crate) served: u64,
    /// Requests whose web server went away before the response was whole.
    pub(crate) abandoned: u64,
    /// It was asked to stop.
    pub(crate) ending: bool,
    /// Each thread of each worker.
    pub(crate) workers: Vec<WorkerStatus>,
}

/// How one thread of a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    /// Its process.
    pub(crate) pid: i32,
    /// Serves a request.
    pub(crate) busy: bool,
    /// Was asked to stop, and takes no connection any more.
    pub(crate) leaving: bool,
    /// Milliseconds it has been doing so, or has been idle.
    pub(crate) milliseconds: u64,
    /// Requests it has served.
    pub(crate) served: u64,
    /// Id, method and target of the request, or of the last one.
    pub(crate) request: String,
}

/// The supervisor's end.
pub(super) struct Control {
    listener: UnixListener,
    path: PathBuf,
    open: Vec<UnixStream>,
    answers: Vec<Answer>,
    pause_end: Option<Instant>,
}

/// An answer on its way.
struct Answer {
    stream: UnixStream,
    bytes: Rc<str>,
    sent: usize,
    due: Instant,
}

impl Control {
    /// Listens for questions to the pool `name`.
    ///
    /// # Errors
    /// If there is no place for the socket, or a pool of that name already.
    pub(super) fn open(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        // One that has no time to be asked is there all the same.
        if matches!(connect_within(&path, PAUSE), Ok(_) | Err(Errno::AGAIN)) {
            bail!("a pool named `{name}` runs already");
        }
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        // What a process of our number left behind is nobody's.
        let _ = fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft)
            .with_context(|| format!("`{}` cannot be made", draft.display()))?;
        listener.set_nonblocking(true)?;
        if let Err(error) = fs::rename(&draft, &path) {
            let _ = fs::remove_file(&draft);
            bail!("`{}` cannot be replaced: {error}", path.display());
        }
        Ok(Self { listener, path, open: Vec::new(), answers: Vec::new(), pause_end: None })
    }

    /// From now on it is asked under another name.
    ///
    /// # Errors
    /// If the socket cannot be given that.
    pub(super) fn rename(&mut self, name: &str) -> Result<()> {
        let path = path_of(name)?;
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }

    /// What to wait for.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let is_pausing = self.pause_end.is_some_and(|end| Instant::now() < end);
        let asked =
            self.open.iter().map(AsFd::as_fd).chain((!is_pausing).then(|| self.listener.as_fd()));
        let asked = asked.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        asked.chain(self.answers.iter().map(|answer| PollFd::new(&answer.stream, PollFlags::OUT)))
    }

    /// When something is to be done that nobody tells of.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let pause = self.pause_end.filter(|end| *end > Instant::now());
        self.answers.iter().map(|answer| answer.due).chain(pause).min()
    }

    /// Answers without waiting.
    pub(super) fn answer(&mut self, stream: UnixStream, text: Rc<str>) {
        if self.answers.len() == MAX_ANSWERS {
            self.answers.remove(0);
        }
        let due = Instant::now() + ANSWER_TIME_LIMIT;
        self.answers.push(Answer { stream, bytes: text, sent: 0, due });
        self.send_answers();
    }

    /// Goes on with answers that were not sent at once.
    pub(super) fn send_answers(&mut self) {
        let now = Instant::now();
        self.answers.retain_mut(|answer| answer.due > now && answer.is_left());
    }

    fn accept(&mut self, questions: &mut Vec<(Question, UnixStream)>) {
        for _ in 0..MAX_ACCEPTS_A_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // No descriptor is free, most likely. Whoever says nothing makes room.
                Err(_) if self.open.is_empty() => {
                    self.pause_end = Some(Instant::now() + PAUSE);
                    return;
                }
                Err(_) => {
                    self.open.remove(0);
                    continue;
                }
            };
            let peer = sockopt::socket_peercred(&stream).map(|peer| peer.uid);
            let is_allowed = peer.is_ok_and(|uid| uid == geteuid() || uid.is_root());
            if is_allowed && stream.set_nonblocking(true).is_ok() {
                if self.open.len() == MOST {
                    // Many may ask at once: only one that has said nothing makes room.
                    self.read_into(questions);
                }
                if self.open.len() == MOST {
                    self.open.remove(0);
                }
                self.open.push(stream);
            }
        }
    }

    /// Questions that have come, with whom to answer.
    pub(super) fn questions(&mut self) -> Vec<(Question, UnixStream)> {
        let mut questions = Vec::new();
        self.accept(&mut questions);
        self.read_into(&mut questions);
        questions
    }

    /// Takes the questions of those who have asked.
    fn read_into(&mut self, questions: &mut Vec<(Question, UnixStream)>) {
        for mut stream in std::mem::take(&mut self.open) {
            let mut line = [0; 16];
            match stream.read(&mut line) {
                Ok(length) => {
                    let question =
                        std::str::from_utf8(&line[..length]).ok().and_then(Question::of_word);
                    questions.extend(question.map(|question| (question, stream)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.open.push(stream),
                Err(_) => {}
            }
        }
    }
}

impl Answer {
    /// Sends what can be sent now. Tells whether something is left.
    fn is_left(&mut self) -> bool {
        while self.sent < self.bytes.len() {
            match self.stream.write(&self.bytes.as_bytes()[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Somebody may have taken it away already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Says one word, which always fits.
pub(super) fn answer(mut stream: &UnixStream, word: &str) {
    // Whoever asked may have left.
    let _ = stream.write_all(word.as_bytes());
}

/// Can a pool be called that?
///
/// # Errors
/// If not: a name becomes that of a file, and is shown to people.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if name.is_empty() || name.len() > 40 || !is_plain {
        return Err(format!(
            "`{}` is no name of a pool: letters, digits, `-` and `_`, 40 at most",
            name.escape_debug()
        ));
    }
    Ok(())
}

fn path_of(name: &str) -> Result<PathBuf> {
    check_name(name).map_err(anyhow::Error::msg)?;
    Ok(runtime_directory::open()?.join(format!("{name}{SUFFIX}")))
}
