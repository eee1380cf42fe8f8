//! The words of the command line. Help, man page and completions are made from these structures
//! alone.

pub(crate) mod effects;

use std::{
    env,
    ffi::OsString,
    io::{
        Write as _, {self},
    },
    path::Path,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use clap_mangen::Man;
use diagnostics::{
    error_log,
    error_page::Status,
    message::{Code, LogMessage},
};

use crate::{
    call,
    cgi::{
        Invocation, {self},
    },
    check,
    config::{options::Options, settings::application},
    exit::{Complaint, Exit},
    pool,
};

const EXAMPLES: &str = "\
A WSGI file with the first line `#!/usr/local/bin/wsgate` is a CGI script: copy it into cgi-bin, \
make it executable.
The same file answers from a shell:

  wsgate call hello.wsgi /path?query       one request, the body to standard output
  wsgate check hello.wsgi                  what is found, and what is wrong

APP is path/to/file.wsgi[:callable], package.module[:callable], or either with :factory().
Exit codes: 0 done, 1 the thing asked for failed, 2 usage, 70 a bug of ours, 78 settings, \
130 interrupted (Ctrl-C).";

/// Run Python WSGI applications behind CGI, and one request from the shell
#[derive(Debug, Parser)]
#[command(
    name = "wsgate",
    version,
    after_help = EXAMPLES,
    override_usage = "wsgate [OPTIONS] SCRIPT [TARGET]\n       wsgate <COMMAND>",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one CGI request from the environment and standard input
    Cgi(Cgi),
    /// Serve a pool of FastCGI workers
    Fastcgi(pool::args::Fastcgi),
    /// Show how pools are
    Status(pool::commands::Status),
    /// Make a pool change to new code
    Reload(pool::commands::Told),
    /// End a pool
    Stop(pool::commands::Told),
    /// Make one request from the shell
    Call(call::args::Call),
    /// Load an application, say what is found and what is wrong
    Check(check::args::Check),
    /// Serve a warm pool, as a request starts it
    #[command(hide = true)]
    WarmPool(pool::warm_pool::Words),
    /// Print the man page
    #[command(hide = true)]
    Man,
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "A `#!` line may also have --header-timeout S, --socket-timeout S, \
    --worker-connections N, --reload-on PATH, --reload and --slow S, as `wsgate fastcgi --help` \
    describes them.")]
struct Cgi {
    #[command(flatten)]
    options: Options,

    /// The application
    #[arg(value_name = "APP")]
    app: String,
}

/// Runs what the arguments and the environment ask for.
pub(crate) fn run() -> Exit {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if pool::stdin_listens() {
        return serve_standard_input(arguments);
    }
    if cgi::is_invocation() {
        return match cgi::enter(&arguments) {
            Invocation::Served(exit) => exit,
            Invocation::Arguments => match parse(arguments, "cgi") {
                Ok(words) => dispatch(words.command),
                Err(error) => cgi::refuse(
                    Status::InternalServerError,
                    &LogMessage::error(
                        Code::BadSetting,
                        "the arguments that wsgate was started with are wrong",
                    )
                    .detail(error.render().to_string())
                    .hint(
                        "correct the program that starts it; `wsgate cgi --help` lists the options",
                    ),
                ),
            },
        };
    }
    match parse(of_script_or_words(arguments), "call") {
        Ok(words) => dispatch(words.command),
        Err(error) => {
            // Help goes to standard output, complaints to standard error; if that is closed there
            // is nobody to tell.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

/// Serves the listening socket that a process manager has put on standard input (FastCGI 1.0, 2.2).
fn serve_standard_input(arguments: Vec<OsString>) -> Exit {
    if let Some(script) = cgi::executed_script() {
        return ended(cgi::script_and_base(&script).map_err(Complaint::settings).and_then(
            |(app, options, base)| Err(pool::serve_standard_input(app, &options, &base)),
        ));
    }
    match parse(arguments, "fastcgi") {
        Ok(words) => dispatch(words.command),
        Err(error) => {
            // If standard error is closed there is nobody to tell.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    }
}

/// Words without a command are those of `default`: `wsgate [OPTIONS] SCRIPT`.
fn parse(arguments: Vec<OsString>, default: &'static str) -> Result<Words, clap::Error> {
    let first = arguments.first().and_then(|first| first.to_str());
    let has_command = first.is_none_or(|first| {
        matches!(first, "-h" | "--help" | "-V" | "--version") || Command::has_subcommand(first)
    });
    if has_command {
        return all(std::iter::once(OsString::from("wsgate")).chain(arguments));
    }
    // Every request begins so: the words of all the other commands are not even made for it.
    let command = match default {
        "cgi" => one(default, &arguments).map(Command::Cgi),
        "fastcgi" => one(default, &arguments).map(Command::Fastcgi),
        _ => one(default, &arguments).map(Command::Call),
    };
    match command {
        Err(error) if !error.use_stderr() => {
            // Help is to be the same, however it is asked for.
            all(["wsgate", default].map(OsString::from).into_iter().chain(arguments))
        }
        command => command.map(|command| Words { command }),
    }
}

/// The program with all its commands; the help of each has the options that have an effect there.
fn program() -> clap::Command {
    Words::command().mut_subcommands(|known| {
        let name = known.get_name().to_owned();
        effects::taking_negatives(effects::hide(&name, known))
    })
}

/// Reads the words of whichever command they begin with.
fn all(words: impl Iterator<Item = OsString>) -> Result<Words, clap::Error> {
    let mut known = program();
    let found = known.try_get_matches_from_mut(words)?;
    if let Some((name, found)) = found.subcommand()
        && let Some(known) = known.find_subcommand_mut(name)
        && let Some(refused) = effects::refused(name, known, found)
    {
        return Err(known.error(ErrorKind::ArgumentConflict, refused));
    }
    Words::from_arg_matches(&found)
}

/// Reads the words of one command alone.
fn one<T: Args>(name: &'static str, arguments: &[OsString]) -> Result<T, clap::Error> {
    let known = clap::Command::new(name).bin_name(format!("wsgate {name}")).no_binary_name(true);
    let mut known = effects::taking_negatives(T::augment_args(known));
    let found =
        known.try_get_matches_from_mut(arguments).map_err(|error| error.format(&mut known))?;
    match effects::refused(name, &known, &found) {
        Some(refused) => Err(known.error(ErrorKind::ArgumentConflict, refused)),
        None => T::from_arg_matches(&found).map_err(|error| error.format(&mut known)),
    }
}

/// The arguments; in a script that a shell started by its `#!` line, those behind the script. The
/// options on that line are read from the file, as for a request.
fn of_script_or_words(arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(script) = cgi::executed_script() else {
        return arguments;
    };
    let Some(position) = arguments.iter().position(|argument| Path::new(argument) == script) else {
        return arguments;
    };
    std::iter::once(OsString::from("call")).chain(arguments.into_iter().skip(position)).collect()
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Cgi(Cgi { options, app }) => match application(&app) {
            Ok((app, base)) => cgi::serve(app, &options, &base),
            Err(entry) => cgi::refuse(Status::InternalServerError, &entry),
        },
        Command::Fastcgi(words) => ended(pool::run(&words)),
        Command::WarmPool(words) => ended(pool::warm_pool::run(&words)),
        Command::Status(words) => ended(pool::commands::status(&words)),
        Command::Reload(words) => ended(pool::commands::reload(&words)),
        Command::Stop(words) => ended(pool::commands::stop(&words)),
        Command::Call(words) => ended(call::run(&words)),
        Command::Check(words) => ended(check::run(&words)),
        Command::Man => print(man_page),
        Command::Completions { shell } => print(|| {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program(), "wsgate", &mut script);
            Ok(script)
        }),
    }
}

/// How a command ended, with its complaint told to standard error, where messages go.
fn ended(result: Result<Exit, Complaint>) -> Exit {
    result.unwrap_or_else(|complaint| {
        error_log::write(complaint.entry.for_client().as_bytes(), &"wsgate");
        complaint.exit
    })
}

/// One page for the program and all its commands.
fn man_page() -> io::Result<Vec<u8>> {
    let command = program();
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for known in command.get_subcommands().filter(|known| !known.is_hide_set()) {
        let about = known.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, ".SH \"wsgate {}\"\n{about}", known.get_name())?;
        let mut options = Vec::new();
        Man::new(known.clone()).render_options_section(&mut options)?;
        // A part of this command's section, not a section of its own.
        text.extend_from_slice(
            String::from_utf8_lossy(&options).replace(".SH OPTIONS\n", "").as_bytes(),
        );
    }
    page.render_extra_section(&mut text)?;
    page.render_version_section(&mut text)?;
    Ok(text)
}

fn print(make: impl FnOnce() -> io::Result<Vec<u8>>) -> Exit {
    match make().and_then(|text| io::stdout().lock().write_all(&text)) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => ended(Err(Complaint::failed(
            LogMessage::error(
                Code::NotWritten,
                format!("standard output cannot be written: {error}"),
            )
            .hint("look at what it is connected to"),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_option_is_said_where_it_has_an_effect() {
        for known in Words::command().get_subcommands().filter(|known| !known.is_hide_set()) {
            if !["cgi", "fastcgi", "call", "check"].contains(&known.get_name()) {
                continue;
            }
            for option in known.get_arguments().filter_map(clap::Arg::get_long) {
                let is_ours = !["help", "version"].contains(&option);
                assert!(!is_ours || effects::is_known(option), "{} --{option}", known.get_name());
            }
        }
    }
}
