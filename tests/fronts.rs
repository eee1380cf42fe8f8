//! What visitors get through real web servers: Apache with mod_cgid, Apache with mod_cgi, lighttpd.
//!
//! A behaviour is a function over a front; every front is asked the same. Here belongs what a web server takes part in;
//! what the reply to given variables and bytes is, other files test without one.

mod addresses;
mod bodies;
mod failures;
mod frameworks;
mod replies;
mod requests;
mod streams;

/// A test for each of the behaviours behind each of the fronts.
macro_rules! behind_every_front {
    ($($behaviour:ident)*) => {
        mod apache_cgid {
            use crate::front::{Apache, CgiModule};
            $(#[test] fn $behaviour() { super::$behaviour(&mut Apache::with(CgiModule::Cgid)); })*
        }
        mod apache_cgi {
            use crate::front::{Apache, CgiModule};
            $(#[test] fn $behaviour() { super::$behaviour(&mut Apache::with(CgiModule::Cgi)); })*
        }
        mod lighttpd {
            use crate::front::Lighttpd;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Lighttpd::start()); })*
        }
    };
}
use behind_every_front;
