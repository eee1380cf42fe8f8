//! FastCGI 1.0 without I/O.
//!
//! The caller passes received bytes in, and gets events and bytes to send. Sockets, threads and
//! timeouts belong to the caller, so the same code serves a blocking loop, an event loop and a
//! test.
//!
//! - [`Connection`] is the state of one connection from a web server. [`Connection::receive`] turns
//!   bytes into [`Event`]s, wherever the bytes are split. Contents of streams are not copied.
//! - [`Output`] makes the records of a response: either the bytes around contents that are sent
//!   without copying, or whole records in a vector.
//! - [`client`] is the web server's side of a connection, for tools and tests.
//! - [`record`], [`bodies`], [`pairs`], [`values`] and [`addresses`] are the values from which
//!   records are built.
//!
//! The specification is the "FastCGI Specification", version 1.0 of 29 April 1996. Numbers such as
//! "(5.4)" are its sections.
//!
//! # A request from its first byte to its last
//!
//! ```
//! use fastcgi_server::{Connection, Event, Limits, Output, Stream, bodies::Role, client};
//!
//! // The bytes from a web server.
//! let mut input = Vec::new();
//! let request = client::Request::new(std::num::NonZero::<u16>::MIN);
//! request.append_begin(Role::Responder, true, &mut input);
//! request.append_params([("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "4")], &mut input)?;
//! request.append_stdin(b"ping", &mut input);
//! request.append_end_of_stdin(&mut input);
//!
//! // The application handles the received bytes.
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
//! keep more than [`Limits`] allow. A peer that breaks the protocol causes an [`Error`], after
//! which the connection cannot be used. A request with invalid or too many parameters causes
//! [`Event::BadParams`], and the connection stays usable.
//!
//! This crate has no timeouts. The caller sets a deadline for a connection that is not
//! [idle](Connection::is_idle).

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
