//! CGI/1.1 (RFC 3875): the request body comes from one file descriptor, the response goes to
//! another.
//!
//! Web servers write the whole request body before they read the first byte of the response. If an
//! application responds without reading the body, both sides would wait forever. So the engine
//! spools the body while the response cannot be written, and the application reads from the spool.

mod body;
mod request;
mod response;

pub(crate) use crate::transport::cgi::{
    body::CgiBody,
    request::{CgiRequest, close_hangs},
    response::{CgiResponse, ResponseEnding},
};
