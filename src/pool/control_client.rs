//! Asks pools by their control sockets.
//!
//! Root asks other users' pools, which may say anything, or nothing, for as long as they like: so
//! every connection, wait and answer has a limit, and so has a whole directory, whoever fills it.

use std::{
    fs,
    io::{
        Read as _, Write as _, {self},
    },
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{
            Timeout, {self},
        },
    },
    process::geteuid,
};

use crate::{
    pool::control::{PoolStatus, Question, SUFFIX, check_name},
    system::runtime_directory,
};

/// How long a supervisor may take to say how its pool is, which never waits for anything; and all
/// pools of a directory together.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long root waits for another user's pool to do what it was told, which may only say that it
/// does.
const FOREIGN_TIME_LIMIT: Duration = Duration::from_secs(300);

/// How long to wait before the same is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that a pool may say: more than twenty thousand threads do.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that all pools of a directory may say.
const MAX_DIRECTORY_BYTES: usize = 2 * MAX_BYTES;

/// Sockets of a directory that are tried.
const MAX_POOLS: usize = 256;

/// The answers of all pools that this user may ask, and why others have not answered.
///
/// # Errors
/// If no directory of them can be used.
pub(super) fn all() -> Result<(Vec<PoolStatus>, Vec<anyhow::Error>)> {
    let (mut answers, mut troubles) = (Vec::new(), Vec::new());
    for directory in runtime_directory::of_pools()?.found {
        for (name, answer) in ask_all(&directory) {
            match answer.and_then(|answer| parsed(&answer)) {
                Ok(status) => answers.extend(status),
                Err(error) => troubles.push(error.context(silent(&name))),
            }
        }
    }
    answers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok((answers, troubles))
}

/// Asks all pools of `directory` at once, so that none keeps another from its answer.
fn ask_all(directory: &Path) -> Vec<(String, Result<Vec<u8>>)> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(entry.ok()?.file_name().to_str()?.strip_suffix(SUFFIX)?.to_owned())
        })
        .filter(|name| check_name(name).is_ok())
        .take(MAX_POOLS)
        .collect();
    names.sort();
    let (mut asked, mut done) = (Vec::new(), Vec::new());
    for name in names {
        match asked_for_status(directory, &name) {
            Ok(Some(stream)) => asked.push((name, stream, Vec::new())),
            // It has ended, or never was.
            Ok(None) => {}
            Err(error) => done.push((name, Err(error))),
        }
    }
    let due = Instant::now() + TIME_LIMIT;
    let mut bytes = MAX_DIRECTORY_BYTES;
    while !asked.is_empty() {
        let left = Timespec::try_from(due.saturating_duration_since(Instant::now())).ok();
        let mut watched: Vec<_> =
            asked.iter().map(|(_, stream, _)| PollFd::new(stream, PollFlags::IN)).collect();
        if matches!(poll(&mut watched, left.as_ref()), Ok(0)) {
            let late = asked
                .drain(..)
                .map(|(name, ..)| (name, Err(io::Error::from(io::ErrorKind::TimedOut).into())));
            done.extend(late);
            break;
        }
        for (name, mut stream, mut answer) in std::mem::take(&mut asked) {
            match read_some(&mut stream, &mut answer) {
                Ok(Some(0)) => done.push((name, Ok(answer))),
                Ok(count) => match bytes.checked_sub(count.unwrap_or(0)) {
                    Some(left) => {
                        bytes = left;
                        asked.push((name, stream, answer));
                    }
                    None => {
                        done.push((name, Err(anyhow!("the pools of its directory say too much"))))
                    }
                },
                Err(error) => done.push((name, Err(error.into()))),
            }
        }
    }
    done
}

/// A connection that the question has been sent on, and that does not wait; none if there is no
/// such pool.
fn asked_for_status(directory: &Path, name: &str) -> Result<Option<UnixStream>> {
    let Some(mut stream) = connected(directory, name, Duration::from_millis(100))? else {
        return Ok(None);
    };
    stream.write_all(Question::Status.word().as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(Some(stream))
}

/// Reads what has come. Gives how much that was: 0 at the end, nothing if nothing is there.
fn read_some(stream: &mut UnixStream, answer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut piece = [0; 64 * 1024];
    match stream.read(&mut piece) {
        Ok(length) if answer.len() + length > MAX_BYTES => {
            Err(io::Error::other("it says too much"))
        }
        Ok(length) => {
            answer.extend_from_slice(&piece[..length]);
            Ok(Some(length))
        }
        Err(error)
            if [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock].contains(&error.kind()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// How the pools called `name` are; nothing of one that has just ended.
///
/// # Errors
/// If there is none, or one does not answer.
pub(super) fn named(name: &str) -> Result<Vec<PoolStatus>> {
    let statuses = find_all(name)?.iter().map(Place::status).collect::<Result<Vec<_>>>()?;
    Ok(statuses.into_iter().flatten().collect())
}

/// Tells the pool `name` something, and waits for as long as it says that it is about that; for a
/// pool of another user's, [`FOREIGN_TIME_LIMIT`] at most.
///
/// # Errors
/// If there is no such pool, it does not answer, or there is one in more than one directory.
pub(super) fn tell(name: &str, question: Question) -> Result<String> {
    let place = find(name)?;
    // The answer may take long; that there is somebody who will give one is asked first.
    place.status()?;
    place.tell(question, place.is_foreign.then_some(FOREIGN_TIME_LIMIT))
}

fn silent(name: &str) -> String {
    format!("the pool `{name}` does not answer; its supervisor may be stopped")
}

/// The status that a pool has told; nothing if it ended before it said a word.
fn parsed(answer: &[u8]) -> Result<Option<PoolStatus>> {
    if answer.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(answer).map(Some).context("what it says is no status")
}

/// Reads to the end, for [`TIME_LIMIT`] at most.
fn read_all(stream: &mut UnixStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let due = Instant::now() + TIME_LIMIT;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        if read_some(stream, answer)? == Some(0) {
            return Ok(());
        }
    }
}

/// Where a pool is.
struct Place {
    directory: PathBuf,
    name: String,
    /// It is another user's.
    is_foreign: bool,
}

impl Place {
    fn connect(&self) -> Result<UnixStream> {
        let name = &self.name;
        let found = connected(&self.directory, name, TIME_LIMIT).with_context(|| silent(name))?;
        found.with_context(|| format!("the pool `{name}` has ended"))
    }

    /// How it is; nothing if it ends meanwhile.
    fn status(&self) -> Result<Option<PoolStatus>> {
        let mut stream = self.connect()?;
        let mut answer = Vec::new();
        let asked = stream.write_all(Question::Status.word().as_bytes());
        let answered =
            asked.and_then(|()| read_all(&mut stream, &mut answer)).map_err(anyhow::Error::from);
        answered.and_then(|()| parsed(&answer)).with_context(|| silent(&self.name))
    }

    /// Tells it something, and gives its answer.
    fn tell(&self, question: Question, limit: Option<Duration>) -> Result<String> {
        let due = limit.map(|limit| Instant::now() + limit);
        loop {
            let answer = self.tell_once(question, due)?;
            let is_cut_off = question == Question::Stop
                && answer.is_empty()
                && self.status().is_ok_and(|status| status.is_some_and(|status| status.ending));
            if !is_cut_off {
                return Ok(answer);
            }
            // More wait for the end of the pool than it keeps.
            self.check_due(due)?;
            thread::sleep(PAUSE);
        }
    }

    fn tell_once(&self, question: Question, due: Option<Instant>) -> Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(question.word().as_bytes()).with_context(|| silent(&self.name))?;
        let mut answer = Vec::new();
        let mut is_idle = false;
        loop {
            match read_all(&mut stream, &mut answer) {
                Ok(()) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !is_idle => {}
                Err(error) => return Err(anyhow!(error).context(silent(&self.name))),
            }
            self.check_due(due)?;
            let is_about_it = self.has_left_its_name(&stream)?
                || self.status()?.is_none_or(|status| match question {
                    Question::Stop => status.ending,
                    Question::Reload | Question::Status => {
                        status.reloading || status.loading || status.ending
                    }
                });
            // It may have come to its end between the two: one more look at the answer.
            is_idle = !is_about_it;
        }
    }

    /// Has the pool at the other end of `stream` another name by now, or none? A warm pool that is
    /// asked to stop leaves its name to the next.
    fn has_left_its_name(&self, stream: &UnixStream) -> Result<bool> {
        let peer = |stream: &UnixStream| sockopt::socket_peercred(stream).ok().map(|peer| peer.pid);
        let found = connected(&self.directory, &self.name, TIME_LIMIT);
        let found = found.with_context(|| silent(&self.name))?;
        Ok(found.is_none_or(|found| peer(&found) != peer(stream)))
    }

    fn check_due(&self, due: Option<Instant>) -> Result<()> {
        if due.is_some_and(|due| Instant::now() >= due) {
            bail!(
                "the pool `{}` was told and says that it is about that, but does not come to an \
                 end",
                self.name
            );
        }
        Ok(())
    }
}

/// The pools called `name`, each in another directory.
fn find_all(name: &str) -> Result<Vec<Place>> {
    check_name(name).map_err(anyhow::Error::msg)?;
    let directories = runtime_directory::of_pools()?;
    let user = geteuid().as_raw();
    let mut places = Vec::new();
    for directory in &directories.found {
        if connected(directory, name, TIME_LIMIT).with_context(|| silent(name))?.is_some() {
            let is_foreign = fs::metadata(directory)?.uid() != user;
            places.push(Place { directory: directory.clone(), name: name.to_owned(), is_foreign });
        }
    }
    if places.is_empty() {
        bail!(
            "no pool named `{name}` runs as user {user}; looked in {}",
            shown(directories.searched.iter())
        );
    }
    Ok(places)
}

/// The pool `name`. Several users may have one of that name, and to tell the wrong one something
/// does harm: then the administrator has to say which.
fn find(name: &str) -> Result<Place> {
    let mut places = find_all(name)?;
    if places.len() > 1 {
        let directories = shown(places.iter().map(|place| &place.directory));
        bail!(
            "there is more than one pool named `{name}`: set WSGATE_RUNTIME_DIR to one of \
             {directories}"
        );
    }
    places.pop().with_context(|| silent(name))
}

/// A connection to the pool `name` of `directory`, if there is one.
fn connected(directory: &Path, name: &str, limit: Duration) -> Result<Option<UnixStream>> {
    let owner = fs::metadata(directory)?.uid();
    let stream = match connect_within(&directory.join(format!("{name}{SUFFIX}")), limit) {
        Ok(stream) => stream,
        Err(Errno::AGAIN) => bail!("as many wait for it already as can"),
        Err(_) => return Ok(None),
    };
    // A link may lead to a socket of somebody else's, who is not to be told anything.
    let is_theirs = sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid.as_raw() == owner);
    Ok(Some(stream).filter(|_| is_theirs))
}

/// Connects, and waits no longer than `limit` for a place in the accept queue.
pub(super) fn connect_within(path: &Path, limit: Duration) -> Result<UnixStream, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Says that no pool runs that could be asked, and where that was looked for.
pub(super) fn no_pools() -> String {
    let user = geteuid().as_raw();
    let looked = runtime_directory::of_pools()
        .map(|directories| shown(directories.searched.iter()))
        .unwrap_or_default();
    format!("no pool runs as user {user}; looked in {looked}")
}

fn shown<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    let shown: Vec<String> = paths.map(|path| format!("`{}`", path.display())).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Says to everybody that it is ending and reloading, and never does so.
    fn lie(listener: &UnixListener) {
        let status = r#"{"name":"lies","app":"/","pid":1,"listen":[],"generation":1,"preload":"no","min":1,"max":1,
            "reloading":true,"loading":true,"resting":false,"abandoned":0,"ending":true,"workers":[]}"#;
        let mut told = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut question = [0; 16];
            let length = stream.read(&mut question).unwrap();
            match &question[..length] {
                b"status\n" => stream.write_all(status.as_bytes()).unwrap(),
                // It cuts every second one off, and lets the others wait.
                _ if told.len() % 2 == 0 => told.push(None),
                _ => told.push(Some(stream)),
            }
        }
    }

    #[test]
    fn a_pool_that_says_for_ever_that_it_is_about_it_is_not_waited_for_without_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(format!("lies{SUFFIX}"))).unwrap();
        thread::spawn(move || lie(&listener));
        let place = Place {
            directory: directory.path().to_owned(),
            name: "lies".to_owned(),
            is_foreign: true,
        };
        assert_eq!(place.tell(Question::Reload, None).unwrap(), "", "it was cut off");
        let told = place.tell(Question::Stop, Some(Duration::from_secs(1)));
        assert!(told.unwrap_err().to_string().contains("does not come to an end"));
    }
}
