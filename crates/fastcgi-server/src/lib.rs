//! FastCGI 1.0 without I/O.
//!
//! Bytes go in, events and bytes come out; sockets, threads and waiting are the caller's. So the
//! same code serves a blocking loop, an event loop and a test.
//!
//! - [`Connection`] is what an application holds for each connection from a web server:
//!   [`Connection::receive`] makes [`Event`]s of bytes, wherever these are split. Contents of
//!   streams are not copied.
//! - [`Output`] makes the records of a response: headers to send around contents that stay where
//!   they are, or whole records in a vector.
//! - [`client`] is the other side, for tools and tests.
//! - [`record`], [`bodies`], [`pairs`], [`values`] and [`addresses`] are the values that all this
//!   consists of.
//!
//! The specification is the "FastCGI Specification", version 1.0 of 29 April 1996; numbers such as
//! "(5.4)" are its sections.
//!
//! # A request from its first byte to its last
//!
//! ```
//! use fastcgi_server::{Connection, Event, Limits, Output, Stream, bodies::Role, client};
//!
//! // What a web server sends.
//! let mut input = Vec::new();
//! let request = client::Request::new(std::num::NonZero::<u16>::MIN);
//! request.append_begin(Role::Responder, true, &mut input);
//! request.append_params([("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "4")], &mut input)?;
//! request.append_stdin(b"ping", &mut input);
//! request.append_end_of_stdin(&mut input);
//!
//! // What an application does with whatever it has read.
//! let mut connection = Connection::new(Limits::default());
//! let (mut at, mut body, mut response) = (0, Vec::new(), Vec::new());
//! loop {
//!     let step = connection.receive(&input[at..])?;
//!     at += step.consumed;
//!     match step.event {
//!         None => break, // read more, or wait
//!         Some(Event::Begin { .. }) => body.clear(),
//!         Some(Event::Params { params, .. }) => {
//!             assert_eq!(params.get(b"REQUEST_METHOD"), Some(&b"POST"[..]));
//!             connection.reuse(params);
//!         }
//!         Some(Event::Stdin { bytes, .. }) => body.extend_from_slice(bytes),
//!         Some(Event::StdinEnd { id, .. }) => {
//!             let output = Output::new(id);
//!             output.append(Stream::Stdout, b"Status: 200 OK\r\n\r\n", &mut response);
//!             output.append(Stream::Stdout, &body, &mut response);
//!             response.extend_from_slice(&output.ending(0, false));
//!             connection.finish(id);
//!         }
//!         Some(Event::Abort { id }) => {
//!             let ended = Output::new(id).ending(1, false);
//!             response.extend_from_slice(&ended);
//!             connection.finish(id);
//!         }
//!         Some(Event::BadParams { id, .. }) => {
//!             let output = Output::new(id);
//!             output.append(Stream::Stdout, b"Status: 400 Bad Request\r\n\r\n", &mut response);
//!             response.extend_from_slice(&output.ending(0, false));
//!             connection.finish(id);
//!         }
//!         Some(Event::Response(answer)) => answer.append_to(&mut response),
//!     }
//! }
//! assert!(connection.is_idle() && !connection.must_close());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a peer can do
//!
//! Nothing that a peer sends makes this crate panic, overflow, allocate by an announced length, or
//! keep more than [`Limits`] allow. A peer that breaks the protocol gets an [`Error`], after which
//! the connection is of no use; a request whose parameters are wrong or too many gets
//! [`Event::BadParams`], and the connection lives on.
//!
//! How long a peer may take is not known here. A connection that is not [idle](Connection::is_idle)
//! needs a deadline.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod bodies;
pub mod client;
mod events;
mod frames;
mod limits;
mod output;
pub mod pairs;
mod params;
mod reader;
pub mod record;
mod request;
mod server;
pub mod values;

pub use self::{
    events::{Error, Event, Expected, Response, Step},
    frames::{Frame, Frames},
    limits::Limits,
    output::{Ending, Output, Stream},
    params::{Iter, Params, ParamsError},
    record::RequestId,
    server::Connection,
};
