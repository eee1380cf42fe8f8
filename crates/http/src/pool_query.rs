//! One request to one pool. Root asks pools of other users, which may send anything or hang.

use std::{
    cell::Cell,
    io::{
        self,
        ErrorKind::{ConnectionRefused, NotFound, WouldBlock},
    },
};

use control::{
    client::BUSY_TIMEOUT,
    connection::{MAX_ANSWER_BYTES, STATUS_TIMEOUT, is_socket, parsed},
    pool_error::PoolError,
    pool_status::PoolStatus,
    process_stacks::{ProcessRole, ProcessStacks},
    process_state::StopCause,
    protocol::ControlCommand,
    sockets::PoolSocket,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

/// Bytes that all pools of one user may send at a time.
pub(crate) struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(2 * MAX_ANSWER_BYTES))
    }
}

impl Budget {
    fn spend(&self, count: usize) -> io::Result<()> {
        let left = self.0.get().checked_sub(count);
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| io::Error::other("the answers of this user are too long"))
    }
}

/// Why a pool has not answered.
#[derive(Debug)]
pub(crate) enum QueryError {
    /// There is no such pool any more.
    Absent,
    /// The pool exists, and cannot be asked.
    Failed(PoolError),
}

impl From<PoolError> for QueryError {
    fn from(error: PoolError) -> Self {
        Self::Failed(error)
    }
}

/// Asks the pool at `socket` for its status. `note_peer` gets the process ID of its supervisor.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn status(
    socket: &PoolSocket,
    budget: &Budget,
    note_peer: impl FnOnce(i32),
) -> Result<PoolStatus, QueryError> {
    let answer = exchange(socket, ControlCommand::Status, budget, note_peer).await?;
    parsed(socket.name(), &answer)?.ok_or(QueryError::Absent)
}

/// Asks the pool at `socket` for the Python stacks of its worker `pid`.
///
/// # Errors
/// As for [`status`].
pub(crate) async fn stacks(socket: &PoolSocket, pid: i32) -> Result<ProcessStacks, QueryError> {
    let command = ControlCommand::Stacks(pid);
    let answer = exchange(socket, command, &Budget::default(), |_| {}).await?;
    let answer = serde_json::from_slice(&answer)
        .map_err(|error| PoolError::invalid(socket.name(), &error))?;
    Ok(ProcessStacks::new(ProcessRole::Worker, answer))
}

/// Sends a command, and reads the answer to its end.
async fn exchange(
    socket: &PoolSocket,
    command: ControlCommand,
    budget: &Budget,
    note_peer: impl FnOnce(i32),
) -> Result<Vec<u8>, QueryError> {
    let name = socket.name();
    let mut stream =
        UnixStream::connect(socket.path()).await.map_err(|error| match error.kind() {
            ConnectionRefused if is_socket(&socket.path()) => {
                PoolError::killed(name, &socket.path()).into()
            }
            NotFound | ConnectionRefused => QueryError::Absent,
            WouldBlock => socket.silent().into(),
            _ => PoolError::invalid(name, &error).into(),
        })?;
    let peer = stream.peer_cred().map_err(|error| PoolError::invalid(name, &error))?;
    if peer.uid() != socket.owner() {
        // A link may lead to another user's socket.
        return Err(PoolError::invalid(name, &"its socket belongs to another user").into());
    }
    let pid = peer.pid();
    if let Some(pid) = pid {
        note_peer(pid);
        if StopCause::of(pid).is_some() {
            return Err(PoolError::silent(name, Some(pid)).into());
        }
    }
    let limit = match command {
        ControlCommand::Stacks(_) => BUSY_TIMEOUT,
        _ => STATUS_TIMEOUT,
    };
    match timeout(limit, transfer(&mut stream, command, budget)).await {
        Ok(answer) => Ok(answer.map_err(|error| PoolError::invalid(name, &error))?),
        Err(_) => Err(PoolError::silent(name, pid).into()),
    }
}

async fn transfer(
    stream: &mut UnixStream,
    command: ControlCommand,
    budget: &Budget,
) -> io::Result<Vec<u8>> {
    stream.write_all(command.line().as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let count = stream.read_buf(&mut answer).await?;
        if count == 0 {
            return Ok(answer);
        }
        budget.spend(count)?;
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("its answer is too long"));
        }
    }
}
