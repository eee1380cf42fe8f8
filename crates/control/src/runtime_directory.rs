//! The runtime directory of a user, which no other user can enter: sockets, locks and compiled
//! scripts.
//!
//! The directory is the first of: `WSGATE_RUNTIME_DIR`; `wsgate` in `XDG_RUNTIME_DIR`;
//! `/run/wsgate/user-UID`, if root has created it; `wsgate-UID` in the temporary directory. Most
//! web servers have no `XDG_RUNTIME_DIR`, and the shell of the same user has one. So a search for
//! pools covers all these directories, also in other mount namespaces of the same user: a service
//! with `PrivateTmp=yes` has its own `/tmp`.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    ffi::OsString,
    fmt, fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, chown},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::geteuid;

use crate::trusted_path::{
    LastLink, Untrusted, {self},
};

/// The directory in which root creates runtime directories of users.
const ROOT_DIRECTORY: &str = "/run/wsgate";

/// How long a search of other mount namespaces is remembered.
const NAMESPACES_MAX_AGE: Duration = Duration::from_secs(5);

/// Why a runtime directory cannot be used.
#[derive(Debug)]
pub struct RuntimeDirectoryError {
    sentence: String,
    hint: String,
}

impl RuntimeDirectoryError {
    fn new(sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), hint: hint.into() }
    }

    /// The next step.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for RuntimeDirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Error for RuntimeDirectoryError {}

/// The runtime directory of this user, created if it does not exist.
///
/// # Errors
/// If the directory cannot be created, or another user may have created it to plant files in it.
pub fn open() -> Result<PathBuf, RuntimeDirectoryError> {
    let path = candidates()?.swap_remove(0);
    if trusted_path::is_real_root()
        && let Err(error) = trusted_path::resolve(&path, LastLink::Kept)
        && Untrusted::is_cause_of(&error)
    {
        // Other users could replace root's files in such a directory.
        return Err(RuntimeDirectoryError::new(
            error.to_string(),
            "set WSGATE_RUNTIME_DIR to a directory whose whole path only root can write to, such \
             as /run/wsgate/root",
        ));
    }
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(not_created(&path, &error))
        }
        _ => check_private(&path, geteuid().as_raw()).map(|()| path),
    }
}

/// Creates the runtime directory of a pool that root starts and that will run as user `uid` with
/// the primary group `gid`, where that user could not create it.
pub fn create_for(uid: u32, gid: u32) {
    let path = match configured() {
        Some(path) => PathBuf::from(path),
        None => {
            // The directory may exist already, or a service manager has created it.
            let _ = fs::DirBuilder::new().mode(0o755).create(ROOT_DIRECTORY);
            of_user(uid)
        }
    };
    // If the directory is missing, the pool reports the error.
    let Ok(resolved) = trusted_path::resolve(&path, LastLink::Kept) else { return };
    if fs::DirBuilder::new().mode(0o700).create(&resolved.path).is_ok() {
        let _ = chown(&resolved.path, Some(uid), Some(gid));
    }
}

/// The directories in which pools that this user may control have their sockets.
#[derive(Debug, Default)]
pub struct RuntimeDirectories {
    /// The directories that exist.
    pub found: Vec<PathBuf>,
    /// All directories that were searched.
    pub searched: BTreeSet<PathBuf>,
}

/// Searches the directories in which pools that this user may control have their sockets. Root may
/// also use a directory of another user, if WSGATE_RUNTIME_DIR names the directory or root has
/// created it.
///
/// # Errors
/// If only directories of other users exist.
pub fn of_pools() -> Result<RuntimeDirectories, RuntimeDirectoryError> {
    let user = geteuid();
    let mut directories = RuntimeDirectories::default();
    let mut failure = None;
    for path in candidates()? {
        directories.searched.insert(path.clone());
        let owner = match fs::symlink_metadata(&path) {
            Ok(there) if user.is_root() && configured().is_some() => there.uid(),
            Ok(_) => user.as_raw(),
            Err(_) => continue,
        };
        match check_private(&path, owner) {
            Ok(()) => directories.found.push(path),
            Err(error) => failure = Some(error),
        }
    }
    if configured().is_none() {
        directories.searched.insert(PathBuf::from(ROOT_DIRECTORY));
        directories.found.extend(created_by_root());
    }
    let elsewhere = elsewhere();
    directories.searched.extend(elsewhere.iter().cloned());
    directories.found.extend(elsewhere);
    let mut seen = BTreeSet::new();
    let is_new = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| seen.insert((found.dev(), found.ino())))
    };
    directories.found = std::mem::take(&mut directories.found).into_iter().filter(is_new).collect();
    match failure {
        Some(error) if directories.found.is_empty() => Err(error),
        _ => Ok(directories),
    }
}

/// The result of [`in_other_namespaces`], from a moment ago if possible: a command searches several
/// times.
fn elsewhere() -> Vec<PathBuf> {
    static LAST: Mutex<Option<(Instant, Vec<PathBuf>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((when, found)) if when.elapsed() < NAMESPACES_MAX_AGE => found.clone(),
        _ => {
            let found: Vec<PathBuf> = in_other_namespaces().collect();
            *last = Some((Instant::now(), found.clone()));
            found
        }
    }
}

/// The directories in [`ROOT_DIRECTORY`] that this user may use, for root those of all users: only
/// root can have created them.
fn created_by_root() -> Vec<PathBuf> {
    let is_trusted = trusted_path::resolve(&Path::new(ROOT_DIRECTORY).join("user"), LastLink::Kept)
        .is_ok_and(|resolved| !resolved.is_shared);
    let user = geteuid();
    let entries = fs::read_dir(ROOT_DIRECTORY)
        .into_iter()
        .filter(|_| is_trusted)
        .flatten()
        .filter_map(Result::ok);
    let is_usable = |path: &PathBuf| {
        let found = fs::symlink_metadata(path);
        found.is_ok_and(|found| {
            found.is_dir()
                && found.mode() & 0o077 == 0
                && (user.is_root() || found.uid() == user.as_raw())
        })
    };
    entries.map(|entry| entry.path()).filter(is_usable).collect()
}

/// The runtime directories of this user in the mount namespaces of its other processes.
fn in_other_namespaces() -> impl Iterator<Item = PathBuf> {
    let user = geteuid().as_raw();
    let root = |process: &Path| {
        let found = fs::metadata(process.join("root")).ok()?;
        let namespace = fs::read_link(process.join("ns/mnt")).ok()?;
        Some((namespace, found.dev(), found.ino()))
    };
    let mut known: BTreeSet<_> = root(Path::new("/proc/self")).into_iter().collect();
    // Without its own namespace this process cannot tell namespaces apart.
    let is_able = !known.is_empty();
    let entries =
        fs::read_dir("/proc").into_iter().filter(|_| is_able).flatten().filter_map(Result::ok);
    let processes: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
        .filter(|path| fs::metadata(path).is_ok_and(|found| found.uid() == user))
        .filter(|path| root(path).is_some_and(|found| known.insert(found)))
        .collect();
    let paths = candidates().unwrap_or_default();
    processes
        .into_iter()
        .flat_map(move |process| {
            let below =
                |path: &PathBuf| process.join("root").join(path.strip_prefix("/").unwrap_or(path));
            paths.iter().map(below).collect::<Vec<_>>()
        })
        .filter(move |path| check_private(path, user).is_ok())
}

/// The paths at which the directory may be; it is created at the first.
fn candidates() -> Result<Vec<PathBuf>, RuntimeDirectoryError> {
    if let Some(path) = configured() {
        let path = PathBuf::from(path);
        // Processes of a pool have different working directories.
        return if path.is_absolute() {
            Ok(vec![path])
        } else {
            let sentence =
                format!("`{}` in WSGATE_RUNTIME_DIR is not an absolute path", path.display());
            Err(RuntimeDirectoryError::new(sentence, "set an absolute path, or unset the variable"))
        };
    }
    let user = geteuid().as_raw();
    // The XDG Base Directory Specification requires these properties. A process that has changed
    // its user may still have the variable of the previous user.
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|path| path.is_absolute() && check_private(path, user).is_ok());
    let of_root = Some(of_user(user)).filter(|path| check_private(path, user).is_ok());
    let temporary = [env::temp_dir(), PathBuf::from("/tmp")]
        .map(|directory| directory.join(format!("wsgate-{user}")));
    let session = session.map(|path| path.join("wsgate"));
    let mut paths: Vec<PathBuf> = session.into_iter().chain(of_root).chain(temporary).collect();
    paths.dedup();
    Ok(paths)
}

/// The runtime directory that root creates for the user with this ID.
fn of_user(user: u32) -> PathBuf {
    Path::new(ROOT_DIRECTORY).join(format!("user-{user}"))
}

fn configured() -> Option<OsString> {
    env::var_os("WSGATE_RUNTIME_DIR").filter(|directory| !directory.is_empty())
}

/// Checks that `path` is a directory that `user` owns and no other user may enter. A link is not
/// followed: its owner could change its target.
fn check_private(path: &Path, user: u32) -> Result<(), RuntimeDirectoryError> {
    let shown = path.display();
    let unusable = |what: String, remedy: String| {
        let hint = format!("{remedy}, or set WSGATE_RUNTIME_DIR to another directory");
        Err(RuntimeDirectoryError::new(format!("`{shown}` {what}"), hint))
    };
    let remove = || format!("remove `{shown}`");
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) => return unusable(format!("cannot be used: {error}"), "create it".to_owned()),
    };
    if !found.is_dir() {
        return unusable("is not a directory".to_owned(), remove());
    }
    if found.uid() != user {
        let what = format!("belongs to user {}, not to user {user}", found.uid());
        return unusable(what, format!("give the directory to that user: chown {user} {shown}"));
    }
    if found.mode() & 0o077 != 0 {
        let what = format!("has the mode {:o}, and other users may enter it", found.mode() & 0o777);
        return unusable(what, format!("close the directory: chmod 700 {shown}"));
    }
    Ok(())
}

fn not_created(path: &Path, error: &io::Error) -> RuntimeDirectoryError {
    let user = geteuid().as_raw();
    let parent = path.parent().unwrap_or(path).display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => format!("create the directory `{parent}`"),
        io::ErrorKind::PermissionDenied => {
            format!("let user {user} create files in the directory `{parent}`")
        }
        _ => format!("check the directory `{parent}` and its file system"),
    };
    RuntimeDirectoryError::new(
        format!("`{}` cannot be created: {error}", path.display()),
        format!("{remedy}, or set WSGATE_RUNTIME_DIR to a directory of user {user}"),
    )
}
