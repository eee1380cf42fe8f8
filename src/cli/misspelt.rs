//! Misspelt commands and options: the nearest one that exists.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::{
    Command,
    error::{ContextKind, ContextValue},
};

use crate::config::options::nearest::nearest;

/// The message about `arguments`, which begin with no command and are for `program`, if their
/// first is a misspelt command. A file is never taken for a command.
pub(super) fn command(arguments: &[OsString], program: fn() -> Command) -> Option<String> {
    let name = arguments.first()?.to_str()?;
    let is_plain = |c: char| c.is_ascii_alphabetic() || c == '-' || c == '_';
    let has_target = arguments.get(1).is_some_and(|second| is_target(second));
    let is_app = Path::new(name).exists() || Path::new(&format!("{name}.py")).exists();
    if name.starts_with('-') || !name.chars().all(is_plain) || has_target || is_app {
        return None;
    }
    if name == "version" {
        return Some("`version` is not a command; use `wsgate --version`".to_owned());
    }
    let program = program();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    let Some(nearest) = nearest(name, commands.map(Command::get_name).chain(["help"])) else {
        let has_file = arguments.get(1).is_some_and(|second| Path::new(second).is_file());
        return has_file.then(|| {
            format!("`{name}` is neither a command nor a file: `wsgate --help` lists the commands")
        });
    };
    let is_module = !name.contains('-');
    let module = if is_module { "; a module is called by `wsgate call MODULE`" } else { "" };
    Some(format!(
        "`{name}` is neither a command nor a file: use `wsgate {nearest}`, if you mean that{module}"
    ))
}

/// Is `argument` an option, or the target of a request?
fn is_target(argument: &OsStr) -> bool {
    let text = argument.to_string_lossy();
    text.starts_with(['/', '-']) || text.contains("://")
}

/// `error` about an unknown option, with the nearest option of `command` or of `also` as its tip.
pub(super) fn with_tip(mut error: clap::Error, command: &Command, also: &[&str]) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let Some(name) = argument.strip_prefix("--") else { return error };
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    let options = shown.filter_map(clap::Arg::get_long).chain(also.iter().copied());
    let tip = nearest(name, options).map(|option| format!("--{option}"));
    error.remove(ContextKind::SuggestedArg);
    if let Some(tip) = tip {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(tip));
    }
    error
}
