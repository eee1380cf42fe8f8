//! The directory that is this user's alone, for what wsgate keeps between requests: sockets, locks,
//! compiled scripts.
//!
//! `WSGATE_RUNTIME_DIR`, or else `wsgate` in `XDG_RUNTIME_DIR`, or else `/run/wsgate/user-UID` if
//! root has made that, or else `wsgate-UID` in the temporary directory. A web server mostly has no
//! `XDG_RUNTIME_DIR` and the shell of the same user has one, so whoever looks for pools looks into
//! all of them, and into those that processes of the same user have in another mount namespace: a
//! service with `PrivateTmp=yes` has a `/tmp` of its own.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, chown},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::process::geteuid;

use crate::system::{
    account::Account,
    trusted_path::{
        LastLink, Untrusted, {self},
    },
};

/// Where root makes directories for users.
const OF_ROOT: &str = "/run/wsgate";

/// The directory, made if it is not there.
///
/// # Errors
/// If it cannot be made, or is not what only this user could have made: another user may have taken
/// the name to feed us files.
pub(crate) fn open() -> io::Result<PathBuf> {
    let path = candidates()?.swap_remove(0);
    if trusted_path::is_mighty()
        && let Err(error) = trusted_path::place(&path, LastLink::Kept)
        && Untrusted::is_cause_of(&error)
    {
        // What root keeps there must stay there.
        return Err(error);
    }
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(
                error.kind(),
                format!("`{}` cannot be made: {error}", path.display()),
            ));
        }
        _ => {}
    }
    if is_private(&path, geteuid().as_raw())? { Ok(path) } else { Err(not_private(&path)) }
}

/// Makes the directory of a pool that root starts and that will serve as `account`, where that one
/// could not make it.
pub(crate) fn make_for(account: &Account) {
    let path = match named() {
        Some(named) => PathBuf::from(named),
        None => {
            // It may be there, or be a service manager's.
            let _ = fs::DirBuilder::new().mode(0o755).create(OF_ROOT);
            of_user(account.uid)
        }
    };
    // Without it the pool says what it lacks.
    let Ok(place) = trusted_path::place(&path, LastLink::Kept) else { return };
    if fs::DirBuilder::new().mode(0o700).create(&place.path).is_ok() {
        let _ = chown(&place.path, Some(account.uid), Some(account.gid));
    }
}

/// Where pools may have their sockets that this user can ask.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// Those that are there.
    pub(crate) found: Vec<PathBuf>,
    /// All that were looked at.
    pub(crate) looked: BTreeSet<PathBuf>,
}

/// Those that are there, in which pools of this user may have their sockets. For root, one that was
/// named, or that root has made, may be another user's.
///
/// # Errors
/// If all that are there are others'.
pub(crate) fn of_pools() -> io::Result<Directories> {
    let user = geteuid();
    let mut directories = Directories::default();
    let mut trouble = None;
    for path in candidates()? {
        directories.looked.insert(path.clone());
        let owner = match fs::symlink_metadata(&path) {
            Ok(there) if user.is_root() && named().is_some() => there.uid(),
            Ok(_) => user.as_raw(),
            Err(_) => continue,
        };
        match is_private(&path, owner) {
            Ok(true) => directories.found.push(path),
            Ok(false) => trouble = Some(not_private(&path)),
            Err(error) => trouble = Some(error),
        }
    }
    if named().is_none() {
        directories.looked.insert(PathBuf::from(OF_ROOT));
        directories.found.extend(made_by_root());
    }
    // A command asks several times, and lasts no longer than an answer.
    static ELSEWHERE: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let elsewhere = ELSEWHERE.get_or_init(|| in_other_namespaces().collect());
    directories.looked.extend(elsewhere.iter().cloned());
    directories.found.extend(elsewhere.iter().cloned());
    let mut seen = BTreeSet::new();
    let is_new = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| seen.insert((found.dev(), found.ino())))
    };
    directories.found = std::mem::take(&mut directories.found).into_iter().filter(is_new).collect();
    match trouble {
        Some(error) if directories.found.is_empty() => Err(error),
        _ => Ok(directories),
    }
}

/// Directories in [`OF_ROOT`] that this user may use, and for root those of all users: nobody else
/// can have made them.
fn made_by_root() -> Vec<PathBuf> {
    let is_trusted = trusted_path::place(&Path::new(OF_ROOT).join("user"), LastLink::Kept)
        .is_ok_and(|place| !place.is_shared);
    let user = geteuid();
    let entries =
        fs::read_dir(OF_ROOT).into_iter().filter(|_| is_trusted).flatten().filter_map(Result::ok);
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

/// Directories of this user that its own processes see and this one does not.
fn in_other_namespaces() -> impl Iterator<Item = PathBuf> {
    let user = geteuid().as_raw();
    let root = |process: &Path| {
        let found = fs::metadata(process.join("root")).ok()?;
        let namespace = fs::read_link(process.join("ns/mnt")).ok()?;
        Some((namespace, found.dev(), found.ino()))
    };
    let mut known: BTreeSet<_> = root(Path::new("/proc/self")).into_iter().collect();
    // Without its own it could tell nothing apart.
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
        .filter(move |path| is_private(path, user).unwrap_or(false))
}

/// Where the directory may be; it is made at the first of these.
fn candidates() -> io::Result<Vec<PathBuf>> {
    if let Some(named) = named() {
        let path = PathBuf::from(named);
        // The processes of a pool have working directories of their own.
        return if path.is_absolute() {
            Ok(vec![path])
        } else {
            let words = format!("`{}` in WSGATE_RUNTIME_DIR is no absolute path", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, words))
        };
    }
    let user = geteuid().as_raw();
    // What the XDG Base Directory Specification asks of it; whoever has become another user may
    // still have that one's.
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session =
        session.filter(|path| path.is_absolute() && is_private(path, user).unwrap_or(false));
    let of_root = Some(of_user(user)).filter(|path| is_private(path, user).unwrap_or(false));
    let temporary = [env::temp_dir(), PathBuf::from("/tmp")]
        .map(|directory| directory.join(format!("wsgate-{user}")));
    let session = session.map(|path| path.join("wsgate"));
    let mut paths: Vec<PathBuf> = session.into_iter().chain(of_root).chain(temporary).collect();
    paths.dedup();
    Ok(paths)
}

/// Where root makes the directory of the user with this number.
fn of_user(user: u32) -> PathBuf {
    Path::new(OF_ROOT).join(format!("user-{user}"))
}

fn named() -> Option<OsString> {
    env::var_os("WSGATE_RUNTIME_DIR").filter(|directory| !directory.is_empty())
}

/// Is it a directory that `user` owns and nobody else may enter? Not followed if it is a link:
/// whoever made that could turn it elsewhere.
fn is_private(path: &Path, user: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
}

fn not_private(path: &Path) -> io::Error {
    let user = geteuid().as_raw();
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("`{}` is no directory that only user {user} can use", path.display()),
    )
}
