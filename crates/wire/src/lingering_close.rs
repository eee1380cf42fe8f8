//! The end of a response, so that all of it arrives.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
    net::{Shutdown, shutdown},
};

/// How long a web server may send nothing of a request body that nobody reads.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may go on sending.
const LONGEST: Duration = Duration::from_secs(60);

/// Ends the response on `response` and closes it. With `body_left` something of the request body
/// may still be unread.
///
/// Apache's mod_cgid gives a program one socket as standard input and output, sends the whole
/// request body on it before it reads the response, and loses that if the socket is closed while
/// body is still in it: the kernel resets the connection then. So what is left of the body is read
/// and dropped, until the web server closes its end.
pub fn end_response(response: impl AsFd, body_left: bool) {
    // Other holders of a socket, such as children of the application, do not keep the response open
    // then. A pipe has no such end, and needs none: it has nothing but the response in it.
    if shutdown(response.as_fd(), Shutdown::Write).is_ok() && body_left {
        drop_the_rest(response.as_fd());
    }
}

/// Reads until the other end is closed, or silent for too long, or does not come to an end. Not a
/// part of its caller, whose stack would have this piece, too.
#[inline(never)]
fn drop_the_rest(response: BorrowedFd<'_>) {
    let patience =
        Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut dropped = [0; 64 * 1024];
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        match poll(&mut [PollFd::from_borrowed_fd(response, PollFlags::IN)], Some(&patience)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        match read(response, &mut dropped) {
            Ok(1..) | Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
        thread,
    };

    use super::*;

    #[test]
    fn a_response_arrives_though_its_body_is_still_being_sent() {
        let (mut server, program) = UnixStream::pair().unwrap();
        let sent = thread::spawn(move || {
            server.write_all(&vec![b'x'; 5_000_000]).unwrap();
            let mut response = String::new();
            server.read_to_string(&mut response).unwrap();
            response
        });
        (&program).write_all(b"the response").unwrap();
        end_response(program, true);
        assert_eq!(sent.join().unwrap(), "the response");
    }

    #[test]
    fn a_response_ends_though_another_holds_its_socket() {
        let (mut server, program) = UnixStream::pair().unwrap();
        let another = program.try_clone().unwrap();
        end_response(program, false);
        let mut response = String::new();
        server.read_to_string(&mut response).unwrap();
        drop(another);
    }
}
