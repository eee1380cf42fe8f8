//! Finds the engine, the extension module that python loads. A pool keeps using the engine with
//! which it was started.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wire::{mappable, snapshot::Snapshot};

use crate::{
    python::{elf::Elf, glibc},
    system::installed_file::{
        NotInstalled, {self},
    },
};

/// The file name of the engine, both in cargo's output and after `make install`.
const FILE_NAME: &str = "libwsgate_engine.so";

/// The engine of a run.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    path: PathBuf,
    held: Option<HeldEngine>,
}

/// An engine that stays the same when its file is replaced.
#[derive(Clone, Debug)]
struct HeldEngine {
    code: Arc<OwnedFd>,
    /// The state of the file when it was copied.
    file: Option<Snapshot>,
}

impl Engine {
    /// The engine that `WSGATE_ENGINE` names, or beside this program, or in `../lib/wsgate/`.
    ///
    /// # Errors
    /// The log message, if there is no engine.
    pub(crate) fn find() -> Result<Self, LogMessage> {
        find().map(|path| Self { path, held: None })
    }

    /// The path at which the engine was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// This engine, independent of its file: gateway and engine of different builds refuse to work
    /// together, and an upgrade replaces the file while the gateway runs.
    ///
    /// The engine is copied into memory, because a write to the file would crash processes that
    /// have loaded it. If the kernel forbids executing code from such memory, the file is kept open
    /// instead.
    pub(crate) fn hold(self) -> Self {
        let held = File::open(&self.path).ok().map(|file| {
            let snapshot = Snapshot::of_open(&file);
            let copy = copy(&file).ok().filter(|copy| mappable::is_executable(copy.as_fd()));
            HeldEngine { code: Arc::new(copy.unwrap_or_else(|| file.into())), file: snapshot }
        });
        Self { held, ..self }
    }

    /// The file descriptor to load instead of the file at [`Engine::path`].
    pub(crate) fn held(&self) -> Option<BorrowedFd<'_>> {
        self.held.as_ref().map(|held| held.code.as_fd())
    }

    /// Why the file is damaged, for the program `python`. A full disk, for example, truncates the
    /// file.
    fn damage(&self, python: &Path) -> Option<String> {
        let file = self.file()?;
        let length = file.metadata().ok()?.len();
        let Some(elf) = Elf::read(&file).ok()? else {
            let damage =
                if length == 0 { "the file is empty" } else { "the file is not a shared library" };
            return Some(damage.to_owned());
        };
        if let Some(least) = elf.least_length.filter(|&least| length < least) {
            return Some(format!("the file is damaged: it has {length} of at least {least} bytes"));
        }
        // A wrapper script is not an ELF file.
        let python = File::open(python).ok().and_then(|python| Elf::read(&python).ok()?)?;
        (python.machine != elf.machine).then(|| {
            format!(
                "it is for {}, and this python for {}",
                elf.machine_name(),
                python.machine_name()
            )
        })
    }

    /// The file that python loads.
    fn file(&self) -> Option<File> {
        match &self.held {
            Some(held) => held.code.as_fd().try_clone_to_owned().ok().map(File::from),
            None => File::open(&self.path).ok(),
        }
    }

    /// The content of the file that python loads.
    fn content(&self) -> Option<Vec<u8>> {
        let file = self.file()?;
        let mut content = vec![0; usize::try_from(file.metadata().ok()?.len()).ok()?];
        // A held engine shares its position with other processes.
        file.read_exact_at(&mut content, 0).ok()?;
        Some(content)
    }

    /// Has another file replaced the file of the held engine?
    pub(crate) fn is_replaced(&self) -> bool {
        let known = self.held.as_ref().and_then(|held| held.file);
        let found = Snapshot::of(&self.path);
        matches!((known, found), (Some(known), Some(found)) if !known.is_same_content(&found))
    }
}

/// A copy of `file` in memory that cannot be changed.
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
    installed_file::find(FILE_NAME, "WSGATE_ENGINE").map_err(|reason| match reason {
        NotInstalled::Variable(path) => {
            missing(&[path]).hint("correct or unset the variable WSGATE_ENGINE")
        }
        NotInstalled::NoProgram(error) => {
            LogMessage::new(Code::NoEngine, format!("the path of this program is unknown: {error}"))
                .hint("mount /proc, or set the variable WSGATE_ENGINE to the path of the engine")
        }
        NotInstalled::At(paths) => missing(&paths).hint(
            "install wsgate again, from the wheel, package or archive that it came from, or set \
             the variable WSGATE_ENGINE to the path of the engine",
        ),
    })
}

/// The log message about an engine that `python` cannot load for `reason`.
pub(crate) fn unfit(engine: &Engine, python: &Path, reason: &str) -> LogMessage {
    let damage = engine.damage(python);
    // The message of the dynamic loader has the path that was passed to it.
    let held = engine.held().map(|held| format!("/proc/self/fd/{}", held.as_raw_fd()));
    let reason = held.map_or_else(
        || reason.to_owned(),
        |held| reason.replace(&held, &engine.path.to_string_lossy()),
    );
    let glibc = if damage.is_some() { None } else { glibc::needed(|| engine.content(), &reason) };
    let limit = limit_hints::of_text(&reason);
    let (code, hint) = match (&damage, &glibc) {
        (Some(_), _) => (Code::UnfitEngine, INSTALL_AGAIN),
        (None, Some(_)) => (Code::OldGlibc, INSTALL_FOR_OLD_GLIBC),
        (None, None) => (Code::UnfitEngine, limit.as_deref().unwrap_or_else(|| hint(&reason))),
    };
    let reason =
        damage.or(glibc).map_or_else(|| reason.clone(), |cause| format!("{cause} ({reason})"));
    let sentence = format!(
        "the engine `{}` does not work in `{}`: {reason}",
        engine.path.display(),
        python.display()
    );
    LogMessage::new(code, sentence).hint(hint)
}

/// The log message about a damaged engine, which crashes `python`.
pub(crate) fn damaged(engine: &Engine, python: &Path) -> Option<LogMessage> {
    let damage = engine.damage(python)?;
    let sentence = format!(
        "the engine `{}` does not work in `{}`: {damage}",
        engine.path.display(),
        python.display()
    );
    Some(LogMessage::new(Code::UnfitEngine, sentence).hint(INSTALL_AGAIN))
}

const INSTALL_AGAIN: &str = "install wsgate again, from a wheel, package or archive for this \
                             machine, or build it here: `make install`";

const INSTALL_FOR_OLD_GLIBC: &str = "install wsgate from the wheel, package or archive of `make \
                                     dist`, which need glibc 2.17 only, or build it on this \
                                     system: `make install`";

/// The hint for the `reason` for which Python cannot load the engine.
fn hint(reason: &str) -> &'static str {
    let has = |text: &str| reason.contains(text);
    if has("Permission denied") {
        "let the user that the request runs as read the engine: `chmod a+r`, and `chmod a+x` for \
         its directories"
    } else if has("Operation not permitted") {
        "the file system of the engine is mounted with `noexec`, or a security module forbids \
         executing it"
    } else if has("Too many open files") {
        "the limit of open files is reached: raise it (`ulimit -n`, `LimitNOFILE=`)"
    } else if has("undefined symbol") {
        "this python lacks a symbol that the engine needs: use CPython 3.9 or later with `--python \
         EXE`"
    } else if has("is too old") || has("is not CPython") || has("free-threaded") {
        "use CPython 3.9 or later with `--python EXE`, or a virtualenv of it with `--venv DIR`"
    } else {
        "the engine needs CPython 3.9 or later and the gateway of the same build: install both \
         again, from the wheel, package or archive that they came from"
    }
}

fn missing(paths: &[PathBuf]) -> LogMessage {
    let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    LogMessage::new(Code::NoEngine, format!("the engine was not found at {}", paths.join(" or ")))
}
