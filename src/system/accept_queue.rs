//! Accept queues of listening sockets, which the kernel tells as ss(8) shows them (sock_diag(7)).

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
    unix::{self, ShowFlags, UnixRequest},
};
use rustix::{
    fs::fstat,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getsockname, netlink, recv,
        sendto, socket_with, sockopt,
    },
};

/// Room for one answer of the kernel in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptQueue {
    /// Number of connections that wait for accept(2).
    pub(crate) length: u32,
    /// Maximum number of these.
    pub(crate) backlog: u32,
}

impl AcceptQueue {
    /// The accept queue of `socket`; `None` if the kernel does not tell, as for a socket of another
    /// network namespace.
    pub(crate) fn of(socket: impl AsFd) -> Option<Self> {
        let socket = socket.as_fd();
        let answer = ask(request_about(socket)?)?;
        match answer {
            SockDiagMessage::UnixResponse(answer) => {
                answer.nlas.iter().find_map(|attribute| match *attribute {
                    unix::nlas::Nla::ReceiveQueueLength(length, backlog) => {
                        Some(Self { length, backlog })
                    }
                    _ => None,
                })
            }
            SockDiagMessage::InetResponse(answer) => {
                Some(Self { length: answer.header.recv_queue, backlog: answer.header.send_queue })
            }
            _ => None,
        }
    }
}

/// The request for the one listening socket.
fn request_about(socket: BorrowedFd<'_>) -> Option<SockDiagMessage> {
    let address = getsockname(socket).ok()?;
    let cookie = sockopt::socket_cookie(socket).ok()?.to_ne_bytes();
    let Ok(address) = SocketAddr::try_from(address) else {
        return Some(SockDiagMessage::UnixRequest(UnixRequest {
            state_flags: unix::StateFlags::LISTEN,
            inode: u32::try_from(fstat(socket).ok()?.st_ino).ok()?,
            show_flags: ShowFlags::RQLEN,
            cookie,
        }));
    };
    let (family, id) = match address {
        SocketAddr::V4(_) => (AF_INET, SocketId::new_v4()),
        SocketAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
    };
    Some(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id: SocketId {
            source_address: address.ip(),
            source_port: address.port(),
            cookie,
            ..id
        },
    }))
}

/// Sends `request` to the kernel, which answers within the call. Returns the answer.
fn ask(request: SockDiagMessage) -> Option<SockDiagMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let kernel = netlink_socket()?;
    sendto(&kernel, &bytes, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0)).ok()?;
    let mut answer = vec![0; MAX_ANSWER_BYTES];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::DONTWAIT).ok()?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(answer.get(..length)?).ok()?;
    match answer.payload {
        NetlinkPayload::InnerMessage(answer) => Some(answer),
        _ => None,
    }
}

fn netlink_socket() -> Option<OwnedFd> {
    let protocol = Some(netlink::SOCK_DIAG);
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol).ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::net::{UnixListener, UnixStream},
    };

    use rustix::net::listen;

    use super::*;

    #[test]
    fn the_queue_of_a_unix_socket_has_the_connections_that_nobody_has_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listen(&listener, 17).unwrap();
        let queue = |length| Some(AcceptQueue { length, backlog: 17 });
        assert_eq!(AcceptQueue::of(&listener), queue(0));
        let _clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert_eq!(AcceptQueue::of(&listener), queue(3));
        drop(listener.accept().unwrap());
        assert_eq!(AcceptQueue::of(&listener), queue(2));
    }

    #[test]
    fn the_queue_of_a_tcp_socket_has_the_connections_that_nobody_has_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.contains("::"), "{address}");
                continue;
            };
            listen(&listener, 19).unwrap();
            let queue = |length| Some(AcceptQueue { length, backlog: 19 });
            assert_eq!(AcceptQueue::of(&listener), queue(0), "{address}");
            let target = listener.local_addr().unwrap();
            let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(target).unwrap()).collect();
            assert_eq!(AcceptQueue::of(&listener), queue(2), "{address}");
        }
    }

    #[test]
    fn a_descriptor_that_is_no_socket_has_no_queue() {
        assert_eq!(AcceptQueue::of(std::io::stdin()), None);
    }
}
