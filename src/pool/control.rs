//! The control socket of a pool: status, reload and stop, for the user that runs the pool and for root.
//!
//! It lies in the user's own directory and the peer's user is checked besides. The supervisor never waits for whoever is on the other
//! end: a question is one short line, and what cannot be sent at once is not sent.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{net::sockopt, process::geteuid};
use serde::{Deserialize, Serialize};

use crate::runtime_directory::{self, Directories};

/// What stands behind a pool's name in its socket's.
const SUFFIX: &str = ".pool";

/// Connections that may be open and say nothing; the oldest goes for one more.
const MOST: usize = 64;

/// How long a supervisor may take to say how its pool is. It never waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

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
    fn word(self) -> &'static str {
        match self {
            Self::Status => "status\n",
            Self::Reload => "reload\n",
            Self::Stop => "stop\n",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Status, Self::Reload, Self::Stop].into_iter().find(|question| question.word() == word)
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
    /// Whether workers are forked from a process that has loaded the application: `yes`, `no`, or `auto` until that is known.
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
    /// Requests whose web server went away before the reply was whole.
    pub(crate) abandoned: u64,
    /// It was told to end.
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
    /// Was told to end, and takes no connection any more.
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
}

impl Control {
    /// Listens for questions to the pool `name`.
    ///
    /// # Errors
    /// If there is no place for the socket, or a pool of that name already.
    pub(super) fn open(name: &str) -> Result<Self> {
        let path = path_of(name)?;
        if UnixStream::connect(&path).is_ok() {
            bail!("a pool named `{name}` runs already");
        }
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        // What a process of our number left behind is nobody's.
        let _ = fs::remove_file(&draft);
        let listener = UnixListener::bind(&draft).with_context(|| format!("`{}` cannot be made", draft.display()))?;
        listener.set_nonblocking(true)?;
        if let Err(error) = fs::rename(&draft, &path) {
            let _ = fs::remove_file(&draft);
            bail!("`{}` cannot be replaced: {error}", path.display());
        }
        Ok(Self { listener, path, open: Vec::new() })
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

    /// Readable when somebody asks.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.open.iter().map(AsFd::as_fd))
    }

    /// Questions that have come, with whom to answer.
    pub(super) fn questions(&mut self) -> Vec<(Question, UnixStream)> {
        let mut questions = Vec::new();
        while let Ok((stream, _)) = self.listener.accept() {
            let peer = sockopt::socket_peercred(&stream).map(|peer| peer.uid);
            let is_allowed = peer.is_ok_and(|uid| uid == geteuid() || uid.is_root());
            if is_allowed && stream.set_nonblocking(true).is_ok() {
                if self.open.len() == MOST {
                    // Many may ask at once: only one that has said nothing makes room.
                    self.read_into(&mut questions);
                }
                if self.open.len() == MOST {
                    self.open.remove(0);
                }
                self.open.push(stream);
            }
        }
        self.read_into(&mut questions);
        questions
    }

    /// Takes the questions of those who have asked.
    fn read_into(&mut self, questions: &mut Vec<(Question, UnixStream)>) {
        for mut stream in std::mem::take(&mut self.open) {
            let mut line = [0; 16];
            match stream.read(&mut line) {
                Ok(length) => {
                    let question = std::str::from_utf8(&line[..length]).ok().and_then(Question::of_word);
                    questions.extend(question.map(|question| (question, stream)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.open.push(stream),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Somebody may have taken it away already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers without waiting. Whoever asked and does not listen gets what fits.
pub(super) fn answer(mut stream: &UnixStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// Does somebody listen for questions to the pool `name`?
pub(crate) fn is_there(name: &str) -> bool {
    connect(name).is_ok()
}

/// Asks the pool `name`, and waits for what it says.
///
/// # Errors
/// If there is no such pool, or it does not answer.
pub(crate) fn ask(name: &str, question: Question) -> Result<String> {
    if question != Question::Status {
        // The answer may take long; that there is somebody who will give one is asked first.
        ask(name, Question::Status)?;
    }
    let mut stream = connect(name)?;
    if question == Question::Status {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    stream.write_all(question.word().as_bytes())?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("the pool `{name}` does not answer; its supervisor may be stopped"))?;
    Ok(answer)
}

/// Names of the pools that this user runs.
///
/// # Errors
/// If the directory that they are listed in cannot be used.
pub(crate) fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for directory in runtime_directory::of_pools()?.found {
        let entries = fs::read_dir(directory)?;
        names.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(SUFFIX)?.to_owned()))
                .filter(|name| connect(name).is_ok()),
        );
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// A connection to the pool `name`, in whichever directory it is.
fn connect(name: &str) -> Result<UnixStream> {
    check_name(name).map_err(anyhow::Error::msg)?;
    let directories = runtime_directory::of_pools()?;
    let paths = directories.found.iter().map(|directory| directory.join(format!("{name}{SUFFIX}")));
    paths.map(UnixStream::connect).find_map(Result::ok).with_context(|| {
        let user = geteuid().as_raw();
        format!("no pool named `{name}` runs as user {user}; looked in {}", shown(&directories))
    })
}

/// Says that no pool runs that could be asked, and where that was looked for.
pub(super) fn no_pools() -> String {
    let user = geteuid().as_raw();
    let looked = runtime_directory::of_pools().map(|directories| shown(&directories)).unwrap_or_default();
    format!("no pool runs as user {user}; looked in {looked}")
}

fn shown(directories: &Directories) -> String {
    let shown: Vec<String> = directories.looked.iter().map(|path| format!("`{}`", path.display())).collect();
    shown.join(", ")
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
