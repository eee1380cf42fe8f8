//! `FCGI_WEB_SERVER_ADDRS` and the sockets of a pool: no connection over a Unix socket has an address
//! that could be listed (FastCGI 1.0, 3.2), so each would be closed.

use std::env;

use fastcgi_server::addresses::Addresses;
use link::entry::{Code, Entry};
use rustix::net::{AddressFamily, sockopt};

use super::listen::Listener;
use crate::settings::Settings;

/// Looks whether anybody could connect. Gives a warning if some sockets are of no use.
///
/// # Errors
/// The log message, if nobody could connect.
pub(super) fn check(settings: &Settings, listeners: &[Listener]) -> Result<Option<Entry>, Entry> {
    let is_set = env::var_os(Addresses::VARIABLE).is_some()
        || settings.variables.iter().any(|(name, _)| name == Addresses::VARIABLE);
    if !is_set {
        return Ok(None);
    }
    let is_unix = |listener: &&Listener| {
        sockopt::socket_domain(&listener.socket).is_ok_and(|family| family == AddressFamily::UNIX)
    };
    let unix: Vec<_> = listeners.iter().filter(is_unix).map(|listener| format!("`{}`", listener.address)).collect();
    if unix.is_empty() {
        return Ok(None);
    }
    let sentence = format!("{} allows no connection to {}, a Unix socket", Addresses::VARIABLE, unix.join(", "));
    let hint = "unset the variable, which lists addresses of TCP; the permissions of a Unix socket say who may connect";
    if unix.len() == listeners.len() {
        Err(Entry::error(Code::BadSetting, sentence).hint(hint))
    } else {
        Ok(Some(Entry::warning(Code::BadSetting, sentence).hint(hint)))
    }
}
