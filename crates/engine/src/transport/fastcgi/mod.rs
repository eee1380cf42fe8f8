//! FastCGI 1.0: the requests of a connection, one after the other.
//!
//! Parameters are collected without waiting, so that a slow web server occupies no thread. After
//! the parameters, the connection belongs to the thread that serves the request, and reading the
//! body waits. Responses are sent as records around the application's bytes, which are not copied.
//!
//! mod_fcgid sends the whole body before it reads the first byte of the response. So the engine
//! spools the body while the response cannot be sent, and the application reads from the spool.

mod active_request;
mod body;
mod connection;
mod cut_response;
mod error_records;
mod lingering_close;
mod records;
mod request;
mod response;
mod room;
mod settings;
mod shared;
mod socket;
mod violations;

pub(crate) use crate::transport::fastcgi::connection::FastCgiConnection;
