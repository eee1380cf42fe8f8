//! Creates Unix sockets with the right owner and permissions before a client can connect.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat},
    net::listen,
    process::{geteuid, umask},
};

use crate::{
    pool::file_creator::{FileCreator, Rights},
    system::{trusted_path::LastLink, users},
};

/// Length of the accept queue; the kernel's own limit may be lower.
pub(super) const BACKLOG: i32 = 1024;

/// Permissions and owner of Unix sockets: who may connect.
#[derive(Clone, Debug)]
pub(super) struct SocketAccess {
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

impl SocketAccess {
    /// Access with `mode`, and with the owner that `owner` names: USER or USER:GROUP, each a name
    /// or a number.
    ///
    /// # Errors
    /// If `owner` is empty, or the user or group does not exist.
    pub(super) fn new(mode: u32, owner: Option<&str>) -> Result<Self> {
        let Some(owner) = owner else {
            return Ok(Self { mode, user: None, group: None });
        };
        ensure!(!owner.is_empty(), "--socket-owner is empty: write USER or USER:GROUP");
        let (name, group) =
            owner.split_once(':').map_or((owner, None), |(name, group)| (name, Some(group)));
        let user = match name {
            "" => None,
            name => Some(
                users::user(name)
                    .or_else(|| users::number(name))
                    .with_context(|| format!("there is no user `{name}`"))?,
            ),
        };
        let group = match group {
            Some(group) => Some(
                users::group(group)
                    .or_else(|| users::number(group))
                    .with_context(|| format!("there is no group `{group}`"))?,
            ),
            None => users::groups(name).and_then(|groups| groups.first().copied()),
        };
        Ok(Self { mode, user, group })
    }
}

/// File of a Unix socket. The inode shows whether the path still leads to this file.
#[derive(Debug)]
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
) -> Result<(OwnedFd, SocketFile)> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("`{shown}` exists and is not a socket; wsgate does not replace it")
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!("`{shown}` is already in use: stop that server first, or listen at another path")
        }
        // A stale socket is replaced below.
        _ => {}
    }
    // A temporary name keeps the stale socket until the new one is complete. The new socket gets
    // its name only when it listens and has its owner and permissions. Otherwise another start
    // would treat the socket as stale.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    match create(path, &draft, access, creator) {
        Ok((listener, inode)) => Ok((listener.into(), SocketFile { path: path.to_owned(), inode })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("cannot listen at `{shown}`: its directory does not exist; create it first")
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen at `{shown}`")),
    }
}

fn create(
    path: &Path,
    draft: &Path,
    access: &SocketAccess,
    creator: FileCreator<'_>,
) -> io::Result<(UnixListener, u64)> {
    let ((listener, file), rights) =
        creator.create(draft, LastLink::Kept, |draft, _| bind(&draft.path, access.mode))?;
    let rename = || rights.act(|| fs::rename(draft, path));
    let renamed = set_owner(&file, access, creator)
        .and_then(|()| Ok(listen(&listener, BACKLOG)?))
        .and_then(|()| match rename() {
            // In a sticky directory, only the owner of a file may rename it.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && matches!(rights, Rights::Account(_)) =>
            {
                let user = creator.owner().0.map(Uid::from_raw);
                chownat(&file, "", user, None, AtFlags::EMPTY_PATH)?;
                rename()?;
                set_owner(&file, access, creator)
            }
            renamed => renamed,
        });
    if let Err(error) = renamed {
        let _ = rights.act(|| fs::remove_file(draft));
        return Err(error);
    }
    Ok((listener, fstat(&file)?.st_ino))
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
