//! One request to one pool. Root asks pools of other users, which may send anything or hang.

use std::{
    cell::Cell,
    io::{
        self,
        ErrorKind::{InvalidData, PermissionDenied, UnexpectedEof},
    },
    time::Duration,
};

use control::{
    connection::{MAX_ANSWER_BYTES, STATUS_TIMEOUT, parsed},
    pool_status::PoolStatus,
    process_stacks::{ProcessRole, ProcessStacks},
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

/// Asks the pool at `socket` for its status.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` if no such pool is running; else why its answer is no status.
pub(crate) async fn status(socket: &PoolSocket, budget: &Budget) -> io::Result<PoolStatus> {
    let answer = exchange(socket, ControlCommand::Status, budget).await?;
    let status = parsed(&answer).map_err(|error| io::Error::new(InvalidData, error))?;
    status.ok_or_else(|| io::Error::new(UnexpectedEof, "the pool has ended"))
}

/// Asks the pool at `socket` for the Python stacks of its worker `pid`.
///
/// # Errors
/// As for [`status`].
pub(crate) async fn stacks(socket: &PoolSocket, pid: i32) -> io::Result<ProcessStacks> {
    let answer = exchange(socket, ControlCommand::Stacks(pid), &Budget::default()).await?;
    let answer =
        serde_json::from_slice(&answer).map_err(|error| io::Error::new(InvalidData, error))?;
    Ok(ProcessStacks::new(ProcessRole::Worker, answer))
}

/// Sends a command, and reads the answer to its end.
async fn exchange(
    socket: &PoolSocket,
    command: ControlCommand,
    budget: &Budget,
) -> io::Result<Vec<u8>> {
    within(STATUS_TIMEOUT, async {
        let mut stream = UnixStream::connect(socket.path()).await?;
        if stream.peer_cred()?.uid() != socket.owner() {
            // A link may lead to another user's socket.
            return Err(io::Error::new(PermissionDenied, "its socket belongs to another user"));
        }
        stream.write_all(command.line().as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            let count = stream.read_buf(&mut answer).await?;
            if count == 0 {
                break;
            }
            budget.spend(count)?;
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(io::Error::other("its answer is too long"));
            }
        }
        Ok(answer)
    })
    .await
}

async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
