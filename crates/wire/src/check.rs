//! What the engine found when it was asked to check an application.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::app::{App, Source};

/// Findings about one application, as the interpreter that would serve it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Version of the interpreter, such as `3.11.2`.
    pub python_version: String,
    /// Path of the interpreter (`sys.executable`).
    pub executable: String,
    /// `sys.prefix`: the virtualenv, if one is active.
    pub prefix: String,
    /// Is a virtualenv active?
    pub in_venv: bool,
    /// `sys.path` as the application saw it.
    pub sys_path: Vec<String>,
    /// How long loading took.
    pub import_time: Duration,
    /// What was found, or the entry that says why not.
    pub loaded: Result<Loaded, String>,
}

/// An application that could be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Name under which the callable was found.
    pub callable: String,
    /// Its type, as Python names it.
    pub kind: String,
    /// Files of the modules that were loaded, as bytes.
    pub files: Vec<Vec<u8>>,
    /// Status of the first request under `wsgiref.validate`, or the entry that says what went
    /// wrong.
    pub first_request: Result<String, String>,
    /// Why `wsgiref.validate` was not asked, if it was not.
    pub not_validated: Option<String>,
    /// How long that request took.
    pub request_time: Duration,
    /// Threads that were running after loading, beside the main one.
    pub threads: usize,
    /// What loading left open or running; which code did it is not known.
    pub side_effects: Vec<SideEffect>,
    /// Random number generators in globals of modules, such as ``module `app.db` holds a
    /// `random.Random` as `rng` ``.
    pub generators: Vec<String>,
}

/// Something that loading an application left open or running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideEffect {
    /// What was done, such as `started 2 threads`.
    pub what: String,
    /// Are these threads? They are missing in forked processes; everything else is shared by them.
    pub is_threads: bool,
    /// Which processes may have it.
    pub sharing: Sharing,
    /// The code that did it, if that is known.
    pub origin: Option<CodeLocation>,
}

/// Which processes may have what an import left open or running; the strictest comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sharing {
    /// Processes that are forked from the one that has loaded the application may share it.
    Forked,
    /// Each process needs its own, so each loads the application by itself.
    EachProcess,
    /// One process at a time may have it: a second one fails to load the application, or destroys
    /// its data.
    OneProcess,
}

impl Sharing {
    /// What all of `remains` allow together.
    pub fn of(side_effects: &[SideEffect]) -> Self {
        side_effects.iter().map(|one| one.sharing).max().unwrap_or(Self::Forked)
    }
}

/// A place in Python code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLocation {
    /// Name of the module.
    pub module: String,
    /// Its file, as bytes.
    pub file: Vec<u8>,
    /// The line, from 1.
    pub line: u32,
    /// Module of the installed package that was called there and did it.
    pub through: Option<String>,
}

impl SideEffect {
    /// A sentence that names the code in words that an author of `app` knows.
    pub fn sentence(&self, app: &App) -> String {
        match &self.origin {
            None => format!("unknown code {}", self.what),
            Some(origin) => format!("{} {}", origin.place(app), self.what),
        }
    }

    /// All of them as bytes.
    ///
    /// # Errors
    /// As for [`Findings::encode`].
    pub fn encode(all: &[Self]) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(all)
    }

    /// Reads them back.
    ///
    /// # Errors
    /// If the bytes are cut or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Self>, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

impl CodeLocation {
    /// Module, line, and the package that was called there.
    fn place(&self, app: &App) -> String {
        let is_script = matches!(&app.source, Source::File(script) if *script == self.file);
        let file = Path::new(OsStr::from_bytes(&self.file)).file_name();
        // The name of a script as a module is made up by the engine.
        let name = file
            .filter(|_| is_script)
            .map_or_else(|| self.module.clone().into(), OsStr::to_string_lossy);
        let through = self
            .through
            .as_ref()
            .map(|module| format!(", through `{module}`,"))
            .unwrap_or_default();
        format!("module `{name}` (line {}){through}", self.line)
    }
}

impl Findings {
    /// The findings as bytes.
    ///
    /// # Errors
    /// If the encoder refuses a value; none of the types here can bring that about.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// Reads findings back.
    ///
    /// # Errors
    /// If the bytes are cut or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}
