//! Responses through real web servers. CGI in cold, warm and resident mode: Apache with mod_cgid,
//! Apache with mod_cgi, lighttpd. FastCGI: Apache with mod_fcgid, Apache with mod_proxy_fcgi (Unix
//! sockets and TCP), nginx, Caddy, HAProxy, lighttpd. A behaviour is a function over a web server,
//! and every web server gets the same tests. Behaviour that needs no web server is tested
//! elsewhere.

pub(crate) mod addresses;
pub(crate) mod bodies;
pub(crate) mod cuts;
pub(crate) mod deaths;
pub(crate) mod directories;
mod exposed_directories;
pub(crate) mod exposure;
pub(crate) mod failures;
pub(crate) mod frameworks;
pub(crate) mod handover;
pub(crate) mod kept;
pub(crate) mod kills;
pub(crate) mod leaving;
pub(crate) mod lengths;
pub(crate) mod logs;
pub(crate) mod managers;
mod offloading;
mod proxies;
pub(crate) mod requests;
pub(crate) mod responses;
pub(crate) mod stalls;
pub(crate) mod streams;
pub(crate) mod surplus;
pub(crate) mod variables;
pub(crate) mod warm;
pub(crate) mod workers;

/// A test for each of the behaviours behind each of the fronts.
macro_rules! behind_every_web_server {
    ($($behaviour:ident)*) => {
        $crate::web_servers::behind_every_cgi_web_server! { $($behaviour)* }
        $crate::web_servers::behind_every_fastcgi_web_server! { $($behaviour)* }
    };
}
use behind_every_web_server;

/// Tests of a behaviour behind every CGI web server, in cold, warm and resident mode.
macro_rules! behind_every_cgi_web_server {
    ($($behaviour:ident)*) => {
        $crate::web_servers::behind_every_cold_web_server! { $($behaviour)* }
        $crate::web_servers::behind_every_warm_web_server! { $($behaviour)* }
        $crate::web_servers::behind_every_resident_web_server! { $($behaviour)* }
    };
}
use behind_every_cgi_web_server;

/// Tests of a behaviour behind every CGI web server, in cold mode.
macro_rules! behind_every_cold_web_server {
    ($($behaviour:ident)*) => {
        mod apache_cgid {
            use crate::support::web_servers::{Apache, CgiModule};
            $(#[test] fn $behaviour() { super::$behaviour(&mut Apache::with(CgiModule::Cgid)); })*
        }
        mod apache_cgi {
            use crate::support::web_servers::{Apache, CgiModule};
            $(#[test] fn $behaviour() { super::$behaviour(&mut Apache::with(CgiModule::Cgi)); })*
        }
        mod lighttpd {
            use crate::support::web_servers::Lighttpd;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Lighttpd::start()); })*
        }
    };
}
use behind_every_cold_web_server;

/// Tests of a behaviour behind every CGI web server, in warm mode.
macro_rules! behind_every_warm_web_server {
    ($($behaviour:ident)*) => {
        mod apache_cgid_warm {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgid, "warm")); })*
        }
        mod apache_cgi_warm {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgi, "warm")); })*
        }
        mod lighttpd_warm {
            use crate::support::web_servers::Warm;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Warm::lighttpd("warm")); })*
        }
    };
}
use behind_every_warm_web_server;

/// Tests of a behaviour behind every CGI web server, in resident mode.
macro_rules! behind_every_resident_web_server {
    ($($behaviour:ident)*) => {
        mod apache_cgid_resident {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgid, "resident")); })*
        }
        mod apache_cgi_resident {
            use crate::support::web_servers::{CgiModule, Warm};
            $(#[test]
            fn $behaviour() { super::$behaviour(&mut Warm::apache(CgiModule::Cgi, "resident")); })*
        }
        mod lighttpd_resident {
            use crate::support::web_servers::Warm;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Warm::lighttpd("resident")); })*
        }
    };
}
use behind_every_resident_web_server;

/// Tests of a behaviour behind every FastCGI web server.
macro_rules! behind_every_fastcgi_web_server {
    ($($behaviour:ident)*) => {
        mod apache_fcgid {
            use crate::support::web_servers::ApacheFcgid;
            $(#[test] fn $behaviour() { super::$behaviour(&mut ApacheFcgid::start()); })*
        }
        mod lighttpd_fastcgi {
            use crate::support::web_servers::LighttpdFastcgi;
            $(#[test] fn $behaviour() { super::$behaviour(&mut LighttpdFastcgi::start()); })*
        }
        $crate::web_servers::behind_every_pool_web_server! { $($behaviour)* }
    };
}
use behind_every_fastcgi_web_server;

/// Tests of a behaviour behind every web server that connects to pools.
macro_rules! behind_every_pool_web_server {
    ($($behaviour:ident)*) => {
        mod apache_proxy_fcgi {
            use crate::support::web_servers::ApacheProxyFcgi;
            $(#[test] fn $behaviour() { super::$behaviour(&mut ApacheProxyFcgi::start()); })*
        }
        mod apache_proxy_fcgi_tcp {
            use crate::support::web_servers::ApacheProxyFcgi;
            $(#[test] fn $behaviour() { super::$behaviour(&mut ApacheProxyFcgi::over_tcp()); })*
        }
        mod nginx {
            use crate::support::web_servers::Nginx;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Nginx::start()); })*
        }
        mod caddy {
            use crate::support::web_servers::Caddy;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Caddy::start()); })*
        }
        mod haproxy {
            use crate::support::web_servers::Haproxy;
            $(#[test] fn $behaviour() { super::$behaviour(&mut Haproxy::start()); })*
        }
    };
}
use behind_every_pool_web_server;
