//! The lingering close at the end of a CGI response, so that the web server gets all of it.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
    net::{Shutdown, shutdown},
};

/// Longest pause of a web server that is still sending a request body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that the rest of a request body is read for.
const LINGER_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends the response on `response` and closes the descriptor. With `body_left`, part of the request
/// body may still be unread.
///
/// Apache's mod_cgid gives a program one socket as standard input and output. It sends the whole
/// request body before it reads the response, and loses the response if the program closes the
/// socket while body is still in it: the kernel resets the connection then. So the rest of the body
/// is read and dropped, until the web server closes its end.
pub fn end_response(response: impl AsFd, body_left: bool) {
    // Other holders of a socket, such as children of the application, do not keep the response open
    // then. A pipe cannot be shut down and need not be: nothing but the response is in it.
    if shutdown(response.as_fd(), Shutdown::Write).is_ok() && body_left {
        drop_rest(response.as_fd());
    }
}

/// Reads until the web server closes its end, or until a timeout. Not inlined: the buffer would
/// stand on the caller's stack, too.
#[inline(never)]
fn drop_rest(response: BorrowedFd<'_>) {
    let timeout =
        Timespec { tv_sec: i64::try_from(READ_TIMEOUT.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut dropped = [0; 64 * 1024];
    let begun = Instant::now();
    while begun.elapsed() < LINGER_TIMEOUT {
        match poll(&mut [PollFd::from_borrowed_fd(response, PollFlags::IN)], Some(&timeout)) {
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
    fn a_response_ends_though_another_process_holds_its_socket() {
        let (mut server, program) = UnixStream::pair().unwrap();
        let another = program.try_clone().unwrap();
        end_response(program, false);
        let mut response = String::new();
        server.read_to_string(&mut response).unwrap();
        drop(another);
    }
}
