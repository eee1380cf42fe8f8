//! The arguments of `wsgate monitor`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    config::options::LogForm,
    pool::{
        address::Address,
        socket_access::{FileMode, SocketOwner},
    },
};

/// Permissions of the monitor's Unix sockets: the status names requests of all pools.
const DEFAULT_SOCKET_MODE: FileMode = FileMode(0o600);

/// The arguments of `wsgate monitor`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub(crate) struct MonitorArgs {
    /// Listen on ADDRESS: HOST:PORT, unix:PATH, or fd:N for an inherited listening socket
    /// (repeatable) [default: the sockets that systemd passes, or 127.0.0.1:9180]
    ///
    /// Addresses other than loopback need --token-file.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Vec<Address>,

    /// Set the permissions of Unix sockets, in octal
    #[arg(long, value_name = "MODE", default_value_t = DEFAULT_SOCKET_MODE)]
    pub(super) socket_mode: FileMode,

    /// Set the owner of Unix sockets: USER, USER:GROUP or :GROUP, names or numbers [default: the
    /// user of the monitor]
    #[arg(long, value_name = "OWNER")]
    pub(super) socket_owner: Option<SocketOwner>,

    /// Read the token that clients must send from the first line of FILE
    ///
    /// Clients send `Authorization: Bearer TOKEN`. A browser asks for a password, which is the
    /// token. No other user may be able to read FILE. /healthz needs no token.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Write log messages in FORMAT [default: text]
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = "Logging")]
    pub(super) log_format: Option<LogForm>,
}

impl MonitorArgs {
    /// The message about an option that has no effect, where only the addresses show that.
    pub(super) fn without_effect(&self, has_socket_file: bool) -> Option<String> {
        let options = [
            ("socket-owner", self.socket_owner.is_some()),
            ("socket-mode", self.socket_mode != DEFAULT_SOCKET_MODE),
        ];
        let (option, _) = options.iter().find(|(_, is_set)| *is_set && !has_socket_file)?;
        Some(format!("--{option} has no effect without `--listen unix:PATH`"))
    }
}
