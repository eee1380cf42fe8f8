//! The configuration file of a pool: a TOML file whose keys are the options of `wsgate fastcgi`,
//! without dashes in front.
//!
//! Each key becomes the arguments that the option has on the command line, so that every option can
//! stand in the file, and is checked in one place. `app` is the argument APP. A table, such as
//! `[env]`, becomes one `NAME=VALUE` for each of its keys.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, ValueHint, error::ErrorKind};
use diagnostics::message::{Code, LogMessage};
use toml::de::{DeTable, DeValue};

use crate::config::options::{app::program_at, nearest::nearest};

/// Key of the argument APP.
const APP: &str = "app";

/// Maximum length of a configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

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
            wrong(&path, line, error.message())
                .hint("the file is TOML: `key = value` lines, and text in quotes (https://toml.io)")
        })?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let mut entries = Vec::new();
        for (key, value) in table.get_ref() {
            let line = line_of(&text, key.span().start);
            let entry = option(command, key.get_ref())
                .and_then(|arg| {
                    let arguments = arguments(arg, key.get_ref(), value.get_ref(), base)?;
                    Ok(Entry { id: arg.get_id().to_string(), line, arguments })
                })
                .map_err(|sentence| with_hint(wrong(&path, line, &sentence)))?;
            entries.push(entry);
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

/// The option with the name `key`.
fn option<'a>(command: &'a Command, key: &str) -> Result<&'a Arg, String> {
    let named = |arg: &&Arg| match arg.get_long() {
        Some(long) => long == key && !matches!(long, "config" | "help"),
        None => key == APP && arg.is_positional(),
    };
    command.get_arguments().find(named).ok_or_else(|| {
        let names = command.get_arguments().filter_map(Arg::get_long).chain([APP]);
        let names = names.filter(|name| !matches!(*name, "config" | "help"));
        match nearest(key, names) {
            Some(name) => format!("unknown key `{}`; the nearest is `{name}`", key.escape_debug()),
            None => format!("unknown key `{}`", key.escape_debug()),
        }
    })
}

/// The arguments for `key`, whose paths start at `base`.
fn arguments(
    arg: &Arg,
    key: &str,
    value: &DeValue<'_>,
    base: &Path,
) -> Result<Vec<OsString>, String> {
    if !arg.get_action().takes_values() {
        return match value {
            DeValue::Boolean(true) => Ok(vec![format!("--{key}").into()]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            _ => Err(format!("`{key}` must be `true` or `false`")),
        };
    }
    let is_repeatable = matches!(arg.get_action(), ArgAction::Append);
    let values = match value {
        DeValue::Array(values) if is_repeatable => {
            values.iter().map(|value| text(arg, key, value.get_ref())).collect::<Result<_, _>>()?
        }
        DeValue::Table(table) if is_repeatable && takes_assignments(arg) => table
            .iter()
            .map(|(name, value)| {
                Ok(format!("{}={}", name.get_ref(), text(arg, name.get_ref(), value.get_ref())?))
            })
            .collect::<Result<Vec<_>, String>>()?,
        DeValue::Array(_) => return Err(format!("`{key}` takes one value, not a list")),
        value => vec![text(arg, key, value)?],
    };
    let arguments = values.iter().map(|value| from_base(arg, value, base));
    Ok(match arg.get_long() {
        Some(long) => arguments
            .map(|value| {
                let mut argument = OsString::from(format!("--{long}="));
                argument.push(value);
                argument
            })
            .collect(),
        None => arguments.collect(),
    })
}

fn takes_assignments(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains('=')))
}

/// `value` as it would stand on the command line.
fn text(arg: &Arg, key: &str, value: &DeValue<'_>) -> Result<String, String> {
    let key = key.escape_debug();
    match value {
        DeValue::String(text) if text.contains('\0') => Err(format!("`{key}` has a NUL character")),
        DeValue::String(text) => Ok(text.to_string()),
        // Permissions are octal on the command line, too.
        DeValue::Integer(number) if number.radix() == 8 && is_mode(arg) => {
            Ok(number.as_str().to_owned())
        }
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("`{key}` is too large a number")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            let kind = value.type_str();
            Err(format!("the value of `{key}` must be text in quotes or a number, not a {kind}"))
        }
    }
}

fn is_mode(arg: &Arg) -> bool {
    let is_octal = |name: &str| matches!(name, "MODE" | "MASK");
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| is_octal(name)))
}

/// `value` with a path in it absolute.
fn from_base(arg: &Arg, value: &str, base: &Path) -> OsString {
    if let Some(path) = value.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        let mut address = OsString::from("unix:");
        address.push(base.join(path));
        return address;
    }
    if arg.is_positional() {
        return app_from(base, value);
    }
    match arg.get_value_hint() {
        // Standard error, for the access log.
        _ if value == "-" || value.is_empty() => value.into(),
        ValueHint::ExecutablePath => program_at(base, Path::new(value)).into_os_string(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => {
            base.join(value).into_os_string()
        }
        _ => value.into(),
    }
}

/// APP, absolute if its file is found from `base`.
fn app_from(base: &Path, app: &str) -> OsString {
    let is_module = |app: &str| {
        let name = app.split(':').next().unwrap_or_default();
        !name.contains('/') && !Path::new(OsStr::new(&base.join(name))).exists()
    };
    if is_module(app) { app.into() } else { base.join(app).into_os_string() }
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
