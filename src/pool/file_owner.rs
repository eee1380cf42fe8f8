//! Who makes the files of a pool, its sockets and logs: this user; where root starts the pool for
//! another user, that user, and root itself only where nobody else can lead it astray.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use rustix::fs::{Gid, OFlags, Uid, fchown};
use wire::pool_logs::{open_file, open_file_with};

use crate::system::{
    account::Account,
    trusted_path::{LastLink, TrustedPath, Untrusted, is_real_root, resolve},
};

/// Makes files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maker<'a> {
    account: Option<&'a Account>,
}

/// With whose rights a file was made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights<'a> {
    /// Those of this process, which is not root.
    Own,
    /// Those of the user that the pool will serve as.
    Account(&'a Account),
    /// Root's.
    Root,
}

impl Rights<'_> {
    /// Does `act` with these.
    ///
    /// # Errors
    /// That of `act`.
    pub(super) fn act<T>(self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Own | Self::Root => act(),
            Self::Account(account) => account.act(act),
        }
    }
}

impl<'a> Maker<'a> {
    /// For a pool that will serve as `account`, or as the user that this process has.
    pub(super) fn new(account: Option<&'a Account>) -> Self {
        Self { account: account.filter(|account| is_real_root() && account.uid != 0) }
    }

    /// User and group that a file of root's is handed to.
    pub(super) fn owner(&self) -> (Option<u32>, Option<u32>) {
        (self.account.map(|account| account.uid), self.account.map(|account| account.gid))
    }

    /// Makes by `act` what is to be at `path`. For root that has another path, if links lead there.
    ///
    /// # Errors
    /// That of `act`, or [`Untrusted`].
    pub(super) fn make<T>(
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
                // Where that user may not, root may, unless somebody else may as well.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                made => return Ok((made?, rights)),
            }
        }
        Ok((act(&resolve(path, last)?, Rights::Root)?, Rights::Root))
    }

    /// Opens the log file at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be opened, or root must not write there.
    pub(super) fn open_log(&self, path: &Path) -> io::Result<OwnedFd> {
        let open = |place: &TrustedPath, rights: Rights<'_>| match rights {
            Rights::Own | Rights::Account(_) => open_file(place.path.as_os_str().as_bytes()),
            Rights::Root => self.open_as_root(place),
        };
        self.make(path, LastLink::Followed, open).map(|(file, _)| file)
    }

    fn open_as_root(&self, place: &TrustedPath) -> io::Result<OwnedFd> {
        let path = place.path.as_os_str().as_bytes();
        if place.is_descriptor {
            return open_file(path);
        }
        let made = open_file_with(path, OFlags::NOFOLLOW | OFlags::EXCL);
        let file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_file_with(path, OFlags::NOFOLLOW)?
            }
            made => {
                let file = made?;
                if let (Some(user), Some(group)) = self.owner() {
                    // The pool opens it again after a rotation, as that user.
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
