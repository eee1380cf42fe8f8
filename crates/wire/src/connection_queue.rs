//! The queue of connections between the workers of a pool: a busy worker pushes a keep-alive
//! connection, and the next idle worker pops it.
//!
//! The supervisor creates one socket pair, and all processes of the pool have both ends. The pair
//! is a stream, because the kernel lets a datagram socket hold very few messages
//! (`net.unix.max_dgram_qlen`). Each connection is one byte with one descriptor. A message of one
//! byte has no header: a longer one could be read in part, and bytes that a child of the
//! application wrote would then shift all that follow. Nor does it need one: workers of two builds
//! share the queue during an upgrade of wsgate, so the messages never change.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, ioctl_fionread},
    net::{
        AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair,
        sockopt,
    },
};
use serde::{Deserialize, Serialize};

use crate::descriptors::{self, ReceiveError};

/// Send buffer that is asked for, in bytes. The kernel grants up to `net.core.wmem_max`, by default
/// enough for some hundred connections.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Both ends of the queue.
#[derive(Debug)]
pub struct ConnectionQueue<D = OwnedFd> {
    push_end: D,
    pop_end: D,
}

/// Numbers of the descriptors of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFds {
    /// The end that connections are pushed to.
    pub push_fd: i32,
    /// The end that connections are popped from.
    pub pop_fd: i32,
}

/// What a worker knows of a connection that it pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHistory {
    /// The connection was accepted a moment ago, and its first request is on its way.
    New,
    /// No byte has ever been received on the connection.
    Unused,
    /// At least one byte has been received on the connection.
    Used,
}

/// A connection that was popped.
#[derive(Debug)]
pub struct QueuedConnection {
    /// The connection.
    pub socket: OwnedFd,
    /// What the worker that pushed the connection knew of it.
    pub history: ConnectionHistory,
}

impl ConnectionQueue {
    /// Creates an empty queue.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub fn create() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (push_end, pop_end) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // If the kernel refuses, the queue holds fewer connections.
        let _ = sockopt::set_socket_send_buffer_size(&push_end, SEND_BUFFER_BYTES);
        Ok(Self { push_end, pop_end })
    }

    /// Creates two empty queues for a supervisor that holds connections back, and returns their
    /// ends for workers and for the supervisor. Each side pops what the other side has pushed.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub fn create_relayed() -> io::Result<(Self, Self)> {
        let (to_supervisor, to_workers) = (Self::create()?, Self::create()?);
        let workers = Self::from_ends(to_supervisor.push_end, to_workers.pop_end);
        let supervisor = Self::from_ends(to_workers.push_end, to_supervisor.pop_end);
        Ok((workers, supervisor))
    }
}

impl<D: AsFd> ConnectionQueue<D> {
    /// The queue whose ends these are.
    pub fn from_ends(push_end: D, pop_end: D) -> Self {
        Self { push_end, pop_end }
    }

    /// Both descriptors, to be inherited.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.push_end.as_fd(), self.pop_end.as_fd()]
    }

    /// Numbers of both descriptors.
    pub fn fds(&self) -> QueueFds {
        let [push_end, pop_end] = self.descriptors();
        QueueFds { push_fd: push_end.as_raw_fd(), pop_fd: pop_end.as_raw_fd() }
    }

    /// The end that is writable while the queue is not full.
    pub fn push_end(&self) -> BorrowedFd<'_> {
        self.push_end.as_fd()
    }

    /// The end that is readable while the queue holds a connection, or after
    /// [`ConnectionQueue::close`].
    pub fn pop_end(&self) -> BorrowedFd<'_> {
        self.pop_end.as_fd()
    }

    /// Pushes a connection, without waiting. The caller then closes its own descriptor.
    ///
    /// # Errors
    /// `AGAIN` if the queue is full, `TOOMANYREFS` if too many descriptors of this user are in
    /// flight, `PIPE` after [`ConnectionQueue::close`].
    pub fn push(&self, socket: BorrowedFd<'_>, history: ConnectionHistory) -> Result<(), Errno> {
        descriptors::send(&self.push_end, &[history.to_byte()], &[socket])
    }

    /// Pops the connection that was pushed first, without waiting. `None` if the queue is closed
    /// and empty.
    ///
    /// # Errors
    /// `AGAIN` if the queue is empty; `MFILE` if this process may not open another descriptor, or
    /// if the next message in the queue was not a connection. That connection or message is lost.
    pub fn pop(&self) -> Result<Option<QueuedConnection>, Errno> {
        let mut byte = [0];
        let received = match descriptors::receive(&self.pop_end, &mut byte) {
            Ok(received) => received,
            Err(ReceiveError::System(error)) => return Err(error),
            Err(ReceiveError::MessageTruncated | ReceiveError::DescriptorsTruncated) => {
                return Err(Errno::MFILE);
            }
        };
        if received.length == 0 {
            return Ok(None);
        }
        let [socket] = <[OwnedFd; 1]>::try_from(received.descriptors).map_err(|_| Errno::MFILE)?;
        Ok(Some(QueuedConnection { socket, history: ConnectionHistory::from_byte(byte[0]) }))
    }

    /// Number of connections that [`ConnectionQueue::pop`] would return.
    pub fn len(&self) -> usize {
        // Each connection is one byte. The only failure is that the descriptor is no socket.
        ioctl_fionread(&self.pop_end).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
    }

    /// Is the queue empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the queue: no connection can be pushed from now on, those in the queue can still be
    /// popped.
    pub fn close(&self) {
        // The only failure is that another process has closed the queue before.
        let _ = shutdown(&self.push_end, Shutdown::Write);
    }

    /// Has a process closed the queue?
    pub fn is_closed(&self) -> bool {
        send(&self.push_end, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::PIPE)
    }
}

impl ConnectionHistory {
    /// The byte that stands for this history in the queue, in every build.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::New => b'n',
            Self::Unused => b'0',
            Self::Used => b'1',
        }
    }

    /// The history that `byte` stands for. After an unknown byte nothing may be assumed, which is
    /// the case of a connection that was used.
    pub fn from_byte(byte: u8) -> Self {
        [Self::New, Self::Unused]
            .into_iter()
            .find(|history| history.to_byte() == byte)
            .unwrap_or(Self::Used)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;

    const HISTORIES: [ConnectionHistory; 3] =
        [ConnectionHistory::New, ConnectionHistory::Unused, ConnectionHistory::Used];

    #[test]
    fn connections_are_popped_in_the_order_in_which_they_were_pushed() {
        let queue = ConnectionQueue::create().unwrap();
        assert_eq!(queue.pop().unwrap_err(), Errno::AGAIN);
        for number in 0..100_u8 {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&[number]).unwrap();
            queue.push(theirs.as_fd(), HISTORIES[usize::from(number % 3)]).unwrap();
        }
        assert_eq!(queue.len(), 100);
        for number in 0..100_u8 {
            let popped = queue.pop().unwrap().unwrap();
            let mut byte = [0];
            rustix::io::read(&popped.socket, &mut byte).unwrap();
            assert_eq!((byte, popped.history), ([number], HISTORIES[usize::from(number % 3)]));
        }
        assert_eq!(queue.pop().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn a_full_queue_refuses_connections_and_loses_none() {
        let queue = ConnectionQueue::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut pushed = 0;
        while queue.push(theirs.as_fd(), ConnectionHistory::Used).is_ok() {
            pushed += 1;
        }
        assert!(pushed > 100, "{pushed}");
        for _ in 0..pushed {
            assert!(queue.pop().unwrap().is_some());
        }
        assert_eq!(queue.pop().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn a_closed_queue_still_gives_what_was_pushed_before() {
        let queue = ConnectionQueue::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        queue.push(theirs.as_fd(), ConnectionHistory::Used).unwrap();
        assert!(!queue.is_closed());
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.push(theirs.as_fd(), ConnectionHistory::Used), Err(Errno::PIPE));
        assert!(queue.pop().unwrap().is_some());
        assert!(queue.pop().unwrap().is_none());
    }

    #[test]
    fn relayed_queues_cross() {
        let (workers, supervisor) = ConnectionQueue::create_relayed().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        workers.push(theirs.as_fd(), ConnectionHistory::Used).unwrap();
        assert_eq!((workers.len(), supervisor.len()), (0, 1));
        for _ in 0..3 {
            supervisor.push(theirs.as_fd(), ConnectionHistory::New).unwrap();
        }
        assert_eq!((workers.len(), supervisor.len()), (3, 1));
        assert_eq!(supervisor.pop().unwrap().unwrap().history, ConnectionHistory::Used);
        assert_eq!(workers.pop().unwrap().unwrap().history, ConnectionHistory::New);
        assert!(supervisor.is_empty() && workers.len() == 2);
        workers.close();
        assert!(workers.is_closed() && !supervisor.is_closed());
        assert!(supervisor.pop().unwrap().is_none());
    }

    #[test]
    fn foreign_bytes_in_the_queue_cost_no_connection() {
        let queue = ConnectionQueue::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let foreign = b"not from wsgate";
        rustix::io::write(queue.push_end(), foreign).unwrap();
        queue.push(theirs.as_fd(), ConnectionHistory::New).unwrap();
        descriptors::send(queue.push_end(), b"x", &[theirs.as_fd(); 2]).unwrap();
        queue.push(theirs.as_fd(), ConnectionHistory::Unused).unwrap();
        for _ in foreign {
            assert_eq!(queue.pop().unwrap_err(), Errno::MFILE);
        }
        let history =
            |popped: Result<Option<QueuedConnection>, Errno>| popped.unwrap().unwrap().history;
        assert_eq!(history(queue.pop()), ConnectionHistory::New);
        assert_eq!(queue.pop().unwrap_err(), Errno::MFILE);
        assert_eq!(history(queue.pop()), ConnectionHistory::Unused);
    }
}
