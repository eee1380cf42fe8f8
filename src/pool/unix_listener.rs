//! Creates Unix sockets with the right owner and permissions before a client can connect.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use control::protocol::connect_within;
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat},
    io::Errno,
    net::listen,
    process::{geteuid, umask},
};

use serde::{Deserialize, Serialize};

use crate::{
    exit::CommandError,
    pool::{
        file_creator::{FileCreator, Rights},
        listen_error::{
            UnixError, refused, {self},
        },
        socket_access::SocketAccess,
    },
    system::trusted_path::LastLink,
};

/// Length of the accept queue; the kernel's own limit may be lower.
pub(super) const BACKLOG: i32 = 1024;

/// How long to wait for room in the accept queue of a socket that may be in use.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

/// File of a Unix socket. The inode shows whether the path still leads to this file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// The socket's file that is at `path`.
    ///
    /// # Errors
    /// If there is no such file.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        Ok(Self { inode: fs::symlink_metadata(&path)?.ino(), path })
    }

    /// Path and inode.
    pub(super) fn identity(&self) -> (&Path, u64) {
        (&self.path, self.inode)
    }

    /// Moves the file to `path`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn rename(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Removes the file, unless another file has taken its path.
    pub(super) fn remove(self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Another process may have removed the file a moment ago.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. Replaces a stale socket, and nothing else.
///
/// # Errors
/// If the socket is in use, `path` is another kind of file, or the kernel refuses.
pub(super) fn open(
    path: &Path,
    access: &SocketAccess,
    creator: FileCreator<'_>,
) -> Result<(OwnedFd, SocketFile), CommandError> {
    check_vacant(path)?;
    // A temporary name keeps the stale socket until the new one is complete. The new socket gets
    // its name only when it listens and has its owner and permissions. Otherwise another start
    // would treat the socket as stale.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    match create(path, &draft, access, creator) {
        Ok((listener, inode)) => Ok((listener.into(), SocketFile { path: path.to_owned(), inode })),
        Err(error) => Err(listen_error::unix(path, access, &error)),
    }
}

/// Checks that nothing is at `path`, or a stale socket: one that refuses connections.
///
/// # Errors
/// If a process may use the socket at `path`, or the file is not a socket.
fn check_vacant(path: &Path) -> Result<(), CommandError> {
    let shown = path.display();
    // If `path` cannot be read, creating the socket fails for the same reason.
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(refused(
            format!("`{shown}` exists and is not a socket; wsgate does not replace it"),
            "move the file away if nothing needs it, or listen at another path",
        ));
    }
    match connect_within(path, CONNECT_TIMEOUT) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // The accept queue is full, or the socket is of another type.
        Ok(_) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(refused(
            format!("`{shown}` is already in use"),
            "stop the server that listens there, which `ss -xlp` names, or listen at another path",
        )),
        Err(error) => Err(refused(
            format!("cannot tell whether the socket `{shown}` is in use: {error}"),
            format!("if no server uses the socket, remove it by `rm {shown}`"),
        )),
    }
}

fn create(
    path: &Path,
    draft: &Path,
    access: &SocketAccess,
    creator: FileCreator<'_>,
) -> Result<(UnixListener, u64), UnixError> {
    let created = creator.create(draft, LastLink::Kept, |draft, _| bind(&draft.path, access.mode));
    let ((listener, file), rights) = created.map_err(UnixError::Bind)?;
    let rename = || rights.act(|| fs::rename(draft, path));
    let set_owner = || set_owner(&file, access, creator).map_err(UnixError::Owner);
    let placed = set_owner()
        .and_then(|()| listen(&listener, BACKLOG).map_err(|error| UnixError::Bind(error.into())))
        .and_then(|()| match rename() {
            // In a sticky directory, only the owner of a file may rename it.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && matches!(rights, Rights::Account(_)) =>
            {
                let user = creator.owner().0.map(Uid::from_raw);
                chownat(&file, "", user, None, AtFlags::EMPTY_PATH)
                    .map_err(|error| UnixError::Owner(error.into()))?;
                rename().map_err(UnixError::Replace)?;
                set_owner()
            }
            renamed => renamed.map_err(UnixError::Replace),
        })
        .and_then(|()| fstat(&file).map_err(|error| UnixError::Bind(error.into())));
    match placed {
        Ok(found) => Ok((listener, found.st_ino)),
        Err(error) => {
            let _ = rights.act(|| fs::remove_file(draft));
            Err(error)
        }
    }
}

/// Binds a socket that has `mode` from the beginning, and opens its file. The owner is changed
/// through that file descriptor, so that replacing the path cannot redirect the change.
fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, OwnedFd)> {
    // A file of this name can only be a leftover of a process that had our pid.
    let _ = fs::remove_file(path);
    let before = umask(Mode::from_raw_mode(0o777 & !mode));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let file = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&file)?;
    let is_ours = FileType::from_raw_mode(found.st_mode) == FileType::Socket
        && found.st_uid == geteuid().as_raw()
        && found.st_nlink == 1;
    if !is_ours {
        return Err(io::Error::other("another process replaced the socket's file"));
    }
    Ok((listener, file))
}

/// Sets owner and permissions of the socket's open file.
fn set_owner(file: &OwnedFd, access: &SocketAccess, creator: FileCreator<'_>) -> io::Result<()> {
    let (pool_user, pool_group) = creator.owner();
    let (user, group) = (access.user.or(pool_user), access.group.or(pool_group));
    if user.is_some() || group.is_some() {
        chownat(file, "", user.map(Uid::from_raw), group.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
    }
    // An access control list of the directory may have changed the mode that bind() set.
    if fstat(file)?.st_mode & 0o777 != access.mode {
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(by_descriptor, fs::Permissions::from_mode(access.mode))?;
    }
    Ok(())
}
