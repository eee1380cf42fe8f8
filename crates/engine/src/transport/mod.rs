//! What brings requests to the engine. Each transport makes an [`crate::wsgi::Exchange`].

mod aside;
pub(crate) mod cgi;
pub(crate) mod fastcgi;
