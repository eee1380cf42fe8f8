//! The socket over which the workers of a pool give each other connections: a queue that the next
//! worker with time takes from.
//!
//! The supervisor makes it once, and all processes of the pool have both ends. Each connection is
//! one byte with one descriptor. It is a stream, since the kernel lets a socket of datagrams hold
//! very few (`net.unix.max_dgram_qlen`).

use std::{
    io::{
        IoSlice, IoSliceMut, {self},
    },
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, send, sendmsg,
        shutdown, socketpair, sockopt,
    },
};
use serde::{Deserialize, Serialize};

/// Room that is asked for, in the kernel's way of counting. It grants what `net.core.wmem_max`
/// allows: by default some hundreds of connections.
const ROOM: usize = 4 << 20;

/// Both ends of the socket.
#[derive(Debug)]
pub struct ConnectionQueue<D = OwnedFd> {
    push_end: D,
    pop_end: D,
}

/// Numbers of the descriptors of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFds {
    /// Connections go in here.
    pub push_fd: i32,
    /// And come out here.
    pub pop_fd: i32,
}

/// What a worker knows of a connection that it gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHistory {
    /// It was opened a moment ago, and its first request is on its way.
    New,
    /// Nothing has ever come on it.
    Unused,
    /// Something has been received on it.
    Used,
}

/// A connection that a worker has given away.
#[derive(Debug)]
pub struct QueuedConnection {
    /// The connection.
    pub socket: OwnedFd,
    /// What is known of it.
    pub history: ConnectionHistory,
}

impl ConnectionHistory {
    /// The byte that it is sent as.
    fn byte(self) -> u8 {
        match self {
            Self::New => b'f',
            Self::Unused => b's',
            Self::Used => b'h',
        }
    }

    /// What `byte` stands for. Nobody sends others.
    fn from_byte(byte: u8) -> Self {
        [Self::New, Self::Unused]
            .into_iter()
            .find(|history| history.byte() == byte)
            .unwrap_or(Self::Used)
    }
}

impl ConnectionQueue {
    /// A new one.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub fn create() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (push_end, pop_end) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Without it there is less room.
        let _ = sockopt::set_socket_send_buffer_size(&push_end, ROOM);
        Ok(Self { push_end, pop_end })
    }
}

impl<D: AsFd> ConnectionQueue<D> {
    /// The one that has these ends.
    pub fn from_ends(push_end: D, pop_end: D) -> Self {
        Self { push_end, pop_end }
    }

    /// Both descriptors, to be inherited.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.push_end.as_fd(), self.pop_end.as_fd()]
    }

    /// Their numbers.
    pub fn fds(&self) -> QueueFds {
        QueueFds {
            push_fd: self.push_end.as_fd().as_raw_fd(),
            pop_fd: self.pop_end.as_fd().as_raw_fd(),
        }
    }

    /// Writable when there is room.
    pub fn push_end(&self) -> BorrowedFd<'_> {
        self.push_end.as_fd()
    }

    /// Readable when a connection can be taken, or none will come any more.
    pub fn pop_end(&self) -> BorrowedFd<'_> {
        self.pop_end.as_fd()
    }

    /// Gives a connection away. The caller closes its own descriptor of it. Never waits.
    ///
    /// # Errors
    /// `AGAIN` if there is no room, `TOOMANYREFS` if this user has too many descriptors under way,
    /// `PIPE` after [`ConnectionQueue::close`].
    pub fn push(
        &self,
        connection: BorrowedFd<'_>,
        history: ConnectionHistory,
    ) -> Result<(), Errno> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptors = [connection];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let byte = [history.byte()];
        sendmsg(
            &self.push_end,
            &[IoSlice::new(&byte)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?;
        Ok(())
    }

    /// Takes the connection that has waited longest; none if it is over. Never waits.
    ///
    /// # Errors
    /// `AGAIN` if there is none; `MFILE` if this process had no descriptor free for the one that
    /// came, which is closed then.
    pub fn pop(&self) -> Result<Option<QueuedConnection>, Errno> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received =
            recvmsg(&self.pop_end, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (received.bytes, descriptor) {
            (0, _) => Ok(None),
            (_, Some(socket)) => Ok(Some(QueuedConnection {
                socket,
                history: ConnectionHistory::from_byte(byte[0]),
            })),
            (_, None) => Err(Errno::MFILE),
        }
    }

    /// Nothing more is given from now on. What was given before can still be taken.
    pub fn close(&self) {
        // It can only have been done before.
        let _ = shutdown(&self.push_end, Shutdown::Write);
    }

    /// Is nothing more to be given?
    pub fn is_closed(&self) -> bool {
        send(&self.push_end, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::PIPE)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;

    const HISTORIES: [ConnectionHistory; 3] =
        [ConnectionHistory::New, ConnectionHistory::Unused, ConnectionHistory::Used];

    #[test]
    fn connections_come_out_in_the_order_in_which_they_went_in() {
        let handover = ConnectionQueue::create().unwrap();
        assert_eq!(handover.pop().unwrap_err(), Errno::AGAIN);
        for number in 0..100_u8 {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&[number]).unwrap();
            handover.push(theirs.as_fd(), HISTORIES[usize::from(number % 3)]).unwrap();
        }
        for number in 0..100_u8 {
            let given = handover.pop().unwrap().unwrap();
            let mut byte = [0];
            rustix::io::read(&given.socket, &mut byte).unwrap();
            assert_eq!((byte, given.history), ([number], HISTORIES[usize::from(number % 3)]));
        }
        assert_eq!(handover.pop().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn when_it_is_full_it_says_so_and_loses_nothing() {
        let handover = ConnectionQueue::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut given = 0;
        while handover.push(theirs.as_fd(), ConnectionHistory::Used).is_ok() {
            given += 1;
        }
        assert!(given > 100, "{given}");
        for _ in 0..given {
            assert!(handover.pop().unwrap().is_some());
        }
        assert_eq!(handover.pop().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn at_its_end_what_was_given_before_is_still_there() {
        let handover = ConnectionQueue::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        handover.push(theirs.as_fd(), ConnectionHistory::Used).unwrap();
        assert!(!handover.is_closed());
        handover.close();
        assert!(handover.is_closed());
        assert_eq!(handover.push(theirs.as_fd(), ConnectionHistory::Used), Err(Errno::PIPE));
        assert!(handover.pop().unwrap().is_some());
        assert!(handover.pop().unwrap().is_none());
    }
}
