//! Listening sockets of a pool: opened before the application is loaded, and removed when the pool
//! exits (FastCGI 1.0, 2.2).

use std::{
    fs, io,
    net::TcpListener,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::{
    io::ioctl_fionbio,
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
        listen, shutdown, socket_with, sockopt,
    },
};

use crate::{
    exit::CommandError,
    pool::{
        address::Address,
        file_creator::FileCreator,
        inherited_sockets::InheritedSockets,
        listen_error,
        socket_access::SocketAccess,
        unix_listener::{self, BACKLOG, SocketFile},
    },
    system::hosts,
};

/// A listening socket that web servers or gateways connect to.
#[derive(Debug)]
pub(super) struct Listener {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// The address, with the port that the kernel chose if it was 0.
    pub(super) address: Address,
    /// The socket's file, if this process created it.
    file: Option<SocketFile>,
    /// The path that [`Listener::publish`] gives to the file.
    public_path: Option<PathBuf>,
}

impl Listener {
    /// Listens on `address`; a file descriptor is taken from `inherited`.
    ///
    /// # Errors
    /// If the address is in use, the kernel refuses, or the file descriptor is not a listening
    /// socket.
    pub(super) fn open(
        address: &Address,
        access: &SocketAccess,
        creator: FileCreator<'_>,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, CommandError> {
        match address {
            Address::Unix(path) => {
                let (socket, file) = unix_listener::open(path, access, creator)?;
                Ok(Self { socket, address: address.clone(), file: Some(file), public_path: None })
            }
            Address::Tcp(name) => {
                let opened = || {
                    let listener = TcpListener::bind(&hosts::addresses(name)?[..])?;
                    listen(&listener, BACKLOG)?;
                    let address = Address::Tcp(listener.local_addr()?.to_string());
                    Ok(Self { socket: listener.into(), address, file: None, public_path: None })
                };
                opened().map_err(|error: io::Error| listen_error::tcp(name, &error))
            }
            &Address::Descriptor(number) => {
                let socket = inherited.take(number)?;
                let address = Address::of(&socket).unwrap_or(Address::Descriptor(number));
                // The process that created the socket removes its file, too.
                Ok(Self { socket, address, file: None, public_path: None })
            }
        }
    }

    /// A listening socket that the previous program of an upgrade has handed over.
    pub(super) fn handed_over(socket: OwnedFd, address: Address, file: Option<SocketFile>) -> Self {
        Self { socket, address, file, public_path: None }
    }

    /// The socket's file, if this process removes it.
    pub(super) fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }

    /// Listens for the warm requests of this user's gateways. The socket appears at `path` with
    /// [`Listener::publish`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn for_warm_requests(path: &Path) -> Result<Self> {
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        // A file of this name can only be a leftover of a process that had our pid.
        let _ = fs::remove_file(&draft);
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(&draft)?)?;
        let file = Some(SocketFile::at(draft.clone())?);
        let listener = Self {
            socket,
            address: Address::Unix(path.to_owned()),
            file,
            public_path: Some(path.to_owned()),
        };
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        listen(&listener.socket, BACKLOG)?;
        Ok(listener)
    }

    /// The socket as a file descriptor.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Moves the socket's file to its public path, over the socket of a pool that has exited.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub(super) fn publish(&mut self) -> Result<()> {
        if let (Some(public), Some(file)) = (self.public_path.take(), &mut self.file) {
            file.rename(&public)
                .with_context(|| format!("cannot create the socket `{}`", public.display()))?;
        }
        Ok(())
    }

    /// Closes the connections in the accept queue, and refuses new ones, because no worker will
    /// accept them.
    pub(super) fn refuse_clients(&self) {
        // If this fails, clients wait until their own timeout.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if ioctl_fionbio(&self.socket, true).is_ok() {
            while accept_with(&self.socket, SocketFlags::CLOEXEC).is_ok() {}
        }
    }

    /// Removes the socket's file, unless another file has taken its path.
    pub(super) fn remove_file(&mut self) {
        self.public_path = None;
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

/// Is standard input a listening socket, as passed by FastCGI process managers (FastCGI 1.0, 2.2)?
pub(crate) fn stdin_listens() -> bool {
    sockopt::socket_acceptconn(io::stdin()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn open(path: &Path) -> Result<Listener, CommandError> {
        let access = SocketAccess { mode: 0o600, user: None, group: None };
        let address = Address::Unix(path.to_owned());
        let mut inherited = InheritedSockets::default();
        Listener::open(&address, &access, FileCreator::new(None), &mut inherited)
    }

    #[test]
    fn f55_a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = open(&path).unwrap_err().message.for_client();
        assert!(refused.contains("already"), "{refused}");
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let second = open(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_a_directory_that_does_not_exist_is_refused_for_that() {
        let directory = tempfile::tempdir().unwrap();
        let refused = open(&directory.path().join("run/app.sock")).unwrap_err();
        let refused = refused.message.for_client();
        assert!(refused.contains("its directory does not exist"), "{refused}");
    }

    #[test]
    fn f55_a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "content").unwrap();
        assert!(open(&path).is_err());
        assert_eq!(fs::read_to_string(path).unwrap(), "content");
    }
}
