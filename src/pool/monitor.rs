//! `wsgate monitor`: opens the listening sockets, and becomes `wsgate-http`, which speaks HTTP.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use diagnostics::message::{Code, LogMessage};
use wire::{
    descriptors::MAX_DESCRIPTORS,
    monitor::{MonitorLaunch, MonitorListener},
};

use crate::{
    exit::CommandError,
    guard::start::log_settings,
    pool::{
        address::Address, file_creator::FileCreator, http_program,
        inherited_sockets::InheritedSockets, listen_error::refused, listeners::Listener,
        monitor_args::MonitorArgs, socket_access::SocketAccess, unix_listener::SocketFile,
    },
    system::log_style,
};

/// The name of a monitor in its log messages.
const LOG_NAME: &str = "monitor";

/// Where a monitor listens by default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9180";

/// Minimum length of a token in bytes.
const MIN_TOKEN_BYTES: usize = 16;

/// Maximum length of a token in bytes.
const MAX_TOKEN_BYTES: usize = 1024;

/// Becomes the monitor. Returns only if that fails.
pub(crate) fn run(args: &MonitorArgs) -> CommandError {
    match start(args) {
        Ok(error) | Err(error) => error,
    }
}

fn start(args: &MonitorArgs) -> Result<CommandError, CommandError> {
    log_style::set_for_pool(args.log_format.unwrap_or_default().into(), LOG_NAME.to_owned());
    // Before any file is opened: a number could be a descriptor of wsgate.
    let mut inherited = InheritedSockets::take_over(&args.listen)?;
    let mut addresses = inherited.addresses(&args.listen);
    if args.listen.is_empty() && addresses == [Address::STANDARD_INPUT] {
        addresses = vec![Address::Tcp(DEFAULT_ADDRESS.to_owned())];
    }
    if addresses.len() > MAX_DESCRIPTORS {
        return Err(refused(
            format!(
                "a monitor listens at up to {MAX_DESCRIPTORS} addresses, not at {}",
                addresses.len()
            ),
            "remove a --listen, or start another monitor",
        ));
    }
    let has_socket_file = addresses.iter().any(|address| matches!(address, Address::Unix(_)));
    if let Some(message) = args.without_effect(has_socket_file) {
        return Err(CommandError::usage(LogMessage::new(Code::BadSetting, message)));
    }
    let program = http_program::find()?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let access = SocketAccess::new(args.socket_mode, args.socket_owner.as_ref())
        .map_err(CommandError::settings)?;
    let listeners = addresses
        .iter()
        .map(|address| Listener::open(address, &access, FileCreator::new(None), &mut inherited))
        .collect::<Result<Vec<_>, _>>()?;
    if token.is_none() {
        listeners.iter().try_for_each(check_is_local)?;
    }
    let launch = MonitorLaunch {
        listeners: listeners
            .iter()
            .map(|listener| MonitorListener {
                address: listener.address.to_string(),
                file: listener
                    .file()
                    .map(SocketFile::identity)
                    .map(|(path, inode)| (path.as_os_str().as_bytes().to_vec(), inode)),
            })
            .collect(),
        token,
        log: log_settings(),
    };
    let sockets: Vec<_> = listeners.iter().map(Listener::descriptor).collect();
    Ok(http_program::execute(&program, &launch, &sockets))
}

/// Checks that only this machine can reach the socket.
///
/// # Errors
/// If other machines can.
fn check_is_local(listener: &Listener) -> Result<(), CommandError> {
    let Address::Tcp(address) = &listener.address else { return Ok(()) };
    if address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback()) {
        return Ok(());
    }
    Err(bad_token(
        format!("other machines can reach `{address}`, and the monitor has no token"),
        "set --token-file FILE, or listen at 127.0.0.1 or at a Unix socket",
    ))
}

/// The token in the first line of the file at `path`.
///
/// # Errors
/// If the file cannot be read, other users may read it, or it has no token.
fn read_token(path: &Path) -> Result<String, CommandError> {
    let shown = path.display();
    let found = fs::metadata(path).and_then(|found| Ok((found, fs::read_to_string(path)?)));
    let (found, text) = found.map_err(|error: io::Error| {
        bad_token(
            format!("the token file `{shown}` cannot be read: {error}"),
            "create the file with `openssl rand -hex 32`, for the user of the monitor",
        )
    })?;
    if found.mode() & 0o007 != 0 {
        return Err(bad_token(
            format!("other users may use the token file `{shown}`"),
            format!("close the file: chmod 600 {shown}"),
        ));
    }
    let token = text.lines().next().unwrap_or_default().trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
        return Err(bad_token(
            format!(
                "the first line of `{shown}` is no token: {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} \
                 visible ASCII characters without spaces"
            ),
            "write a token with `openssl rand -hex 32`",
        ));
    }
    Ok(token.to_owned())
}

fn bad_token(sentence: impl Into<String>, hint: impl Into<String>) -> CommandError {
    CommandError::settings(LogMessage::new(Code::BadToken, sentence).hint(hint))
}
