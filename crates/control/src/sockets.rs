//! The control sockets of all pools that this user may control, for a program that asks the pools
//! itself.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    connection::socket_path,
    other_users::directories,
    pool_error::{PoolError, listener_of},
    pool_name::check_name,
    protocol::SOCKET_SUFFIX,
    runtime_directory::RuntimeDirectoryError,
};

/// Maximum number of sockets of a directory that are tried.
const MAX_POOLS: usize = 256;

/// The control socket of a pool that may be running.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolSocket {
    name: String,
    directory: PathBuf,
    owner: u32,
}

impl PoolSocket {
    /// Searches the sockets of all pools that this user may control, in the order of their names.
    ///
    /// # Errors
    /// If no runtime directory is usable.
    pub fn find_all() -> Result<Vec<Self>, RuntimeDirectoryError> {
        let mut sockets = Vec::new();
        for directory in directories()? {
            let Ok(owner) = fs::metadata(&directory).map(|found| found.uid()) else { continue };
            let here = names(&directory).into_iter();
            sockets.extend(here.map(|name| Self { name, directory: directory.clone(), owner }));
        }
        sockets.sort();
        Ok(sockets)
    }

    /// The name of the pool.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The runtime directory of the pool's user.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of the socket.
    pub fn path(&self) -> PathBuf {
        socket_path(&self.directory, &self.name)
    }

    /// The error that the pool does not make room for a connection.
    pub fn silent(&self) -> PoolError {
        PoolError::silent(&self.name, listener_of(&self.directory, &self.name))
    }

    /// The user ID of the pool: the owner of the directory. A link in it may lead to a socket of
    /// another user, so a client compares this with the user at the other end of a connection.
    pub fn owner(&self) -> u32 {
        self.owner
    }
}

/// The names of the pools whose sockets are in `directory`.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(entry.ok()?.file_name().to_str()?.strip_suffix(SOCKET_SUFFIX)?.to_owned())
        })
        .filter(|name| check_name(name).is_ok())
        .take(MAX_POOLS)
        .collect();
    names.sort();
    names
}
