//! `FCGI_WEB_SERVER_ADDRS` and the sockets of a pool (FastCGI 1.0, 3.2).
//!
//! The variable lists IP addresses. A connection over a Unix socket has no IP address, so every
//! such connection would be closed.

use std::{env, ffi::OsString};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::net::{AddressFamily, sockopt};

use crate::{
    config::settings::Settings,
    pool::{address::Address, listeners::Listener},
    system::hosts,
};

/// The value in the environment of workers.
pub(super) fn list(settings: &Settings) -> Option<OsString> {
    let named = settings.variables.iter().rev().find(|(name, _)| name == Addresses::VARIABLE);
    named.map(|(_, value)| value.clone()).or_else(|| env::var_os(Addresses::VARIABLE))
}

/// The warning about those of `addresses` that clients of other machines can reach, if no variable
/// says which may connect: each could run the application with parameters of its choice.
pub(super) fn open_to_all<'a>(
    settings: &Settings,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Option<LogMessage> {
    if list(settings).is_some() {
        return None;
    }
    let open: Vec<_> = addresses
        .into_iter()
        .filter(|address| match address {
            Address::Tcp(name) => hosts::addresses(name)
                .is_ok_and(|all| all.iter().any(|one| !one.ip().to_canonical().is_loopback())),
            Address::Unix(_) | Address::Descriptor(_) => false,
        })
        .map(|address| format!("`{address}`"))
        .collect();
    if open.is_empty() {
        return None;
    }
    let sentence = format!(
        "every client that can reach {} may run the application: FastCGI has no passwords",
        open.join(", ")
    );
    Some(LogMessage::new(Code::EveryoneMayConnect, sentence).hint(format!(
        "list the addresses of the web servers: --env {}=192.0.2.1,192.0.2.2; or listen at \
         127.0.0.1 or a Unix socket",
        Addresses::VARIABLE
    )))
}

/// Checks whether web servers can connect. Returns a warning if some sockets are useless.
///
/// # Errors
/// The log message, if no web server could connect at all.
pub(super) fn check(
    settings: &Settings,
    listeners: &[Listener],
) -> Result<Option<LogMessage>, LogMessage> {
    if list(settings).is_none() {
        return Ok(None);
    }
    let is_unix = |listener: &&Listener| {
        sockopt::socket_domain(&listener.socket).is_ok_and(|family| family == AddressFamily::UNIX)
    };
    let unix: Vec<_> = listeners
        .iter()
        .filter(is_unix)
        .map(|listener| format!("`{}`", listener.address))
        .collect();
    if unix.is_empty() {
        return Ok(None);
    }
    let sentence = format!(
        "{} allows no connection to {}, a Unix socket",
        Addresses::VARIABLE,
        unix.join(", ")
    );
    let hint = "unset the variable, which lists IP addresses; the permissions of a Unix socket say \
        who may connect";
    if unix.len() == listeners.len() {
        Err(LogMessage::new(Code::BadSetting, sentence).hint(hint))
    } else {
        Ok(Some(LogMessage::new(Code::NobodyMayConnect, sentence).hint(hint)))
    }
}
