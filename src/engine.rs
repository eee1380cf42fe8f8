//! The engine: the extension module that python loads. Where it is, and how a pool keeps the one that
//! it was started with.

use std::{
    env,
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use link::{
    entry::{Code, Entry},
    mappable,
    snapshot::Snapshot,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// File name of the engine, as cargo builds it and `make install` puts it in place.
const FILE: &str = "libwsgate_engine.so";

/// An engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    path: PathBuf,
    held: Option<Held>,
}

/// An engine that stays what it is, whatever happens to the file.
#[derive(Clone, Debug)]
struct Held {
    code: Arc<OwnedFd>,
    /// The file at the time.
    file: Option<Snapshot>,
}

impl Engine {
    /// The engine: where `WSGATE_ENGINE` says, beside this program, or in `../lib/wsgate/`.
    ///
    /// # Errors
    /// The log entry, if there is none.
    pub(crate) fn find() -> Result<Self, Entry> {
        find().map(|path| Self { path, held: None })
    }

    /// Where it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same, which every python that is started from now on loads, whatever happens to the file: a
    /// gateway and an engine of different builds refuse to work together, and an upgrade replaces the
    /// file of this one while the gateway runs.
    ///
    /// A copy in memory survives even that somebody writes into the file, which ends processes that have
    /// loaded it from there. Where code in such memory may not be run, the open file is kept.
    pub(crate) fn hold(self) -> Self {
        let held = File::open(&self.path).ok().map(|file| {
            let snapshot = Snapshot::of_open(&file);
            let copy = copy(&file).ok().filter(|copy| mappable::is_executable(copy.as_fd()));
            Held { code: Arc::new(copy.unwrap_or_else(|| file.into())), file: snapshot }
        });
        Self { held, ..self }
    }

    /// What is to be loaded in place of the file at [`Engine::path`].
    pub(crate) fn held(&self) -> Option<BorrowedFd<'_>> {
        self.held.as_ref().map(|held| held.code.as_fd())
    }

    /// Is at its path another engine than the one that is held?
    pub(crate) fn is_replaced(&self) -> bool {
        let known = self.held.as_ref().and_then(|held| held.file);
        let found = Snapshot::of(&self.path);
        matches!((known, found), (Some(known), Some(found)) if !known.is_same_content(&found))
    }
}

/// The content of `file` in memory, which nobody can change any more.
fn copy(mut file: &File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(memfd_create("wsgate-engine", flags)?);
    io::copy(&mut file, &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(copy.into())
}

fn find() -> Result<PathBuf, Entry> {
    if let Some(path) = env::var_os("WSGATE_ENGINE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(missing(&[path]).hint("correct the variable WSGATE_ENGINE, or take it away"))
        };
    }
    let program = env::current_exe().map_err(|error| {
        Entry::error(Code::NoEngine, format!("the program's own path is unknown: {error}"))
            .hint("mount /proc, or name the engine by the variable WSGATE_ENGINE")
    })?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = [beside.join(FILE), beside.join("../lib/wsgate").join(FILE)];
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        missing(&places).hint("install it with `make install`, or name it by the variable WSGATE_ENGINE")
    })
}

/// The entry for an engine that `python` cannot load, with its `reason`.
pub(crate) fn unfit(engine: &Path, python: &Path, reason: &str) -> Entry {
    Entry::error(
        Code::UnfitEngine,
        format!("the engine `{}` does not work in `{}`: {reason}", engine.display(), python.display()),
    )
    .hint("it needs CPython 3.9 or later and the gateway of the same build; install both with `make install`")
}

fn missing(places: &[PathBuf]) -> Entry {
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    Entry::error(Code::NoEngine, format!("the engine was not found as {}", places.join(" or ")))
}
