//! FastCGI 1.0: the requests of a connection, one after the other.
//!
//! Parameters are gathered without waiting, so that a slow web server occupies no thread. From the
//! end of the parameters on the connection belongs to the thread that serves the request, and
//! reading the body waits. Responses leave in records around the application's own bytes, which are
//! not copied.
//!
//! mod_fcgid sends the whole body before it reads the first byte of the response. So, while a
//! response cannot be sent, the body is spooled, and the application reads it from there.

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
