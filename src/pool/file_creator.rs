//! Creates the sockets and logs of a pool with the right owner.
//!
//! If root starts the pool for another user, the files are created with that user's permissions.
//! Root's permissions are used only in directories where no other user can redirect the path.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use rustix::fs::{Access, AtFlags, CWD, Gid, OFlags, Uid, accessat, fchown};
use wire::pool_logs::{POOL_LOG_MODE, open_file, open_file_with};

use crate::system::{
    account::Account,
    trusted_path::{LastLink, TrustedPath, Untrusted, is_real_root, resolve},
};

/// Creates files for a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileCreator<'a> {
    account: Option<&'a Account>,
}

/// Permissions with which a file is created.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights<'a> {
    /// The permissions of this process, which is not root.
    Own,
    /// The permissions of the user that the pool will run as.
    Account(&'a Account),
    /// The permissions of root.
    Root,
}

impl Rights<'_> {
    /// Runs `act` with these permissions.
    ///
    /// # Errors
    /// The error of `act`.
    pub(super) fn act<T>(self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Own | Self::Root => act(),
            Self::Account(account) => account.act(act),
        }
    }
}

impl<'a> FileCreator<'a> {
    /// A creator for a pool that will run as `account`, or as the current user.
    pub(super) fn new(account: Option<&'a Account>) -> Self {
        Self { account: account.filter(|account| is_real_root() && account.uid != 0) }
    }

    /// User and group that own a file which root creates.
    pub(super) fn owner(&self) -> (Option<u32>, Option<u32>) {
        (self.account.map(|account| account.uid), self.account.map(|account| account.gid))
    }

    /// Creates a file at `path` by `act`. Root gets the path with its links resolved.
    ///
    /// # Errors
    /// The error of `act`, or [`Untrusted`].
    pub(super) fn create<T>(
        &self,
        path: &Path,
        last: LastLink,
        act: impl Fn(&TrustedPath, Rights<'_>) -> io::Result<T>,
    ) -> io::Result<(T, Rights<'a>)> {
        let plain = TrustedPath { path: path.to_owned(), is_shared: false, is_descriptor: false };
        if !is_real_root() {
            return Ok((act(&plain, Rights::Own)?, Rights::Own));
        }
        if let Some(account) = self.account {
            let rights = Rights::Account(account);
            match rights.act(|| act(&plain, rights)) {
                // If that user may not write in the directory, root does, unless other users can
                // write there, too.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                created => return Ok((created?, rights)),
            }
        }
        Ok((act(&resolve(path, last)?, Rights::Root)?, Rights::Root))
    }

    /// Opens the log file at `path`, and creates it if it is missing.
    ///
    /// # Errors
    /// If the file cannot be opened, or root must not write there.
    pub(super) fn open_log(&self, path: &Path) -> io::Result<OwnedFd> {
        let open = |place: &TrustedPath, rights: Rights<'_>| match rights {
            Rights::Own | Rights::Account(_) => open_file(place.path.as_os_str().as_bytes()),
            Rights::Root => self.open_as_root(place),
        };
        self.create(path, LastLink::Followed, open).map(|(file, _)| file)
    }

    /// Finds out whether the log file at `path` may be opened or created, without doing so.
    ///
    /// # Errors
    /// If the user may not write there, or [`Untrusted`].
    pub(super) fn check_log(&self, path: &Path) -> io::Result<()> {
        let is_writable = |place: &TrustedPath, _: Rights<'_>| {
            let parent = place.path.parent().unwrap_or(Path::new("/"));
            let file = if place.path.exists() { &place.path } else { parent };
            Ok(accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS)?)
        };
        self.create(path, LastLink::Followed, is_writable).map(|((), _)| ())
    }

    fn open_as_root(&self, place: &TrustedPath) -> io::Result<OwnedFd> {
        let path = place.path.as_os_str().as_bytes();
        if place.is_descriptor {
            return open_file(path);
        }
        let created = open_file_with(path, OFlags::NOFOLLOW | OFlags::EXCL, POOL_LOG_MODE);
        let file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_file_with(path, OFlags::NOFOLLOW, POOL_LOG_MODE)?
            }
            created => {
                let file = created?;
                if let (Some(user), Some(group)) = self.owner() {
                    // The pool reopens the log after a rotation, as that user.
                    fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
                }
                file
            }
        };
        if place.is_shared {
            let found = fs::File::from(file.as_fd().try_clone_to_owned()?).metadata()?;
            let owners = [Some(0), self.owner().0];
            if found.nlink() != 1 || !owners.contains(&Some(found.uid())) {
                return Err(Untrusted::file(&place.path));
            }
        }
        Ok(file)
    }
}
