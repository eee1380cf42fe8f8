//! A load generator: `cargo run --release --example load -- SOCKET CONNECTIONS REQUESTS [keep]`.
//!
//! So many connections to a Unix socket make so many requests together, with parameters as nginx sends them; with `keep` each
//! connection is kept, otherwise each request has its own. Prints requests a second, and how many failed: a reply that is not whole,
//! or not the same as the first, is a failure and no speed.

#![expect(clippy::print_stdout, reason = "its result")]

use std::{
    env, io,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::Instant,
};

use fastcgi_server::{
    Input, RequestId,
    bodies::Role,
    client::{Connection, Event, Request},
};

/// What nginx sends for a small page.
const PARAMETERS: [(&str, &str); 26] = [
    ("QUERY_STRING", ""),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("CONTENT_LENGTH", ""),
    ("SCRIPT_NAME", ""),
    ("PATH_INFO", "/hello"),
    ("REQUEST_URI", "/hello"),
    ("DOCUMENT_URI", "/hello"),
    ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REQUEST_SCHEME", "http"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/1.22.1"),
    ("REMOTE_ADDR", "127.0.0.1"),
    ("REMOTE_PORT", "50123"),
    ("SERVER_ADDR", "127.0.0.1"),
    ("SERVER_PORT", "80"),
    ("SERVER_NAME", "localhost"),
    ("REDIRECT_STATUS", "200"),
    ("HTTP_HOST", "localhost"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate"),
    ("HTTP_CONNECTION", "keep-alive"),
    ("HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [socket, connections, requests, rest @ ..] = words.as_slice() else {
        return Err("usage: load SOCKET CONNECTIONS REQUESTS [keep]".into());
    };
    let (connections, requests): (usize, usize) = (connections.parse()?, requests.parse()?);
    let keep = rest.first().is_some_and(|word| word == "keep");
    let mut bytes = Vec::new();
    let request = Request::new(RequestId::MIN);
    request.append_begin(Role::Responder, keep, &mut bytes);
    request.append_params(PARAMETERS, &mut bytes)?;
    request.append_end_of_input(Input::Stdin, &mut bytes);
    let expected = exchange(&mut UnixStream::connect(socket)?, &bytes)?;

    let begin = Instant::now();
    let failures: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| make(socket, requests / connections, keep, &bytes, &expected)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(requests)).sum()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let made = requests / connections * connections;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let rate = made as f64 / seconds;
    println!("requests {made} failed {failures} seconds {seconds:.3} rate {rate:.0}");
    Ok(())
}

/// Makes `count` requests and tells how many failed.
fn make(socket: &str, count: usize, keep: bool, request: &[u8], expected: &[u8]) -> usize {
    let mut kept: Option<UnixStream> = None;
    let mut failures = 0;
    for _ in 0..count {
        let replied = kept.take().map_or_else(|| UnixStream::connect(socket), Ok).and_then(|mut stream| {
            let reply = exchange(&mut stream, request)?;
            if keep {
                kept = Some(stream);
            }
            Ok(reply)
        });
        failures += usize::from(!replied.is_ok_and(|reply| reply == expected));
    }
    failures
}

/// One request, and the whole of its standard output.
fn exchange(stream: &mut UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut connection = Connection::new();
    let (mut buffer, mut reply) = ([0; 16384], Vec::new());
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &buffer[..length];
        loop {
            let step = connection.receive(rest).map_err(io::Error::other)?;
            rest = &rest[step.consumed..];
            match step.event {
                None => break,
                Some(Event::Stdout { bytes, .. }) => reply.extend_from_slice(bytes),
                Some(Event::End { .. }) => return Ok(reply),
                Some(_) => {}
            }
        }
    }
}
