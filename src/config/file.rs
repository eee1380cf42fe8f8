//! The configuration file of a pool: a TOML file whose keys are the options of `wsgate fastcgi`,
//! without dashes in front.
//!
//! Each key becomes the arguments that the option has on the command line, so that every option can
//! stand in the file, and is checked in one place. `app` is the argument APP.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, error::ErrorKind};
use diagnostics::message::{Code, LogMessage};
use toml::de::DeTable;

use crate::config::file_values::{APP, arguments_of};

/// Maximum length of a configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What the TOML reader says about a key that it has seen before.
const DUPLICATE_KEY: &str = "duplicate key";

/// A configuration file that was read.
pub(crate) struct ConfigFile {
    path: PathBuf,
    /// The keys, in the order of the file.
    entries: Vec<Entry>,
}

/// A key of a configuration file.
struct Entry {
    /// The argument's identifier in `clap`.
    id: String,
    line: usize,
    arguments: Vec<OsString>,
}

impl ConfigFile {
    /// Reads the file `path`, whose keys are options of `command`.
    ///
    /// # Errors
    /// The log message that names file, line, and what is wrong.
    pub(crate) fn read(path: &Path, command: &Command) -> Result<Self, LogMessage> {
        let text = text_of(path)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let table = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            let key = error.span().and_then(|span| text.get(span)).map(str::trim);
            match key.filter(|_| error.message() == DUPLICATE_KEY) {
                Some(key) => {
                    wrong(&path, line, &format!("`{}` stands here twice", key.escape_debug())).hint(
                        "give each key once; beside `timeout`, the tables for paths are called \
                             `[[timeout-for]]`",
                    )
                }
                None => wrong(&path, line, error.message()).hint(
                    "the file is TOML: `key = value` lines, and text in quotes (https://toml.io)",
                ),
            }
        })?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let mut entries = Vec::new();
        for (key, value) in table.get_ref() {
            let line = line_of(&text, key.span().start);
            let of_key = arguments_of(command, key.get_ref(), value.get_ref(), base)
                .map_err(|sentence| with_hint(wrong(&path, line, &sentence)))?;
            entries.extend(of_key.into_iter().map(|(arg, arguments)| Entry {
                id: arg.get_id().to_string(),
                line,
                arguments,
            }));
        }
        entries.sort_by_key(|entry| entry.line);
        let file = Self { path, entries };
        file.check_values(command)?;
        Ok(file)
    }

    /// The absolute path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does the file name an application?
    pub(crate) fn has_app(&self) -> bool {
        self.entries.iter().any(|entry| entry.id == APP)
    }

    /// The arguments for the keys of the file, but for those that `is_overridden` by the command
    /// line.
    pub(crate) fn arguments(&self, is_overridden: impl Fn(&str) -> bool) -> Vec<OsString> {
        let entries = self.entries.iter().filter(|entry| !is_overridden(&entry.id));
        entries.flat_map(|entry| entry.arguments.iter().cloned()).collect()
    }

    /// The log message about options of the file that do not go together.
    pub(crate) fn refused(&self, error: &clap::Error) -> LogMessage {
        LogMessage::new(
            Code::BadSetting,
            format!("`{}`: {}", self.path.display(), sentence_of(error)),
        )
        .hint("`wsgate fastcgi --help` explains the options")
    }

    /// Parses each key alone, so that an error names its line.
    fn check_values(&self, command: &Command) -> Result<(), LogMessage> {
        for entry in &self.entries {
            let arguments = entry.arguments.iter().cloned();
            match command.clone().try_get_matches_from(arguments) {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ValueValidation | ErrorKind::InvalidValue
                    ) =>
                {
                    return Err(with_hint(wrong(&self.path, entry.line, &sentence_of(&error))));
                }
                // The whole file is parsed later, with what the key requires.
                _ => {}
            }
        }
        Ok(())
    }
}

fn text_of(path: &Path) -> Result<String, LogMessage> {
    let shown = path.display();
    let unreadable = |reason: String, hint: &str| {
        LogMessage::new(
            Code::BadSetting,
            format!("the configuration file `{shown}` cannot be read: {reason}"),
        )
        .hint(hint)
    };
    let found = fs::metadata(path).map_err(|error| {
        unreadable(error.to_string(), "check the path, and the permissions of each directory in it")
    })?;
    if !found.is_file() {
        return Err(unreadable("not a regular file".to_owned(), "name a TOML file"));
    }
    if found.len() > MAX_BYTES {
        return Err(unreadable(format!("longer than {MAX_BYTES} bytes"), "name a TOML file"));
    }
    let bytes = fs::read(path)
        .map_err(|error| unreadable(error.to_string(), "let this user read it: chmod a+r"))?;
    String::from_utf8(bytes)
        .map_err(|error| unreadable(error.to_string(), "save the file as UTF-8 text"))
}

fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes()[..position.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn wrong(path: &Path, line: usize, sentence: &str) -> LogMessage {
    LogMessage::new(Code::BadSetting, format!("`{}`, line {line}: {sentence}", path.display()))
}

fn with_hint(message: LogMessage) -> LogMessage {
    message.hint("the keys are the options of `wsgate fastcgi`, without `--`, and `app`")
}

/// The first paragraph of an error of `clap`, in one line.
fn sentence_of(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let sentence = lines.collect::<Vec<_>>().join(" ");
    sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned()
}
