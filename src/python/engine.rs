//! The engine: the extension module that python loads. Where it is, and how a pool keeps the one
//! that it was started with.

use std::{
    env,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use diagnostics::message::{Code, LogMessage};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wire::{mappable, snapshot::Snapshot};

use crate::python::elf::Elf;

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
    /// The log message, if there is none.
    pub(crate) fn find() -> Result<Self, LogMessage> {
        find().map(|path| Self { path, held: None })
    }

    /// Where it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same, which every python that is started from now on loads, whatever happens to the
    /// file: a gateway and an engine of different builds refuse to work together, and an upgrade
    /// replaces the file of this one while the gateway runs.
    ///
    /// A copy in memory survives even that somebody writes into the file, which ends processes that
    /// have loaded it from there. Where code in such memory may not be run, the open file is kept.
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

    /// What is wrong with the file itself, for a program `python`: it is a part of a file, say, as
    /// a copy leaves it that a full disk has ended.
    fn damage(&self, python: &Path) -> Option<String> {
        let file = match &self.held {
            Some(held) => File::from(held.code.as_fd().try_clone_to_owned().ok()?),
            None => File::open(&self.path).ok()?,
        };
        let length = file.metadata().ok()?.len();
        let Some(elf) = Elf::read(&file).ok()? else {
            return Some(
                if length == 0 { "the file is empty" } else { "the file is no shared library" }
                    .to_owned(),
            );
        };
        if let Some(needed) = elf.needed.filter(|&needed| length < needed) {
            return Some(format!(
                "the file is damaged: it has {length} of at least {needed} bytes"
            ));
        }
        // A wrapper script is none.
        let python = File::open(python).ok().and_then(|python| Elf::read(&python).ok()?)?;
        (python.machine != elf.machine).then(|| {
            format!(
                "it is for {}, and this python for {}",
                elf.machine_name(),
                python.machine_name()
            )
        })
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
    fcntl_add_seals(
        &copy,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(copy.into())
}

fn find() -> Result<PathBuf, LogMessage> {
    if let Some(path) = env::var_os("WSGATE_ENGINE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(missing(&[path]).hint("correct the variable WSGATE_ENGINE, or take it away"))
        };
    }
    let program = env::current_exe().map_err(|error| {
        LogMessage::error(Code::NoEngine, format!("the program's own path is unknown: {error}"))
            .hint("mount /proc, or name the engine by the variable WSGATE_ENGINE")
    })?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = [beside.join(FILE), beside.join("../lib/wsgate").join(FILE)];
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        missing(&places)
            .hint("install it with `make install`, or name it by the variable WSGATE_ENGINE")
    })
}

/// The log message for an engine that `python` cannot load, for its `reason`.
pub(crate) fn unfit(engine: &Engine, python: &Path, reason: &str) -> LogMessage {
    let damage = engine.damage(python);
    // The dynamic loader names what it was given.
    let held = engine.held().map(|held| format!("/proc/self/fd/{}", held.as_raw_fd()));
    let reason = held.map_or_else(
        || reason.to_owned(),
        |held| reason.replace(&held, &engine.path.to_string_lossy()),
    );
    let about = damage.as_ref().map(|damage| format!("{damage} (")).unwrap_or_default();
    let end = if damage.is_some() { ")" } else { "" };
    let sentence = format!(
        "the engine `{}` does not work in `{}`: {about}{reason}{end}",
        engine.path.display(),
        python.display()
    );
    let hint = if damage.is_some() { INSTALL_AGAIN } else { hint(&reason) };
    LogMessage::error(Code::UnfitEngine, sentence).hint(hint)
}

/// The log message for an engine that makes `python` crash, as a part of a file does.
pub(crate) fn damaged(engine: &Engine, python: &Path) -> Option<LogMessage> {
    let damage = engine.damage(python)?;
    let sentence = format!(
        "the engine `{}` does not work in `{}`: {damage}",
        engine.path.display(),
        python.display()
    );
    Some(LogMessage::error(Code::UnfitEngine, sentence).hint(INSTALL_AGAIN))
}

const INSTALL_AGAIN: &str = "install wsgate again, for this machine: `make install`";

/// What helps against the `reason` for which Python does not load the engine.
fn hint(reason: &str) -> &'static str {
    let has = |word: &str| reason.contains(word);
    if has("version `") && has("' not found") {
        "the engine was built on a system with a newer C library; build it on this one: `make \
         install`"
    } else if has("Permission denied") {
        "let the user that the request runs as read the engine: `chmod a+r`, and `chmod a+x` for \
         its directories"
    } else if has("Operation not permitted") {
        "the file system of the engine is mounted with `noexec`, or a security module forbids to \
         run it"
    } else if has("Too many open files") {
        "python may open no more files: raise the limit (`ulimit -n`, `LimitNOFILE=`)"
    } else if has("Cannot allocate memory") {
        "memory is short: raise the limit (`ulimit -v`, `MemoryMax=`)"
    } else if has("undefined symbol") {
        "this python lacks what the engine needs: name a CPython 3.9 or later by `--python EXE`"
    } else if has("is too old") || has("is not CPython") || has("free-threaded") {
        "name a CPython 3.9 or later by `--python EXE`, or a virtualenv made by one by `--venv DIR`"
    } else {
        "the engine needs CPython 3.9 or later and the gateway of the same build; install both \
         with `make install`"
    }
}

fn missing(places: &[PathBuf]) -> LogMessage {
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    LogMessage::error(
        Code::NoEngine,
        format!("the engine was not found as {}", places.join(" or ")),
    )
}
