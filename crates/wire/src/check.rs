//! Findings of the engine about an application that it was asked to check.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Source},
    message::{Kind, Message},
};

/// Findings about an application, in the interpreter that would serve it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Version of the interpreter, such as `3.11.2`.
    pub python_version: String,
    /// Path of the interpreter (`sys.executable`).
    pub executable: String,
    /// `sys.prefix`: the virtualenv, if one is active.
    pub prefix: String,
    /// A virtualenv is active.
    pub in_venv: bool,
    /// `sys.path` as the application saw it.
    pub sys_path: Vec<String>,
    /// How long loading took.
    pub import_time: Duration,
    /// The loaded application, or the log message that says why it cannot be loaded.
    pub loaded: Result<Loaded, String>,
}

/// An application that could be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Name under which the callable was found.
    pub callable: String,
    /// Type of the callable, as Python names it.
    pub kind: String,
    /// Files of the loaded modules, as bytes.
    pub files: Vec<Vec<u8>>,
    /// The first request.
    pub first_request: FirstRequest,
    /// Whether the application keeps to PEP 3333 in a second request.
    pub validation: Validation,
    /// How long the first request took.
    pub request_time: Duration,
    /// Threads that were running after loading, besides the main thread.
    pub threads: usize,
    /// What loading left open or running, without the code that caused it.
    pub side_effects: Vec<SideEffect>,
    /// Random number generators in globals of modules, such as ``module `app.db` holds a
    /// `random.Random` as `rng` ``.
    pub generators: Vec<String>,
}

/// The first request of an application, and its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRequest {
    /// Path and query.
    pub target: String,
    /// Status line of the response that a client would get; empty if it would get none.
    pub status: String,
    /// Log messages of the request.
    pub messages: String,
    /// The client would get a complete response.
    pub is_complete: bool,
}

/// What `wsgiref.validate` says about an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Validation {
    /// The request was valid.
    Valid,
    /// What was not valid.
    Invalid(String),
    /// Why no request was validated.
    NotValidated(String),
}

/// Something that loading an application left open or running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideEffect {
    /// What the code did, such as `started 2 threads`.
    pub what: String,
    /// The side effect is threads. Forked processes lack threads, and share everything else.
    pub is_threads: bool,
    /// Which processes may have it.
    pub sharing: Sharing,
    /// The code that caused it, if that is known.
    pub origin: Option<CodeLocation>,
}

/// Which processes may have what loading left open or running; the strictest comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sharing {
    /// Processes forked after loading may share it.
    Forked,
    /// Each process needs its own, so each loads the application.
    EachProcess,
    /// Only one process at a time may have it: a second process fails to load the application, or
    /// destroys its data.
    OneProcess,
}

impl Sharing {
    /// The strictest sharing of `side_effects`.
    pub fn of(side_effects: &[SideEffect]) -> Self {
        side_effects.iter().map(|side_effect| side_effect.sharing).max().unwrap_or(Self::Forked)
    }
}

/// A line of Python code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLocation {
    /// Name of the module.
    pub module: String,
    /// File of the module, as bytes.
    pub file: Vec<u8>,
    /// Number of the line, from 1.
    pub line: u32,
    /// Module of the installed package that the line called, if the package caused the side effect.
    pub through: Option<String>,
}

impl Message for Findings {
    const KIND: Kind = Kind::Findings;
}

impl Message for Vec<SideEffect> {
    const KIND: Kind = Kind::SideEffects;
}

impl SideEffect {
    /// A sentence that names the code in words that the author of `app` knows.
    pub fn sentence(&self, app: &App) -> String {
        match &self.origin {
            None => format!("unknown code {}", self.what),
            Some(origin) => format!("{} {}", origin.describe(app), self.what),
        }
    }
}

impl CodeLocation {
    /// Module, line, and the package that the line called.
    fn describe(&self, app: &App) -> String {
        let is_script = matches!(&app.source, Source::File(script) if *script == self.file);
        let file = Path::new(OsStr::from_bytes(&self.file)).file_name();
        // The engine makes up the module name of a script.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn location(through: Option<&str>) -> SideEffect {
        SideEffect {
            what: "opened a file".into(),
            is_threads: false,
            sharing: Sharing::EachProcess,
            origin: Some(CodeLocation {
                module: "__wsgate__".into(),
                file: b"/srv/site.wsgi".to_vec(),
                line: 7,
                through: through.map(str::to_owned),
            }),
        }
    }

    #[test]
    fn a_sentence_names_a_script_by_its_file() {
        let app = App::in_file("/srv/site.wsgi");
        let side_effect = location(None);
        assert_eq!(side_effect.sentence(&app), "module `site.wsgi` (line 7) opened a file");
        let other = App::in_file("/srv/other.wsgi");
        assert_eq!(
            location(Some("b")).sentence(&other),
            "module `__wsgate__` (line 7), through `b`, opened a file"
        );
        let unknown = SideEffect { origin: None, ..side_effect };
        assert_eq!(unknown.sentence(&app), "unknown code opened a file");
    }

    #[test]
    fn the_strictest_sharing_counts() {
        let one = SideEffect { sharing: Sharing::OneProcess, ..location(None) };
        assert_eq!(Sharing::of(&[]), Sharing::Forked);
        assert_eq!(Sharing::of(&[one, location(None)]), Sharing::OneProcess);
    }
}
