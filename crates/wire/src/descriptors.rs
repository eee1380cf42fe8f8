//! Passing file descriptors between processes: `SCM_RIGHTS` over Unix sockets (unix(7)).
//!
//! All of wsgate sends and receives descriptors by these two functions. Neither waits. A received
//! descriptor is closed on exec from its first moment on.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Descriptors that one message may carry.
pub const MAX_DESCRIPTORS: usize = 5;

/// A message that was received.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes of the message in the caller's buffer; 0 at the end of the connection.
    pub length: usize,
    /// The descriptors that came with the message.
    pub descriptors: Vec<OwnedFd>,
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// The kernel's reason: `AGAIN` if no message has come yet.
    System(Errno),
    /// The message is longer than the buffer.
    MessageTruncated,
    /// More descriptors came than [`MAX_DESCRIPTORS`], or than this process may open. All are
    /// closed.
    DescriptorsTruncated,
}

/// Sends `message` with `descriptors` over `socket`, without waiting.
///
/// # Errors
/// `AGAIN` if the socket is full, `PIPE` if the peer has closed its end, `TOOMANYREFS` if too many
/// descriptors of this user are in flight, `INVAL` for more than [`MAX_DESCRIPTORS`].
pub fn send(
    socket: impl AsFd,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > MAX_DESCRIPTORS
        || !control.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    // The kernel takes a message as small as those of wsgate whole or not at all.
    sendmsg(socket, &[IoSlice::new(message)], &mut control, flags).map(drop)
}

/// Receives the next message of `socket` into `buffer`, with its descriptors, without waiting.
///
/// # Errors
/// See [`ReceiveError`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, ReceiveError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
        .map_err(ReceiveError::System)?;
    // Owned from here on, so that every error closes them.
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    // The control buffer is rounded up, and may hold one descriptor more.
    if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
        return Err(ReceiveError::DescriptorsTruncated);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(ReceiveError::MessageTruncated);
    }
    Ok(Received { length: received.bytes, descriptors })
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::MessageTruncated => f.write_str("the message is too long"),
            Self::DescriptorsTruncated => {
                f.write_str("this process may not open more descriptors (`ulimit -n`)")
            }
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::System(error) => error.into(),
            truncated => Self::other(truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::{
        io::{FdFlags, fcntl_getfd},
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
    };

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn descriptors_arrive_with_their_message_and_are_closed_on_exec() {
        let (here, there) = pair();
        let mut buffer = [0; 16];
        assert_eq!(receive(&there, &mut buffer).unwrap_err(), ReceiveError::System(Errno::AGAIN));
        let sent = [here.as_fd(); MAX_DESCRIPTORS];
        send(&here, b"message", &sent).unwrap();
        let received = receive(&there, &mut buffer).unwrap();
        assert_eq!(&buffer[..received.length], b"message");
        assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
        for descriptor in &received.descriptors {
            assert!(fcntl_getfd(descriptor).unwrap().contains(FdFlags::CLOEXEC));
        }
        drop((received, here));
        assert_eq!(receive(&there, &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn more_descriptors_than_a_message_may_carry_are_refused_at_both_ends() {
        let (here, there) = pair();
        let too_many = [here.as_fd(); MAX_DESCRIPTORS + 1];
        assert_eq!(send(&here, b"x", &too_many), Err(Errno::INVAL));
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&too_many)));
        sendmsg(&here, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(receive(&there, &mut [0; 16]).unwrap_err(), ReceiveError::DescriptorsTruncated);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_an_error() {
        let (here, there) = pair();
        send(&here, b"message", &[]).unwrap();
        assert_eq!(receive(&there, &mut [0; 3]).unwrap_err(), ReceiveError::MessageTruncated);
    }
}
