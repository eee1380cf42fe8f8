//! `--config FILE`: the arguments in a configuration file, and those of the command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _, parser::ValueSource};
use diagnostics::message::{Code, LogMessage};

use crate::{cli::commands::prepared, config::file::ConfigFile, pool::args::FastcgiArgs};

/// The arguments of `wsgate fastcgi`, completed by those of the file that `--config` names.
///
/// # Errors
/// The log message about the file.
pub(super) fn completed(arguments: Vec<OsString>) -> Result<Vec<OsString>, LogMessage> {
    // Most pools have no such file: nothing is parsed for it.
    if !arguments.iter().any(|word| word.as_encoded_bytes().starts_with(b"--config")) {
        return Ok(arguments);
    }
    let command = fastcgi();
    let Ok(given) = command.clone().ignore_errors(true).try_get_matches_from(&arguments) else {
        return Ok(arguments);
    };
    let Ok(Some(path)) = given.try_get_one::<PathBuf>("config") else { return Ok(arguments) };
    let file = ConfigFile::read(path, &command)?;
    let is_given = |id: &str| {
        given.try_contains_id(id).is_ok_and(|is_known| is_known)
            && given.value_source(id) == Some(ValueSource::CommandLine)
    };
    if !file.has_app() && !is_given("app") {
        return Err(no_app(&file));
    }
    let mut all = file.arguments(|id| is_overridden(&command, id, &is_given));
    all.extend(arguments);
    let refused = |arguments: &[OsString]| {
        let error = command.clone().try_get_matches_from(arguments).err();
        error.filter(clap::Error::use_stderr)
    };
    // An error that the file has without the command line, too, is one of the file.
    if refused(&all).is_some()
        && let Some(error) = refused(&file.arguments(|_| false))
    {
        return Err(file.refused(&error));
    }
    Ok(all)
}

/// The arguments of the pool whose configuration file is `path`.
///
/// # Errors
/// The log message about the file.
pub(super) fn pool(path: &Path) -> Result<FastcgiArgs, LogMessage> {
    let command = fastcgi();
    let file = ConfigFile::read(path, &command)?;
    if !file.has_app() {
        return Err(no_app(&file));
    }
    let parse = |arguments| -> Result<FastcgiArgs, clap::Error> {
        let matches: ArgMatches = command.try_get_matches_from(arguments)?;
        FastcgiArgs::from_arg_matches(&matches)
    };
    let mut config = OsString::from("--config=");
    config.push(file.path());
    let arguments = std::iter::once(config).chain(file.arguments(|_| false));
    parse(arguments.collect::<Vec<_>>()).map_err(|error| file.refused(&error))
}

/// Is the option `id` of the file replaced by an option of the command line?
fn is_overridden(command: &Command, id: &str, is_given: &impl Fn(&str) -> bool) -> bool {
    let conflicts = |arg| {
        let others = command.get_arg_conflicts_with(arg);
        others.iter().any(|other| is_given(other.get_id().as_str()))
    };
    // Variables of the command line come later in the list, and replace those of the same name.
    !matches!(id, "env" | "env_file") && is_given(id)
        || command.get_arguments().find(|arg| arg.get_id() == id).is_some_and(conflicts)
        || command
            .get_arguments()
            .filter(|arg| is_given(arg.get_id().as_str()))
            .any(|arg| command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id() == id))
}

fn fastcgi() -> Command {
    let command = Command::new("fastcgi").bin_name("wsgate fastcgi").no_binary_name(true);
    prepared(FastcgiArgs::augment_args(command))
}

fn no_app(file: &ConfigFile) -> LogMessage {
    LogMessage::new(Code::BadSetting, format!("`{}` names no application", file.path().display()))
        .hint("add a line such as `app = \"/srv/site/app.wsgi\"`")
}
