//! Watches the files of the application by inotify(7).

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init},
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

/// Maximum number of watched directories.
const MAX_DIRECTORIES: usize = 4096;

/// How long the changes of one save may follow each other.
const SETTLE_TIME: Duration = Duration::from_millis(15);

/// Length of the buffer for events in bytes.
const BUFFER_BYTES: usize = 16 * 1024;

/// Files that a change of the code or of what it displays consists of, by the end of their names.
const CODE: [&str; 31] = [
    "cfg", "conf", "css", "genshi", "htm", "html", "ini", "j2", "jinja", "jinja2", "js", "kid",
    "mak", "mako", "md", "mjs", "mo", "mustache", "pt", "py", "rst", "so", "tmpl", "toml", "tpl",
    "wsgi", "xhtml", "yaml", "yml", "zcml", "zpt",
];

/// What is done to a watched file.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE);

/// The watched directories.
pub(super) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    directories: HashMap<i32, Directory>,
    /// Directories that are not watched, and why.
    left_out: Option<(PathBuf, io::Error)>,
}

struct Directory {
    path: PathBuf,
    /// The names of the files that matter; `None` for all code.
    names: Option<Vec<OsString>>,
}

impl Watch {
    /// Watches `paths`: directories with all below them, and single files.
    ///
    /// # Errors
    /// If the kernel has no inotify left for this user.
    pub(super) fn new(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = registered(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)?;
        let mut watch = Self { inotify, directories: HashMap::new(), left_out: None };
        for path in paths {
            if path.is_dir() {
                watch.add_tree(path);
            } else if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                watch.add_file(parent, name);
            }
        }
        Ok(watch)
    }

    /// A directory that is not watched, and the reason.
    pub(super) fn left_out(&self) -> Option<&(PathBuf, io::Error)> {
        self.left_out.as_ref()
    }

    /// Waits until a file has changed.
    ///
    /// # Errors
    /// If inotify fails.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        while !self.read().await? {}
        Ok(())
    }

    /// Waits until the other files of a save are complete, too, and at least until `earliest`.
    ///
    /// # Errors
    /// If inotify fails.
    pub(super) async fn settle(&mut self, earliest: Instant) -> io::Result<()> {
        // An editor writes several files, and a version control system many.
        let end = earliest.max(Instant::now() + SETTLE_TIME);
        loop {
            tokio::select! {
                more = self.read() => { more?; }
                () = sleep_until(end) => return Ok(()),
            }
        }
    }

    /// Reads events. Returns whether one of them is a change.
    async fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events: Vec<(i32, ReadFlags, OsString)> = Vec::new();
        {
            let mut guard = self.inotify.readable().await?;
            let mut reader = Reader::new(guard.get_inner(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
                        let name = OsStr::from_bytes(name).to_owned();
                        events.push((event.wd(), event.events(), name));
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            guard.clear_ready();
        }
        Ok(events.into_iter().fold(false, |changed, (directory, what, name)| {
            self.is_change(directory, what, &name) || changed
        }))
    }

    fn is_change(&mut self, directory: i32, what: ReadFlags, name: &OsStr) -> bool {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        if what.contains(ReadFlags::IGNORED) {
            self.directories.remove(&directory);
            return false;
        }
        let Some(known) = self.directories.get(&directory) else { return false };
        if what.contains(ReadFlags::ISDIR) {
            let (path, is_tree) = (known.path.join(name), known.names.is_none());
            let is_new = what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
            if is_new && is_tree && is_watched_directory(&path) {
                // Files may have come before the directory was watched.
                return self.add_tree(&path);
            }
            return false;
        }
        if name.as_bytes().ends_with(b".py") {
            remove_compiled(&known.path, name);
        }
        // Nobody has written the file yet, except for a link.
        let is_empty = what.contains(ReadFlags::CREATE) && !known.path.join(name).is_symlink();
        !is_empty
            && match &known.names {
                Some(names) => names.iter().any(|known| known == name),
                None => is_code(name),
            }
    }

    fn add_file(&mut self, directory: &Path, name: &OsStr) {
        let Some(number) = self.add(directory) else { return };
        let (path, names) = (directory.to_owned(), Some(Vec::new()));
        let known = self.directories.entry(number).or_insert(Directory { path, names });
        if let Some(names) = &mut known.names {
            names.push(name.to_owned());
        } else if !is_code(name) {
            // The directory is watched for code, and any name of `.env` counts as code.
            known.names = None;
        }
    }

    /// Watches a directory and those in it. Returns whether there is code in them.
    fn add_tree(&mut self, top: &Path) -> bool {
        let (mut waiting, mut has_code) = (vec![top.to_owned()], false);
        while let Some(path) = waiting.pop() {
            let Some(number) = self.add(&path) else { continue };
            if let Ok(entries) = fs::read_dir(&path) {
                for entry in entries.flatten() {
                    if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        has_code |= is_code(&entry.file_name());
                    } else if is_watched_directory(&entry.path()) {
                        waiting.push(entry.path());
                    }
                }
            }
            self.directories.insert(number, Directory { path, names: None });
        }
        has_code
    }

    /// The number of the watch for `directory`.
    fn add(&mut self, directory: &Path) -> Option<i32> {
        let added = if self.directories.len() < MAX_DIRECTORIES {
            add_watch(&self.inotify, directory, EVENTS | WatchFlags::ONLYDIR)
                .map_err(io::Error::from)
        } else {
            Err(io::Error::other(format!("there are more than {MAX_DIRECTORIES} directories")))
        };
        match added {
            Ok(number) => Some(number),
            // Somebody has removed the directory meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.left_out.get_or_insert((directory.to_owned(), error));
                None
            }
        }
    }
}

#[expect(deprecated, reason = "unsound for other types than `OwnedFd`, which owns its descriptor")]
fn registered(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(inotify)
}

/// Removes the compiled files of a module. Python would use them if the module was saved twice in a
/// second and its size is the same.
fn remove_compiled(directory: &Path, module: &OsStr) {
    let Ok(entries) = fs::read_dir(directory.join("__pycache__")) else { return };
    let stem = module.as_bytes().strip_suffix(b"py").unwrap_or_default();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(stem) && name.as_bytes().ends_with(b".pyc") {
            // Another process may have removed the file, or it belongs to another user.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// May a directory below that of the application have code of the application in it?
fn is_watched_directory(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    !name.starts_with(b".")
        && ![&b"__pycache__"[..], b"node_modules", b"site-packages"].contains(&name)
        && !path.join("pyvenv.cfg").exists()
}

/// Is a file of this name code, or what code displays?
fn is_code(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    if bytes.starts_with(b".env") {
        return true;
    }
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    // Editors save to hidden files of their own, such as `.app.py.swp`.
    !bytes.starts_with(b".")
        && extension.is_some_and(|it| it == "env" || CODE.binary_search(&it).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_a_developer_edits_and_not_what_an_application_writes() {
        assert!(CODE.is_sorted());
        for name in ["app.py", "app.wsgi", "base.html", ".env", ".env.local", "shop.env", "a.css"] {
            assert!(is_code(OsStr::new(name)), "{name}");
        }
        for name in [
            "data.db",
            "a.pyc",
            ".app.py.swp",
            "app.py~",
            "4913",
            "log.txt",
            "cache.json",
            "a.csv",
            ".#app.py",
            "upload.png",
        ] {
            assert!(!is_code(OsStr::new(name)), "{name}");
        }
    }
}
