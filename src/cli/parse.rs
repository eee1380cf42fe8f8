//! Parses the arguments of the process.

use std::{ffi::OsString, path::Path};

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand as _, error::ErrorKind};
use diagnostics::message::{Code, LogMessage};

use crate::{
    cgi,
    cli::{
        commands::{Command, CommandLine, option_groups, prepared, program},
        config_file, misspelt,
    },
    config::options::{
        Context, Mode,
        contexts::{first_without_effect, known_elsewhere},
    },
    pool::args::FastcgiArgs,
    system::command_line::arguments,
};

/// The options of the program that are possible without a command.
const PROGRAM_OPTIONS: [&str; 2] = ["help", "version"];

/// Why arguments were refused.
pub(super) enum Refusal {
    /// The arguments are wrong, or ask for help.
    Arguments(clap::Error),
    /// A configuration file is wrong.
    ConfigFile(LogMessage),
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::Arguments(error)
    }
}

/// The arguments of this process, which is a pool, parsed again with the file that they name.
///
/// # Errors
/// The log message about the file, or about options in it that do not go together.
pub(super) fn fastcgi_again() -> Result<FastcgiArgs, LogMessage> {
    // The title of the pool has replaced the arguments that the standard library knows.
    match command(arguments().iter().skip(1).cloned().collect(), "fastcgi") {
        Ok(Command::Fastcgi(args)) => Ok(*args),
        Ok(_) => Err(LogMessage::new(Code::Internal, "the arguments are not those of a pool")),
        Err(Refusal::ConfigFile(message)) => Err(message),
        Err(Refusal::Arguments(error)) => {
            let sentence = "the options of the pool do not go together";
            Err(LogMessage::new(Code::BadSetting, sentence).detail(error.render().to_string()))
        }
    }
}

/// The command in `arguments`. Arguments that begin with no command are those of the command
/// `default`: `wsgate [OPTIONS] SCRIPT`.
pub(super) fn command(arguments: Vec<OsString>, default: &'static str) -> Result<Command, Refusal> {
    let first = arguments.first().and_then(|first| first.to_str());
    if first == Some("help") {
        return help(arguments.get(1));
    }
    let has_command = first.is_none_or(|first| {
        matches!(first, "-h" | "--help" | "-V" | "--version") || Command::has_subcommand(first)
    });
    if !has_command {
        if default == "call"
            && let Some(message) = misspelt::command(&arguments, program)
        {
            return Err(program().error(ErrorKind::InvalidSubcommand, message).into());
        }
        return match of_name(default, &arguments, &PROGRAM_OPTIONS)? {
            // A request for help without a command shows the help of the whole program.
            None => of_program(std::iter::once(default.into()).chain(arguments).collect()),
            Some(command) => Ok(command),
        };
    }
    let name = first.unwrap_or_default();
    match of_name(name, arguments.get(1..).unwrap_or_default(), &[])? {
        None => of_program(arguments),
        Some(command) => Ok(command),
    }
}

/// The command `name` with `arguments`; `None` for help, and for what only the whole program knows.
/// The options `also` are possible without a command.
///
/// Each CGI request with arguments comes here, and each pool keeps the memory that parsing took: so
/// only one command is built.
fn of_name(name: &str, arguments: &[OsString], also: &[&str]) -> Result<Option<Command>, Refusal> {
    let command = match name {
        "cgi" => of_command("cgi", arguments, also).map(Command::Cgi),
        "fastcgi" => {
            let arguments =
                config_file::completed(arguments.to_vec()).map_err(Refusal::ConfigFile)?;
            of_command("fastcgi", &arguments, also).map(Command::Fastcgi)
        }
        "status" => of_command("status", arguments, also).map(Command::Status),
        "reload" => of_command("reload", arguments, also).map(Command::Reload),
        "serve" => of_command("serve", arguments, also).map(Box::new).map(Command::Serve),
        "stop" => of_command("stop", arguments, also).map(Command::Stop),
        "stacks" => of_command("stacks", arguments, also).map(Command::Stacks),
        "top" => of_command("top", arguments, also).map(Command::Top),
        "monitor" => of_command("monitor", arguments, also).map(Command::Monitor),
        "call" => of_command("call", arguments, also).map(Command::Call),
        "check" => of_command("check", arguments, also).map(Command::Check),
        "init" => of_command("init", arguments, also).map(Command::Init),
        "warm-pool" => of_command("warm-pool", arguments, also).map(Command::WarmPool),
        _ => return Ok(None),
    };
    match command {
        Err(error) if !error.use_stderr() => Ok(None),
        command => Ok(Some(command?)),
    }
}

/// The help that `wsgate help` asks for; an unknown command is an error.
fn help(command: Option<&OsString>) -> Result<Command, Refusal> {
    let is_known = command.and_then(|name| name.to_str()).is_none_or(Command::has_subcommand);
    let help = is_known.then(|| OsString::from("--help"));
    of_program(command.cloned().into_iter().chain(help).collect())
}

/// `arguments`; those after the script, if a shell started the script by its `#!` line. The options
/// on that line are read from the script, as for a CGI request.
pub(super) fn without_script_line(arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(script) = cgi::executed_script() else {
        return arguments;
    };
    let Some(position) = arguments.iter().position(|argument| Path::new(argument) == script) else {
        return arguments;
    };
    std::iter::once(OsString::from("call")).chain(arguments.into_iter().skip(position)).collect()
}

/// The command that `arguments` begin with, in the whole program.
fn of_program(arguments: Vec<OsString>) -> Result<Command, Refusal> {
    let words = std::iter::once(OsString::from("wsgate")).chain(arguments);
    Ok(CommandLine::from_arg_matches(&program().try_get_matches_from(words)?)?.command)
}

/// The command `name` with `arguments`, without the other commands.
fn of_command<T: Args>(
    name: &'static str,
    arguments: &[OsString],
    also: &[&str],
) -> Result<T, clap::Error> {
    let command = clap::Command::new(name).bin_name(format!("wsgate {name}")).no_binary_name(true);
    let mut command = prepared(T::augment_args(command));
    let matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(|error| named(error.format(&mut command), name, &mut command, also))?;
    refuse_without_effect(name, &mut command, &matches)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// `error`, or that an unknown option has no effect here, if another command has the option. The
/// options `also` are possible without a command.
fn named(
    error: clap::Error,
    name: &str,
    command: &mut clap::Command,
    also: &[&str],
) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    match known_elsewhere(&error, &format!("in `wsgate {name}`"), command) {
        Some(error) => error,
        None => misspelt::with_tip(error, command, also),
    }
}

/// Refuses an option of the command `name` that has no effect in the context of `matches`.
fn refuse_without_effect(
    name: &str,
    command: &mut clap::Command,
    matches: &ArgMatches,
) -> Result<(), clap::Error> {
    let context = match name {
        "cgi" => matches.get_one("mode").copied().map(Mode::context),
        // The sockets decide later whether the pool has a supervisor.
        "fastcgi" => Some(Context::Pool),
        "serve" => Some(Context::Serve),
        "call" if matches.contains_id("via") => Some(Context::Via),
        "call" => Some(Context::Call),
        "check" => Some(Context::Check),
        _ => None,
    };
    let message = context
        .and_then(|context| first_without_effect(command, matches, &option_groups(), &[context]));
    message.map_or(Ok(()), |message| Err(command.error(ErrorKind::ArgumentConflict, message)))
}
