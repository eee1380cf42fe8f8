//! CGI/1.1 (RFC 3875): the request body comes from one descriptor, the response goes to another.
//!
//! Web servers write the whole request body before they read the first byte of the response. An
//! application that responds without reading would wait for them while they wait for it. So, while
//! a response cannot be written, the body is spooled, and the application reads it from there.

mod body;
mod response;

pub(crate) use crate::transport::cgi::{
    body::CgiBody,
    response::{CgiResponse, ResponseEnding},
};
