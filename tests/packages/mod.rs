//! Packages that users run, as they are published: what a client sees and what is kept, in each
//! mode.
//!
//! `apps/` holds a script for each, which is set up as the documentation of the package says. A
//! test is a function over a web server. The first module of each, `cgi_handler`, shows that the
//! test itself is right: the same script there runs under Python's own CGI gateway.

mod frameworks;
mod matplotlib;
mod prometheus;
mod radicale;
mod trac;
mod wsgidav;
mod zope;

/// A test for each of the behaviours in one mode: under Python's own CGI gateway (`cgi_handler`),
/// `cold`, `warm`, `resident`, or in a FastCGI `pool` of two workers.
macro_rules! in_mode {
    (cgi_handler: $($behaviour:ident)*) => {
        mod cgi_handler {
            use crate::support::web_servers::{Apache, CgiModule, ApacheSetup, WebSite};
            $(#[test] fn $behaviour() {
                let site = WebSite::under_cgi_handler();
                let setup = ApacheSetup::ScriptAlias;
                super::$behaviour(&mut Apache::start(CgiModule::Cgid, setup, site));
            })*
        }
    };
    (cold: $($behaviour:ident)*) => {
        mod cold {
            use crate::support::web_servers::{Apache, CgiModule};
            $(#[test] fn $behaviour() { super::$behaviour(&mut Apache::with(CgiModule::Cgid)); })*
        }
    };
    (warm: $($behaviour:ident)*) => {
        mod warm {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgid, "warm")); })*
        }
    };
    (resident: $($behaviour:ident)*) => {
        mod resident {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgid, "resident")); })*
        }
    };
    (pool: $($behaviour:ident)*) => {
        mod pool {
            use crate::support::web_servers::Nginx;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Nginx::start()); })*
        }
    };
}
use in_mode;

/// Tests of a behaviour in every mode.
macro_rules! in_every_mode {
    ($($behaviour:ident)*) => {
        $crate::packages::in_mode! { cgi_handler: $($behaviour)* }
        $crate::packages::in_mode! { cold: $($behaviour)* }
        $crate::packages::in_mode! { warm: $($behaviour)* }
        $crate::packages::in_mode! { resident: $($behaviour)* }
        $crate::packages::in_mode! { pool: $($behaviour)* }
    };
}
use in_every_mode;

use std::process::Command;

use crate::support::web_servers::WebServer;

/// Runs a program of the virtualenv's as the web server's user, to set something up; gives what it
/// prints.
#[track_caller]
fn set_up(web_server: &dyn WebServer, program: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command: Command =
        web_server.site().as_server(crate::support::web_servers::venv().join("bin").join(program));
    command.args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
