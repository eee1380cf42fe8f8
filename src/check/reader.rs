//! Checks which files a user could read, by the permissions alone. Any user may run the check.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};

use crate::system::users;

/// Users that web servers run CGI programs as, by distribution.
const USUAL_USERS: [&str; 4] = ["www-data", "apache", "nginx", "http"];

/// The user and group IDs that file permissions refer to.
pub(super) struct Reader {
    pub(super) name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Reader {
    /// The user `name`, or the first of the usual users that exists.
    pub(super) fn find(name: Option<&str>) -> Result<Option<Self>, LogMessage> {
        match name {
            Some(name) => Self::named(name).map(Some).ok_or_else(|| {
                LogMessage::new(Code::BadSetting, format!("there is no user `{name}`"))
                    .hint("use a user that `id` knows")
            }),
            None => Ok(USUAL_USERS.iter().find_map(|name| Self::named(name))),
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(Self { name: name.to_owned(), uid: users::user(name)?, groups: users::groups(name)? })
    }

    /// The first directory of `path`, or `path` itself, that this user may not use.
    pub(super) fn first_unusable(&self, path: &Path) -> Option<PathBuf> {
        let mut parts: Vec<&Path> =
            path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        parts.reverse();
        parts
            .into_iter()
            .find(|part| {
                fs::metadata(part)
                    .is_ok_and(|found| !self.may(&found, if found.is_dir() { 0o1 } else { 0o4 }))
            })
            .map(Path::to_owned)
    }

    /// Do the permissions of `found` grant this user `wanted` (4 to read, 1 to enter)?
    fn may(&self, found: &fs::Metadata, wanted: u32) -> bool {
        let shift = if found.uid() == self.uid {
            6
        } else if self.groups.contains(&found.gid()) {
            3
        } else {
            0
        };
        self.uid == 0 || found.mode() >> shift & wanted == wanted
    }
}
