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
pub struct Handover<D = OwnedFd> {
    give: D,
    take: D,
}

/// Numbers of the descriptors of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Connections go in here.
    pub give_fd: i32,
    /// And come out here.
    pub take_fd: i32,
}

/// What a worker knows of a connection that it gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It was opened a moment ago, and its first request is on its way.
    Fresh,
    /// Nothing has ever come on it.
    Silent,
    /// Something has been received on it.
    Heard,
}

/// A connection that a worker has given away.
#[derive(Debug)]
pub struct Given {
    /// The connection.
    pub socket: OwnedFd,
    /// What is known of it.
    pub past: Past,
}

impl Past {
    /// The byte that it is sent as.
    fn byte(self) -> u8 {
        match self {
            Self::Fresh => b'f',
            Self::Silent => b's',
            Self::Heard => b'h',
        }
    }

    /// What `byte` stands for. Nobody sends others.
    fn of(byte: u8) -> Self {
        [Self::Fresh, Self::Silent]
            .into_iter()
            .find(|past| past.byte() == byte)
            .unwrap_or(Self::Heard)
    }
}

impl Handover {
    /// A new one.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub fn create() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (give, take) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Without it there is less room.
        let _ = sockopt::set_socket_send_buffer_size(&give, ROOM);
        Ok(Self { give, take })
    }
}

impl<D: AsFd> Handover<D> {
    /// The one that has these ends.
    pub fn of(give: D, take: D) -> Self {
        Self { give, take }
    }

    /// Both descriptors, to be inherited.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.give.as_fd(), self.take.as_fd()]
    }

    /// Their numbers.
    pub fn ends(&self) -> Ends {
        Ends { give_fd: self.give.as_fd().as_raw_fd(), take_fd: self.take.as_fd().as_raw_fd() }
    }

    /// Writable when there is room.
    pub fn entrance(&self) -> BorrowedFd<'_> {
        self.give.as_fd()
    }

    /// Readable when a connection can be taken, or none will come any more.
    pub fn exit(&self) -> BorrowedFd<'_> {
        self.take.as_fd()
    }

    /// Gives a connection away. The caller closes its own descriptor of it. Never waits.
    ///
    /// # Errors
    /// `AGAIN` if there is no room, `TOOMANYREFS` if this user has too many descriptors under way,
    /// `PIPE` after [`Handover::end`].
    pub fn give(&self, connection: BorrowedFd<'_>, past: Past) -> Result<(), Errno> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptors = [connection];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let byte = [past.byte()];
        sendmsg(
            &self.give,
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
    pub fn take(&self) -> Result<Option<Given>, Errno> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.take, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (received.bytes, descriptor) {
            (0, _) => Ok(None),
            (_, Some(socket)) => Ok(Some(Given { socket, past: Past::of(byte[0]) })),
            (_, None) => Err(Errno::MFILE),
        }
    }

    /// Nothing more is given from now on. What was given before can still be taken.
    pub fn end(&self) {
        // It can only have been done before.
        let _ = shutdown(&self.give, Shutdown::Write);
    }

    /// Is nothing more to be given?
    pub fn is_over(&self) -> bool {
        send(&self.give, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Err(Errno::PIPE)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;

    const PASTS: [Past; 3] = [Past::Fresh, Past::Silent, Past::Heard];

    #[test]
    fn connections_come_out_in_the_order_in_which_they_went_in() {
        let handover = Handover::create().unwrap();
        assert_eq!(handover.take().unwrap_err(), Errno::AGAIN);
        for number in 0..100_u8 {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&[number]).unwrap();
            handover.give(theirs.as_fd(), PASTS[usize::from(number % 3)]).unwrap();
        }
        for number in 0..100_u8 {
            let given = handover.take().unwrap().unwrap();
            let mut byte = [0];
            rustix::io::read(&given.socket, &mut byte).unwrap();
            assert_eq!((byte, given.past), ([number], PASTS[usize::from(number % 3)]));
        }
        assert_eq!(handover.take().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn when_it_is_full_it_says_so_and_loses_nothing() {
        let handover = Handover::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut given = 0;
        while handover.give(theirs.as_fd(), Past::Heard).is_ok() {
            given += 1;
        }
        assert!(given > 100, "{given}");
        for _ in 0..given {
            assert!(handover.take().unwrap().is_some());
        }
        assert_eq!(handover.take().unwrap_err(), Errno::AGAIN);
    }

    #[test]
    fn at_its_end_what_was_given_before_is_still_there() {
        let handover = Handover::create().unwrap();
        let (_ours, theirs) = UnixStream::pair().unwrap();
        handover.give(theirs.as_fd(), Past::Heard).unwrap();
        assert!(!handover.is_over());
        handover.end();
        assert!(handover.is_over());
        assert_eq!(handover.give(theirs.as_fd(), Past::Heard), Err(Errno::PIPE));
        assert!(handover.take().unwrap().is_some());
        assert!(handover.take().unwrap().is_none());
    }
}
