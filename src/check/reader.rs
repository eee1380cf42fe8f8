//! Checks which files a user could read, by the permissions alone. Any user may run the check.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};

use crate::{
    check::web_root::WebRoot,
    system::{account::Account, trusted_path::is_real_root, users},
};

/// Users that web servers run CGI programs as, by distribution.
const USUAL_USERS: [&str; 4] = ["www-data", "apache", "nginx", "http"];

/// The first user ID that suexec runs scripts as.
const FIRST_SUEXEC_USER: u32 = 100;

/// The user ID of `nobody`.
const NOBODY: u32 = 65534;

/// What a user needs to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Read the file.
    Read,
    /// Execute the file.
    Execute,
}

/// The user and group IDs that file permissions refer to.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) uid: u32,
    /// The primary group comes first.
    groups: Vec<u32>,
    /// The user was not named, but is the owner of the document root.
    pub(super) is_guessed_owner: bool,
}

impl Reader {
    /// The user `name`. Without a name, the owner of the document root `root` if that is a person,
    /// because suexec then runs scripts as the owner; otherwise the first of the usual users that
    /// exists.
    pub(super) fn find(
        name: Option<&str>,
        root: Option<&WebRoot>,
    ) -> Result<Option<Self>, LogMessage> {
        match name {
            Some(name) => Self::named(name).map(Some).ok_or_else(|| {
                LogMessage::new(Code::BadSetting, format!("there is no user `{name}`"))
                    .hint("use a user that `id` knows")
            }),
            None => Ok(root
                .and_then(Self::owner_of)
                .or_else(|| USUAL_USERS.iter().find_map(|name| Self::named(name)))),
        }
    }

    /// Does suexec run scripts as this user, as far as the user ID shows that?
    pub(super) fn is_run_by_suexec(&self) -> bool {
        self.uid >= FIRST_SUEXEC_USER
            && self.uid != NOBODY
            && !USUAL_USERS.contains(&self.name.as_str())
    }

    fn named(name: &str) -> Option<Self> {
        let (uid, groups) = (users::user(name)?, users::groups(name)?);
        Some(Self { name: name.to_owned(), uid, groups, is_guessed_owner: false })
    }

    /// The owner of `root`, if that is a person.
    fn owner_of(root: &WebRoot) -> Option<Self> {
        let found = fs::metadata(&root.directory).ok()?;
        let uid = found.uid();
        let name = users::passwd(&uid.to_string())
            .and_then(|line| line.split(':').next().map(str::to_owned))
            .unwrap_or_else(|| uid.to_string());
        let is_person =
            uid >= users::first_person() && uid != NOBODY && !USUAL_USERS.contains(&name.as_str());
        let groups = users::groups(&name).unwrap_or_else(|| vec![found.gid()]);
        is_person.then_some(Self { name, uid, groups, is_guessed_owner: true })
    }

    /// The first directory of `path`, or `path` itself, that this user may not use for `need`, with
    /// the mode to add. If the path has links, also of the path that they lead to.
    pub(super) fn first_unusable(
        &self,
        path: &Path,
        need: Need,
    ) -> Option<(PathBuf, &'static str)> {
        self.first_unusable_of(path, need).or_else(|| {
            let target = fs::canonicalize(path).ok().filter(|target| target != path)?;
            self.first_unusable_of(&target, need)
        })
    }

    fn first_unusable_of(&self, path: &Path, need: Need) -> Option<(PathBuf, &'static str)> {
        let mut parts: Vec<&Path> =
            path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        parts.reverse();
        parts.into_iter().find_map(|part| {
            let found = fs::metadata(part).ok()?;
            let (wanted, mode) = match need {
                _ if found.is_dir() => (0o1, "a+x"),
                Need::Read => (0o4, "a+r"),
                Need::Execute => (0o1, "a+x"),
            };
            (!self.may(&found, wanted)).then(|| (part.to_owned(), mode))
        })
    }

    /// Makes this process, which root has started, one of the user if that is the owner of `script`
    /// or of the document root: code of other users does not run as root. Returns the variables of
    /// the user then.
    pub(super) fn assume(&self, script: &Path) -> Option<Vec<(OsString, OsString)>> {
        let is_owner = || fs::metadata(script).is_ok_and(|found| found.uid() == self.uid);
        if !is_real_root() || self.uid == 0 || !(self.is_guessed_owner || is_owner()) {
            return None;
        }
        let account = Account::find(&self.name, Some(&self.group()?.to_string()), &[]).ok()?;
        // A container may forbid it.
        account.assume().ok()?;
        Some(account.variables().to_vec())
    }

    /// The primary group.
    pub(super) fn group(&self) -> Option<u32> {
        self.groups.first().copied()
    }

    /// Does this user own `path`, and keep the user of the web server from entering the directory
    /// or reading the file? What belongs to another group may be open for the web server's group.
    pub(super) fn closes(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| {
            let wanted = if found.is_dir() { 0o1 } else { 0o4 };
            let is_of_other_group =
                found.mode() >> 3 & wanted != 0 && !self.groups.contains(&found.gid());
            found.uid() == self.uid && found.mode() & wanted == 0 && !is_of_other_group
        })
    }

    /// May this user write to the file `path`, or create files in the directory `path`?
    pub(super) fn may_write(&self, path: &Path) -> bool {
        fs::metadata(path)
            .is_ok_and(|found| self.may(&found, if found.is_dir() { 0o3 } else { 0o2 }))
    }

    /// Does `path` belong to this user?
    pub(super) fn owns(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.uid() == self.uid)
    }

    /// Do the permissions of `found` grant this user `wanted` (4 to read, 2 to write, 1 to enter or
    /// execute)?
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
