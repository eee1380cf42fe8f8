//! Client side of the control sockets, for `wsgate status`, `reload`, `stop` and `stacks`.
//!
//! Root talks to other users' pools, which may send anything or hang. So every connection, wait and
//! response has a limit, and all pools of a directory share a limit.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::geteuid;

use crate::{
    all_pools::located,
    connection::{
        Found, STATUS_TIMEOUT, check_runs, connected, failed, parsed, peer, read_all, socket_path,
    },
    other_users,
    pool_error::PoolError,
    pool_status::PoolStatus,
    process_stacks::{PoolProcess, ProcessStacks},
    protocol::{ControlCommand, ReloadResult},
    runtime_directory::{
        RuntimeDirectories, {self},
    },
    sockets::PoolSocket,
    user_name::UserNames,
};

/// Hint about pools that were not found.
pub const OTHER_POOLS_HINT: &str = "run `sudo -u USER wsgate status` for another user's pools; set \
    WSGATE_RUNTIME_DIR for pools in another runtime directory";

/// How long root waits for another user's pool to carry out a command.
const FOREIGN_COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a supervisor may take for an answer that it has to work for, and to send its status
/// while it carries out a command: an upgrade executes another program, and processes are asked for
/// their stacks one after the other.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a command is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The status of the pools with this name, or of the pool `USER/NAME`. A pool that has just exited
/// is left out.
///
/// # Errors
/// If no such pool is running, or a pool does not respond.
pub fn named(name: &str) -> Result<Vec<PoolStatus>> {
    let mut statuses = Vec::new();
    for pool in find_all(name)? {
        statuses
            .extend(pool.status(STATUS_TIMEOUT)?.map(|status| located(status, &pool.directory)));
    }
    Ok(statuses)
}

/// Reloads the pool `name` or `USER/NAME`, with the installed program if `upgrades`. Returns `None`
/// if the pool exited without a result, or does not know the command.
///
/// # Errors
/// If no such pool is running, the pool does not respond, or several pools have this name.
pub fn reload(name: &str, upgrades: bool) -> Result<Option<ReloadResult>> {
    let command = if upgrades { ControlCommand::Upgrade } else { ControlCommand::Reload };
    Ok(ReloadResult::from_answer(&send(name, command)?))
}

/// Stops the pool `name` or `USER/NAME`, and waits for its exit.
///
/// # Errors
/// If no such pool is running, the pool does not respond, or several pools have this name.
pub fn stop(name: &str) -> Result<()> {
    send(name, ControlCommand::Stop).map(drop)
}

/// The stacks of the process `pid` of the pool `name` or `USER/NAME`, or of all its processes.
///
/// # Errors
/// If no such pool is running, the pool does not respond, several pools have this name, or the pool
/// has no such process.
pub fn stacks(name: &str, pid: Option<i32>) -> Result<Vec<ProcessStacks>> {
    let pool = find(name)?;
    let processes = pool.processes()?;
    let is_asked = |process: &&PoolProcess| pid.is_none_or(|pid| pid == process.pid);
    if let Some(pid) = pid.filter(|_| !processes.iter().any(|process| is_asked(&process))) {
        let pids: Vec<_> = processes.iter().map(|process| process.pid.to_string()).collect();
        bail!("the pool `{name}` has no Python process {pid}; it has {}", pids.join(", "));
    }
    let stacks = processes.iter().filter(is_asked).map(|process| {
        let answer = pool.ask(ControlCommand::Stacks(process.pid), BUSY_TIMEOUT)?;
        let answer =
            serde_json::from_slice(&answer).map_err(|error| PoolError::invalid(name, &error))?;
        Ok(ProcessStacks::new(process.role, answer))
    });
    stacks.collect()
}

/// Sends a command to the pool `name` or `USER/NAME`, and waits while the pool is carrying it out;
/// for another user's pool, [`FOREIGN_COMMAND_TIMEOUT`] at most. Returns the response.
///
/// # Errors
/// If no such pool is running, the pool does not respond, or several pools have this name.
fn send(name: &str, command: ControlCommand) -> Result<String> {
    let pool = find(name)?;
    // A command may take long, so a status request first checks that the supervisor responds.
    pool.status(STATUS_TIMEOUT)?;
    pool.send(command, pool.is_foreign().then_some(FOREIGN_COMMAND_TIMEOUT))
}

/// Control socket of a running pool.
struct FoundPool {
    directory: PathBuf,
    name: String,
    /// User ID of the owner of the directory.
    owner: u32,
}

impl FoundPool {
    /// Does the pool belong to another user?
    fn is_foreign(&self) -> bool {
        self.owner != geteuid().as_raw()
    }

    /// A connection to the pool, whose supervisor is not stopped.
    fn connect(&self) -> Result<UnixStream> {
        let name = &self.name;
        let found = connected(&self.directory, name, STATUS_TIMEOUT)?;
        let stream = found.pool().with_context(|| format!("the pool `{name}` has ended"))?;
        check_runs(&stream, name)?;
        Ok(stream)
    }

    /// The status; `None` if the pool exits meanwhile.
    fn status(&self, limit: Duration) -> Result<Option<PoolStatus>> {
        let answer = self.ask(ControlCommand::Status, limit)?;
        Ok(parsed(&self.name, &answer)?)
    }

    /// Sends a command that the pool answers at once. Returns the response, which is empty if the
    /// pool exits meanwhile.
    fn ask(&self, command: ControlCommand, limit: Duration) -> Result<Vec<u8>> {
        let mut stream = self.connect()?;
        let mut answer = Vec::new();
        let sent = stream.write_all(command.line().as_bytes());
        let received = sent.and_then(|()| read_all(&mut stream, &mut answer, limit));
        received.map(|()| answer).map_err(|error| failed(&stream, &self.name, &error).into())
    }

    /// The Python processes of the pool.
    fn processes(&self) -> Result<Vec<PoolProcess>> {
        let answer = self.ask(ControlCommand::Processes, STATUS_TIMEOUT)?;
        // A pool closes the connection at a command that it does not know.
        if answer.is_empty() {
            bail!("the pool `{}` runs an older wsgate, without stacks; restart it", self.name);
        }
        serde_json::from_slice(&answer)
            .map_err(|error| PoolError::invalid(&self.name, &error).into())
    }

    /// Sends a command, and sends it again if the pool cut the connection. Returns the response.
    fn send(&self, command: ControlCommand, limit: Option<Duration>) -> Result<String> {
        let due = limit.map(|limit| Instant::now() + limit);
        loop {
            let answer = self.send_once(command, due)?;
            let is_cut_off = command == ControlCommand::Stop
                && answer.is_empty()
                && self
                    .status(BUSY_TIMEOUT)
                    .is_ok_and(|status| status.is_some_and(|status| status.stopping));
            if !is_cut_off {
                return Ok(answer);
            }
            // The pool keeps a limited number of connections of waiting clients, and has cut this
            // one.
            self.check_due(due)?;
            thread::sleep(RETRY_PAUSE);
        }
    }

    fn send_once(&self, command: ControlCommand, due: Option<Instant>) -> Result<String> {
        let mut stream = self.connect()?;
        let sent = stream.write_all(command.line().as_bytes());
        sent.map_err(|error| failed(&stream, &self.name, &error))?;
        let mut answer = Vec::new();
        let mut is_idle = false;
        loop {
            match read_all(&mut stream, &mut answer, BUSY_TIMEOUT) {
                Ok(()) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !is_idle => {}
                Err(error) => return Err(failed(&stream, &self.name, &error).into()),
            }
            self.check_due(due)?;
            let is_working = self.has_left_its_name(&stream)?
                || self.status(BUSY_TIMEOUT)?.is_none_or(|status| match command {
                    ControlCommand::Stop => status.stopping,
                    ControlCommand::Upgrade if status.upgrading => true,
                    ControlCommand::Reload | ControlCommand::Upgrade => {
                        status.reloading || status.loading || status.stopping
                    }
                    // Their answers come at once.
                    ControlCommand::Status
                    | ControlCommand::Processes
                    | ControlCommand::Stacks(_) => false,
                });
            // The pool may have finished meanwhile: read the response again.
            is_idle = !is_working;
        }
    }

    /// Has the pool at the other end of `stream` lost its name? A stopping warm pool passes its
    /// name to the next one.
    ///
    /// # Errors
    /// If the pool that has the name now does not respond.
    fn has_left_its_name(&self, stream: &UnixStream) -> Result<bool> {
        let found = connected(&self.directory, &self.name, STATUS_TIMEOUT)?;
        Ok(found.pool().is_none_or(|found| peer(&found) != peer(stream)))
    }

    fn check_due(&self, due: Option<Instant>) -> Result<()> {
        if due.is_some_and(|due| Instant::now() >= due) {
            bail!(
                "the pool `{}` did not finish the command within {} s",
                self.name,
                FOREIGN_COMMAND_TIMEOUT.as_secs()
            );
        }
        Ok(())
    }
}

/// The running pools with this name, or the name and user of `USER/NAME`, each in another runtime
/// directory.
///
/// # Errors
/// If no such pool is running, or a pool does not respond.
fn find_all(name: &str) -> Result<Vec<FoundPool>> {
    let (user, name) = name.split_once('/').map_or((None, name), |(user, name)| (Some(user), name));
    let RuntimeDirectories { found, searched } = match user {
        Some(_) => RuntimeDirectories { found: other_users::directories()?, ..Default::default() },
        None => runtime_directory::of_pools()?,
    };
    let users = UserNames::read();
    let (mut pools, mut killed) = (Vec::new(), None);
    for directory in found {
        let owner = fs::metadata(&directory)?.uid();
        if user.is_some_and(|user| users.name(owner) != user) {
            continue;
        }
        match connected(&directory, name, STATUS_TIMEOUT)? {
            Found::Pool(_) => pools.push(FoundPool { directory, name: name.to_owned(), owner }),
            Found::Killed => killed = Some(PoolError::killed(name, &socket_path(&directory, name))),
            Found::Nothing => {}
        }
    }
    match (user, killed) {
        _ if !pools.is_empty() => Ok(pools),
        (_, Some(killed)) => Err(killed.into()),
        (Some(user), None) => Err(PoolError::new(
            format!("no pool named `{name}` of the user `{user}` runs"),
            "`wsgate status` lists the pools",
        )
        .into()),
        (None, None) => {
            let user = geteuid().as_raw();
            let looked = shown(searched.iter());
            let sentence =
                format!("no pool named `{name}` runs as user {user}; looked in {looked}");
            Err(PoolError::new(sentence, elsewhere_hint(name, &users)).into())
        }
    }
}

/// Where a pool may be that does not run as this user.
fn elsewhere_hint(name: &str, users: &UserNames) -> String {
    let sockets = PoolSocket::find_all().unwrap_or_default();
    let others = sockets.iter().filter(|socket| socket.name() == name);
    let others: Vec<String> =
        others.map(|socket| format!("`{}/{name}`", users.name(socket.owner()))).collect();
    if others.is_empty() {
        format!("`wsgate status` lists this user's pools; {OTHER_POOLS_HINT}")
    } else {
        format!("name the pool with its user: {}", others.join(", "))
    }
}

/// The pool `name` or `USER/NAME`.
///
/// # Errors
/// If there are several: a command for the wrong one would do harm.
fn find(name: &str) -> Result<FoundPool> {
    let mut pools = find_all(name)?;
    if pools.len() > 1 {
        let owners: BTreeSet<u32> = pools.iter().map(|pool| pool.owner).collect();
        if owners.len() == pools.len() {
            let users = UserNames::read();
            let names = owners.iter().map(|&owner| format!("`{}/{name}`", users.name(owner)));
            let names: Vec<String> = names.collect();
            bail!("there is more than one pool named `{name}`: name one of {}", names.join(", "));
        }
        let directories = shown(pools.iter().map(|pool| &pool.directory));
        bail!(
            "there is more than one pool named `{name}`: set WSGATE_RUNTIME_DIR to one of \
             {directories}"
        );
    }
    pools.pop().with_context(|| format!("the pool `{name}` has ended"))
}

/// The message that no pool is running, with the directories that were searched.
pub fn no_pools_message() -> String {
    let user = geteuid().as_raw();
    let looked = runtime_directory::of_pools()
        .map(|directories| shown(directories.searched.iter()))
        .unwrap_or_default();
    format!("no pools are running for user {user}; looked in {looked}")
}

fn shown<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    let shown: Vec<String> = paths.map(|path| format!("`{}`", path.display())).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixListener};

    use super::*;
    use crate::protocol::SOCKET_SUFFIX;

    /// Claims in every status to be stopping and reloading, and never finishes.
    fn lie(listener: &UnixListener) {
        let status = r#"{"name":"lies","app":"/","pid":1,"listen":[],"generation":1,"preload":"no",
            "min":1,"max":1,"reloading":true,"loading":true,"stopping":true,"workers":[]}"#;
        let mut waiting = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = [0; 16];
            let length = stream.read(&mut line).unwrap();
            match &line[..length] {
                b"status\n" => stream.write_all(status.as_bytes()).unwrap(),
                // Cuts every second connection, and never answers on the others.
                _ if waiting.len() % 2 == 0 => waiting.push(None),
                _ => waiting.push(Some(stream)),
            }
        }
    }

    #[test]
    fn a_pool_that_never_finishes_a_command_is_not_waited_for_without_limit() {
        let directory = tempfile::tempdir().unwrap();
        let listener =
            UnixListener::bind(directory.path().join(format!("lies{SOCKET_SUFFIX}"))).unwrap();
        thread::spawn(move || lie(&listener));
        let pool = FoundPool {
            directory: directory.path().to_owned(),
            name: "lies".to_owned(),
            owner: geteuid().as_raw() + 1,
        };
        assert_eq!(pool.send(ControlCommand::Reload, None).unwrap(), "", "it was cut off");
        let stopped = pool.send(ControlCommand::Stop, Some(Duration::from_secs(1)));
        assert!(stopped.unwrap_err().to_string().contains("did not finish the command"));
    }
}
