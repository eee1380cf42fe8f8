//! An application that greets, over TCP and one connection at a time: `cargo run --example hello
//! [ADDRESS]`.
//!
//! Shows the whole life of a connection. A real program would serve several at once.

#![expect(clippy::print_stderr, reason = "its log")]

use std::{
    env,
    error::Error,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use fastcgi_server::{
    Connection, Event, Limits, Output, Params, ParamsError, Stream, bodies::ProtocolStatus,
};

/// How long a web server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let listener = TcpListener::bind(address)?;
    loop {
        let (socket, peer) = listener.accept()?;
        if let Err(error) = serve(socket) {
            eprintln!("{peer}: {error}");
        }
    }
}

/// Serves the requests of one connection until either side closes it.
fn serve(mut socket: TcpStream) -> Result<(), Box<dyn Error>> {
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    // One connection and one request at a time is what this program can do, so that is what it
    // says.
    let limits = Limits { max_conns: Some(1), max_reqs: Some(1), ..Limits::default() };
    let mut connection = Connection::new(limits);
    let (mut buffer, mut out, mut greeting) = ([0; 16384], Vec::new(), String::new());
    while !connection.must_close() {
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            // The web server has closed the connection, which aborts its requests.
            return Ok(());
        }
        let mut rest = &buffer[..length];
        loop {
            let step = connection.receive(rest)?;
            rest = &rest[step.consumed..];
            match step.event {
                None => break,
                Some(Event::Params { params, .. }) => {
                    greeting = greet(&params);
                    connection.reuse(params);
                }
                Some(Event::StdinEnd { id, length }) => {
                    let output = Output::new(id);
                    let page = format!("{greeting}You sent {length} bytes.\n");
                    output.append(
                        Stream::Stdout,
                        b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n",
                        &mut out,
                    );
                    output.append(Stream::Stdout, page.as_bytes(), &mut out);
                    out.extend_from_slice(&output.ending(0, false));
                    connection.finish(id);
                }
                Some(Event::BadParams { id, error }) => {
                    let output = Output::new(id);
                    let status: &[u8] = match error {
                        ParamsError::TooLong { .. } | ParamsError::TooMany { .. } => {
                            b"Status: 431 Request Header Fields Too Large\r\n\r\n"
                        }
                        ParamsError::Truncated { .. } => b"Status: 400 Bad Request\r\n\r\n",
                    };
                    output.append(Stream::Stdout, status, &mut out);
                    output.append(Stream::Stderr, error.to_string().as_bytes(), &mut out);
                    out.extend_from_slice(&output.ending(0, true));
                    connection.finish(id);
                }
                Some(Event::Abort { id }) => {
                    out.extend_from_slice(
                        &Output::new(id).end_request(1, ProtocolStatus::RequestComplete),
                    );
                    connection.finish(id);
                }
                // This program is a responder and not an authorizer.
                Some(Event::Begin { id, role, .. }) if !role.has_stdin() => {
                    connection.refuse(id, ProtocolStatus::UnknownRole).append_to(&mut out);
                }
                Some(Event::Response(response)) => response.append_to(&mut out),
                Some(Event::Begin { .. } | Event::Stdin { .. }) => {}
            }
        }
        socket.write_all(&out)?;
        out.clear();
    }
    Ok(())
}

fn greet(params: &Params) -> String {
    let text =
        |name: &str| String::from_utf8_lossy(params.get(name.as_bytes()).unwrap_or_default());
    format!(
        "Hello, {}!\nThis is {} of {}.\n",
        text("REMOTE_ADDR"),
        text("REQUEST_METHOD"),
        text("REQUEST_URI")
    )
}
