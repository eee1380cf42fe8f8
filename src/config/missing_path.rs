//! Paths of `--path` and `--reload-on` that do not exist. Such a path is not an error, because it
//! may be created or mounted later; but it may be misspelt.

use std::{fs, io, path::PathBuf};

use diagnostics::message::{Code, LogMessage};

use crate::config::settings::Settings;

/// A path of an option that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MissingPath {
    path: PathBuf,
    reason: String,
    option: PathOption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathOption {
    Path,
    ReloadOn,
}

impl MissingPath {
    /// The missing entries of `sys.path`, which matter wherever the application is loaded.
    pub(crate) fn of_loading(settings: &Settings) -> Vec<Self> {
        Self::among(&settings.sys_path, PathOption::Path)
    }

    /// The missing paths that a pool watches for changes.
    pub(crate) fn of_watching(settings: &Settings) -> Vec<Self> {
        Self::among(&settings.fastcgi.reload_on, PathOption::ReloadOn)
    }

    fn among(paths: &[PathBuf], option: PathOption) -> Vec<Self> {
        let reason = |path: &PathBuf| match fs::metadata(path) {
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("does not exist".to_owned())
            }
            Err(error) => Some(format!("cannot be used: {error}")),
        };
        let missing = paths.iter().filter_map(|path| Some((path.clone(), reason(path)?)));
        missing.map(|(path, reason)| Self { path, reason, option }).collect()
    }

    /// The warning about the path.
    pub(crate) fn message(&self) -> LogMessage {
        let (name, hint) = match self.option {
            PathOption::Path => {
                ("--path", "correct or create the path: Python skips it until it exists")
            }
            PathOption::ReloadOn => {
                ("--reload-on", "correct or create the path: the pool reloads once it exists")
            }
        };
        let sentence = format!("`{}` of {name} {}", self.path.display(), self.reason);
        LogMessage::new(Code::MissingPath, sentence).hint(hint)
    }
}
