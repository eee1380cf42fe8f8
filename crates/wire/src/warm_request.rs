//! The hand-off of one CGI request from its gateway to a process of a warm pool, over a
//! `SOCK_SEQPACKET` connection.
//!
//! The process greets first. Only then does the gateway send the request, so that one which nobody
//! has taken yet can still be served in another way. From there on the connection carries
//! [`crate::report`]s, as to a python that the gateway has started.

use std::{
    fs::File,
    io::{
        IoSlice, IoSliceMut, Read as _, Seek as _, Write as _, {self},
    },
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    build,
    launch::{BadLaunch, layout_of},
};
use diagnostics::error_page::ResponseFormat;

/// First bytes of a greeting; the name of the build follows, as in a launch frame.
const MAGIC: &[u8] = b"wsgate-warm ";

/// Descriptors that a request comes with: body, response, error log, the frame, and the end of a
/// pipe whose other end closes when the gateway is gone.
pub const DESCRIPTORS: usize = 5;

/// Bytes of a greeting at most.
const LONGEST: usize = 256;

/// What a process of a warm pool says to whoever connects. A descriptor of the process
/// (`pidfd_open`) comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its number, as it knows it itself.
    pub pid: i32,
    /// The code that it has loaded has changed since: it takes no request.
    pub stale: bool,
}

/// A CGI request, beside its descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The whole process environment, each name once.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory, as bytes.
    pub working_directory: Vec<u8>,
    /// Bits that new files do not get.
    pub umask: u32,
    /// Names the request in the log and on error pages.
    pub request_id: String,
    /// Method and target of the request, for the log.
    pub request: String,
    /// How the head of the response is written.
    pub form: ResponseFormat,
    /// Seconds the gateway grants the request, for the message when they are over; 0 is without
    /// end.
    pub timeout_seconds: u64,
}

impl Greeting {
    /// The packet.
    ///
    /// # Errors
    /// If the encoder refuses a value; none of the types here can bring that about.
    pub fn encode(&self) -> Result<Vec<u8>, BadLaunch> {
        encode(self)
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// If it is no greeting, or one of another build.
    pub fn decode(packet: &[u8]) -> Result<Self, BadLaunch> {
        decode(packet)
    }
}

impl Handoff {
    /// The frame, in a file without a name that can be handed over.
    ///
    /// # Errors
    /// If memory or descriptors are short.
    pub fn to_file(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("wsgate-handoff", MemfdFlags::CLOEXEC)?);
        file.write_all(&encode(self).map_err(io::Error::other)?)?;
        Ok(file.into())
    }

    /// Reads a frame from such a file.
    ///
    /// # Errors
    /// If it cannot be read, or holds no frame of this build.
    pub fn from_file(file: OwnedFd) -> io::Result<Self> {
        let mut file = File::from(file);
        let mut frame = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut frame)?;
        decode(&frame).map_err(io::Error::other)
    }
}

fn encode(what: &impl Serialize) -> Result<Vec<u8>, BadLaunch> {
    let mut frame = [MAGIC, build().as_bytes(), b"\n"].concat();
    frame.extend(postcard::to_allocvec(what).map_err(|_| BadLaunch::Layout)?);
    Ok(frame)
}

fn decode<T: for<'a> Deserialize<'a>>(frame: &[u8]) -> Result<T, BadLaunch> {
    match postcard::take_from_bytes(layout_of(MAGIC, frame)?) {
        Ok((what, [])) => Ok(what),
        _ => Err(BadLaunch::Layout),
    }
}

/// Sends `packet` with `descriptors`, without waiting.
///
/// # Errors
/// If the other end is gone, or takes nothing more.
pub fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut control,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?;
    Ok(())
}

/// Takes the next packet and its descriptors, without waiting. An empty one is the end.
///
/// # Errors
/// If there is none (`WouldBlock`), or this process may not open as many descriptors as came.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut packet = vec![0; LONGEST];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    packet.truncate(received.bytes);
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((packet, descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn handoff() -> Handoff {
        Handoff {
            environment: vec![
                (b"QUERY_STRING".to_vec(), b"\xff=1".to_vec()),
                (b"EMPTY".to_vec(), Vec::new()),
            ],
            working_directory: b"/srv/\xff".to_vec(),
            umask: 0o027,
            request_id: "0123456789abcdef".into(),
            request: "GET /".into(),
            form: ResponseFormat::Cgi,
            timeout_seconds: 30,
        }
    }

    #[test]
    fn a_request_comes_back_as_it_went_whatever_its_size() {
        let mut large = handoff();
        large
            .environment
            .extend((0..1000).map(|number| (format!("N{number}").into_bytes(), vec![b'x'; 1000])));
        for handoff in [handoff(), large] {
            assert_eq!(Handoff::from_file(handoff.to_file().unwrap()).unwrap(), handoff);
        }
    }

    #[test]
    fn every_truncation_is_an_error_and_none_a_panic() {
        let frame = encode(&handoff()).unwrap();
        for length in 0..frame.len() {
            assert!(
                decode::<Handoff>(&frame[..length]).is_err(),
                "{length} of {} bytes",
                frame.len()
            );
        }
        assert_eq!(decode::<Handoff>(&[&frame[..], b"x"].concat()), Err(BadLaunch::Layout));
        let packet = Greeting { pid: 4711, stale: false }.encode().unwrap();
        for length in 0..packet.len() {
            assert!(
                Greeting::decode(&packet[..length]).is_err(),
                "{length} of {} bytes",
                packet.len()
            );
        }
    }

    #[test]
    fn another_build_is_named() {
        assert_eq!(
            Greeting::decode(b"wsgate-warm 0.0.9+feed\n\0\0"),
            Err(BadLaunch::OtherBuild("0.0.9+feed".into()))
        );
        assert_eq!(Greeting::decode(b"HTTP/1.1 200 OK\n"), Err(BadLaunch::NoFrame));
    }

    #[test]
    fn descriptors_come_with_their_packet() {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        assert_eq!(receive(there.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let file = handoff().to_file().unwrap();
        send(here.as_fd(), b"packet", &[file.as_fd()]).unwrap();
        let (packet, mut descriptors) = receive(there.as_fd()).unwrap();
        assert_eq!((packet.as_slice(), descriptors.len()), (&b"packet"[..], 1));
        assert_eq!(Handoff::from_file(descriptors.remove(0)).unwrap(), handoff());
        drop(here);
        assert!(receive(there.as_fd()).unwrap().0.is_empty());
    }
}
