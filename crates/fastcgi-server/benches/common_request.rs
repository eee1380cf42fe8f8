//! What the usual request costs: begin, about a kilobyte of parameters, no body, all in one read;
//! then a small response.
//!
//! `cargo bench -p fastcgi-server`. The fastest of many rounds counts, since nothing makes a round
//! faster than it is.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for one person at a terminal"
)]

use std::{hint::black_box, time::Instant};

use fastcgi_server::{Connection, Event, Limits, Output, RequestId, Stream, bodies::Role, client};

const ROUNDS: usize = 100;
const REQUESTS: u32 = 10_000;

/// As nginx sends them with its `fastcgi_params` and a browser in front.
const PARAMS: [(&str, &str); 29] = [
    ("QUERY_STRING", "page=2&sort=name"),
    ("REQUEST_METHOD", "GET"),
    ("CONTENT_TYPE", ""),
    ("CONTENT_LENGTH", ""),
    ("SCRIPT_NAME", "/items/list"),
    ("REQUEST_URI", "/items/list?page=2&sort=name"),
    ("DOCUMENT_URI", "/items/list"),
    ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REQUEST_SCHEME", "https"),
    ("HTTPS", "on"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/1.22.1"),
    ("REMOTE_ADDR", "203.0.113.57"),
    ("REMOTE_PORT", "53124"),
    ("SERVER_ADDR", "198.51.100.7"),
    ("SERVER_PORT", "443"),
    ("SERVER_NAME", "www.example.org"),
    ("REDIRECT_STATUS", "200"),
    ("HTTP_HOST", "www.example.org"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (
        "HTTP_ACCEPT",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("HTTP_ACCEPT_LANGUAGE", "en-GB,en;q=0.5"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"),
    ("HTTP_CONNECTION", "keep-alive"),
    ("HTTP_REFERER", "https://www.example.org/items/"),
    ("HTTP_COOKIE", "session=0f1e2d3c4b5a69788796a5b4c3d2e1f0; theme=dark"),
    ("HTTP_UPGRADE_INSECURE_REQUESTS", "1"),
    ("HTTP_SEC_FETCH_MODE", "navigate"),
];

fn main() {
    let mut input = Vec::new();
    let request = client::Request::new(RequestId::MIN);
    request.append_begin(Role::Responder, true, &mut input);
    request.append_params(PARAMS, &mut input).unwrap();
    request.append_end_of_stdin(&mut input);
    println!("a request of {} bytes with {} parameters", input.len(), PARAMS.len());

    let mut connection = Connection::new(Limits::default());
    report("received and finished, buffer handed back", || {
        serve(&mut connection, &input, |_, _| {});
    });
    report("the same, and every parameter visited", || {
        serve(&mut connection, &input, |_, params| {
            for pair in params {
                black_box(pair);
            }
        });
    });
    let mut response = Vec::with_capacity(1024);
    report("the same, and a response of 200 bytes in a vector", || {
        response.clear();
        serve(&mut connection, &input, |id, params| {
            for pair in params {
                black_box(pair);
            }
            let output = Output::new(id);
            output.append(Stream::Stdout, &[b'x'; 200], &mut response);
            response.extend_from_slice(&output.ending(0, false));
        });
        black_box(&response);
    });
    report("received on a new connection, nothing handed back", || {
        let mut connection = Connection::new(Limits::default());
        let mut at = 0;
        loop {
            let step = connection.receive(&black_box(&input)[at..]).unwrap();
            at += step.consumed;
            if black_box(step.event).is_none() {
                break;
            }
        }
    });
}

fn serve(
    connection: &mut Connection,
    input: &[u8],
    mut answer: impl FnMut(RequestId, &fastcgi_server::Params),
) {
    let mut at = 0;
    loop {
        let step = connection.receive(&black_box(input)[at..]).unwrap();
        at += step.consumed;
        match step.event {
            None => break,
            Some(Event::Params { id, params }) => {
                answer(id, &params);
                connection.reuse(params);
            }
            Some(Event::StdinEnd { id, .. }) => connection.finish(id),
            Some(_) => {}
        }
    }
}

fn report(what: &str, mut once: impl FnMut()) {
    let round = || {
        let start = Instant::now();
        (0..REQUESTS).for_each(|_| once());
        start.elapsed() / REQUESTS
    };
    let fastest = std::iter::repeat_with(round).take(ROUNDS).min().unwrap_or_default();
    println!("{:>6} ns  {what}", fastest.as_nanos());
}
