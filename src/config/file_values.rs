//! Keys and values of a configuration file as the arguments that they stand for.
//!
//! | in the file | on the command line |
//! |---|---|
//! | `workers = 4` | `--workers=4` |
//! | `reload = true` | `--reload` |
//! | `listen = ["a", "b"]` | `--listen=a --listen=b` |
//! | `[env]`, `NAME = "VALUE"` | `--env=NAME=VALUE` |
//! | `[[env]]`, `name = "NAME"`, `value = "VALUE"` | `--env=NAME=VALUE` |
//!
//! The last row holds for each option whose value is named `A=B` in the help. A list of tables with
//! the key of another option belongs to the option with the suffix `-for`.

use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, ValueHint};
use toml::de::{DeTable, DeValue};

use crate::config::options::{app::program_at, nearest::nearest};

/// Key of the argument APP.
pub(super) const APP: &str = "app";

/// Suffix of an option that has one value for each of several things, such as paths.
const FOR_EACH_SUFFIX: &str = "-for";

/// The options that `key` stands for, each with its arguments; their paths start at `base`.
///
/// # Errors
/// What is wrong with the key or its value.
pub(super) fn arguments_of<'a>(
    command: &'a Command,
    key: &str,
    value: &DeValue<'_>,
    base: &Path,
) -> Result<Vec<(&'a Arg, Vec<OsString>)>, String> {
    let Some(tables) = tables(value) else {
        let arg = option(command, key)?;
        return Ok(vec![(arg, arguments(arg, key, value, base)?)]);
    };
    let arg =
        option(command, &format!("{key}{FOR_EACH_SUFFIX}")).or_else(|_| option(command, key))?;
    let [first, second] = columns(arg)
        .ok_or_else(|| format!("`{key}` takes values, such as `{key} = \"…\"`, not tables"))?;
    let value = |table: &DeTable<'_>, column: &str| {
        let value = table.get(column);
        value.map(|value| text(arg, column, value.get_ref())).transpose()
    };
    let mut all = Vec::new();
    for table in tables {
        let unknown =
            table.keys().map(|key| key.get_ref()).find(|key| **key != first && **key != second);
        if let Some(unknown) = unknown {
            return Err(format!(
                "unknown key `{}` in `[[{key}]]`, whose keys are `{first}` and `{second}`",
                unknown.escape_debug()
            ));
        }
        let missing = |column: &str| format!("`[[{key}]]` needs the key `{column}`");
        let right = value(table, &second)?.ok_or_else(|| missing(&second))?;
        let left = value(table, &first)?.ok_or_else(|| missing(&first))?;
        all.push((arg, with_name(arg, [pair(&first, &left, &right)?.into()])));
    }
    Ok(all)
}

/// The tables of `value`, if it is a list of tables.
fn tables<'v, 'i>(value: &'v DeValue<'i>) -> Option<Vec<&'v DeTable<'i>>> {
    let DeValue::Array(values) = value else { return None };
    let tables = values.iter().map(|value| match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    });
    tables.collect::<Option<Vec<_>>>().filter(|tables| !tables.is_empty())
}

/// The keys of a table that stands for the value of `arg`: `name` and `value` for `NAME=VALUE`.
fn columns(arg: &Arg) -> Option<[String; 2]> {
    let name = arg.get_value_names()?.first()?;
    let (first, second) = name.split_once('=')?;
    Some([first.to_lowercase(), second.to_lowercase()])
}

/// The value `LEFT=RIGHT` of an option. `column` is what the help calls the left side.
fn pair(column: &str, left: &str, right: &str) -> Result<String, String> {
    // The option would take the name to end at the first `=`; a path may have one.
    if left.contains('\0') || column == "name" && (left.is_empty() || left.contains('=')) {
        let shown = left.escape_debug();
        return Err(format!("`{shown}` cannot be a {column}: it is empty, or has `=` or NUL"));
    }
    Ok(format!("{left}={right}"))
}

/// `values` as arguments of `arg`.
fn with_name(arg: &Arg, values: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let Some(long) = arg.get_long() else { return values.into_iter().collect() };
    let named = values.into_iter().map(|value| {
        let mut argument = OsString::from(format!("--{long}="));
        argument.push(value);
        argument
    });
    named.collect()
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
        DeValue::Table(table) if is_repeatable && columns(arg).is_some() => {
            let [column, _] = columns(arg).unwrap_or_default();
            let pairs = table.iter().map(|(name, value)| {
                let name = name.get_ref();
                pair(&column, name, &text(arg, name, value.get_ref())?)
            });
            pairs.collect::<Result<Vec<_>, String>>()?
        }
        DeValue::Array(_) => return Err(format!("`{key}` takes one value, not a list")),
        value => vec![text(arg, key, value)?],
    };
    Ok(with_name(arg, values.iter().map(|value| from_base(arg, value, base))))
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

/// `path` from `base`, without `.` and `..` where the meaning is the same: a `..` behind a link
/// stays, since it leads elsewhere.
fn joined(base: &Path, path: &Path) -> PathBuf {
    let mut joined = PathBuf::new();
    for component in base.join(path).components() {
        let is_plain = !joined.is_symlink() && joined.file_name().is_some();
        match component {
            Component::CurDir => {}
            Component::ParentDir if is_plain => {
                joined.pop();
            }
            _ => joined.push(component),
        }
    }
    joined
}

/// `value` with a path in it absolute.
fn from_base(arg: &Arg, value: &str, base: &Path) -> OsString {
    if let Some(path) = value.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        let mut address = OsString::from("unix:");
        address.push(joined(base, Path::new(path)));
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
            joined(base, Path::new(value)).into_os_string()
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
    if is_module(app) {
        return app.into();
    }
    // Arguments of a factory are no path.
    let (file, rest) = app.split_at(app.find(':').unwrap_or(app.len()));
    let mut app = joined(base, Path::new(file)).into_os_string();
    app.push(rest);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments that the keys of `text` stand for.
    fn arguments(text: &str) -> Result<Vec<String>, String> {
        let command = Command::new("test").args([
            Arg::new("workers").long("workers").value_name("COUNT"),
            Arg::new("limit").long("limit").value_name("SECONDS"),
            Arg::new("limit_for")
                .long("limit-for")
                .value_name("PATH=SECONDS")
                .action(ArgAction::Append),
            Arg::new("set").long("set").value_name("NAME=VALUE").action(ArgAction::Append),
        ]);
        let table = DeTable::parse(text).unwrap();
        let mut all = Vec::new();
        for (key, value) in table.get_ref() {
            for (_, of_key) in
                arguments_of(&command, key.get_ref(), value.get_ref(), Path::new("/base"))?
            {
                all.extend(of_key.into_iter().map(|argument| argument.into_string().unwrap()));
            }
        }
        Ok(all)
    }

    #[test]
    fn tables_stand_for_the_values_of_an_option() {
        for text in [
            "[[limit]]\npath = \"/a\"\nseconds = 5\n[[limit]]\nseconds = 6\npath = \"/b\"",
            "limit = [{ path = \"/a\", seconds = 5 }, { path = \"/b\", seconds = 6 }]",
            "[[limit-for]]\npath = \"/a\"\nseconds = 5\n[[limit-for]]\npath = \"/b\"\nseconds = 6",
            "[limit-for]\n\"/a\" = 5\n\"/b\" = 6",
            "limit-for = [\"/a=5\", \"/b=6\"]",
        ] {
            let expected = ["--limit-for=/a=5", "--limit-for=/b=6"].map(str::to_owned);
            assert_eq!(arguments(text), Ok(expected.to_vec()), "{text}");
        }
        assert_eq!(arguments("limit = 5"), Ok(vec!["--limit=5".to_owned()]));
    }

    #[test]
    fn tables_with_other_keys_are_refused() {
        for (text, sentence) in [
            ("[[limit]]\npath = \"/a\"", "`[[limit]]` needs the key `seconds`"),
            ("[[limit]]\nseconds = 5", "`[[limit]]` needs the key `path`"),
            ("[[limit]]\nurl = \"/a\"\nseconds = 5", "unknown key `url` in `[[limit]]`"),
            ("[[limit]]\npath = true\nseconds = 5", "the value of `path` must be text"),
            ("[[workers]]\ncount = 4", "`workers` takes values"),
            ("[set]\n\"A=B\" = 1", "`A=B` cannot be a name"),
            ("[set]\n\"\" = 1", "`` cannot be a name"),
            ("[set]\n\"A\\u0000\" = 1", "`A\\0` cannot be a name"),
            ("[[set]]\nname = \"A=B\"\nvalue = 1", "`A=B` cannot be a name"),
        ] {
            let refused = arguments(text).unwrap_err();
            assert!(refused.contains(sentence), "{text}: {refused}");
        }
    }
}
