//! The commands of wsgate. Help, man pages and completions are made from these structures alone.

use clap::{Arg, ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    call, check,
    cli::man_terms::EXIT_STATUS,
    config::options::{
        AppOptions, DebugOption, ForkOptions, LoggingOptions, ModeOption, OptionGroup,
        PathTimeoutOption, RequestOptions, ResponseTimeoutOption, ScriptOptions, SendfileOption,
        TrustOptions, WarmOptions, WorkerLimits, contexts::accept_negative_numbers,
    },
    init, pool,
};

const EXAMPLES: &str = "\
A WSGI file with the first line `#!/usr/local/bin/wsgate` is a CGI script: copy it into cgi-bin \
and make it executable.
The same file answers from a shell:

  wsgate call hello.wsgi /path?query       send one request, print the response body
  wsgate check hello.wsgi                  report what was found and what is wrong
  wsgate init ~/public_html                write the files of a new site

APP is path/to/file.wsgi[:callable], package.module[:callable], either with :factory(arguments), \
or path/to/file.ini[#name].
`wsgate help COMMAND` explains a command and its options.

Exit codes:";

/// Run Python WSGI applications behind CGI and FastCGI
#[derive(Debug, Parser)]
#[command(
    name = "wsgate",
    version,
    override_usage = "wsgate [OPTIONS] SCRIPT [TARGET]\n       wsgate <COMMAND>",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Answer one CGI request from the environment and standard input
    Cgi(CgiArgs),
    /// Serve a pool of FastCGI workers
    Fastcgi(Box<pool::args::FastcgiArgs>),
    /// Serve an application to a browser, for development
    Serve(Box<pool::serve_args::ServeArgs>),
    /// Show the status of running pools
    Status(pool::args::StatusArgs),
    /// Reload the code of a pool
    Reload(pool::args::ReloadArgs),
    /// Stop a pool
    Stop(pool::args::PoolName),
    /// Show the Python stacks of a pool's processes, which go on running
    Stacks(pool::stacks_command::StacksArgs),
    /// Show the workers of pools, and what they are doing, until `q` is pressed
    Top(pool::top::TopArgs),
    /// Show all pools to browsers and Prometheus
    Monitor(pool::monitor_args::MonitorArgs),
    /// Send one request from the shell
    Call(Box<call::args::CallArgs>),
    /// Load an application, and report what was found and what is wrong
    Check(check::args::CheckArgs),
    /// Write the files of a new site on a shared host
    Init(init::args::InitArgs),
    /// Serve a warm pool, which a CGI request starts
    #[command(hide = true)]
    WarmPool(Box<pool::warm_pool::WarmPoolArgs>),
    /// Print a man page
    #[command(hide = true)]
    Man {
        /// Command that the page is about [default: wsgate itself]
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Print completions for a shell
    #[command(hide = true)]
    Completions {
        /// Shell that reads the completions
        shell: Shell,
    },
}

/// The arguments of `wsgate cgi`.
#[derive(Args, Debug)]
#[command(
    after_help = "A `#!` line may also have the options --header-timeout, --socket-timeout, \
    --worker-connections, --reload-on, --reload and --slow of `wsgate fastcgi`."
)]
pub(super) struct CgiArgs {
    /// Application that answers the request: FILE, MODULE, or one of them with :CALLABLE
    #[arg(value_name = "APP")]
    pub(super) app: String,

    #[command(flatten)]
    mode: ModeOption,

    #[command(flatten)]
    warm: WarmOptions,

    #[command(flatten)]
    forks: ForkOptions,

    #[command(flatten)]
    limits: WorkerLimits,

    #[command(flatten)]
    request: RequestOptions,

    #[command(flatten)]
    path_timeouts: PathTimeoutOption,

    #[command(flatten)]
    trust: TrustOptions,

    #[command(flatten)]
    sendfile: SendfileOption,

    #[command(flatten)]
    response: ResponseTimeoutOption,

    #[command(flatten)]
    error_pages: DebugOption,

    #[command(flatten)]
    logging: LoggingOptions,

    #[command(flatten)]
    app_options: AppOptions,
}

impl CgiArgs {
    /// The options that a `#!` line may have, too.
    pub(super) fn script_options(&self) -> ScriptOptions {
        ScriptOptions {
            app: self.app_options.clone(),
            request: self.request.clone(),
            path_timeouts: self.path_timeouts.clone(),
            trust: self.trust.clone(),
            sendfile: self.sendfile.clone(),
            response: self.response,
            error_pages: self.error_pages,
            logging: self.logging.clone(),
            mode: self.mode,
            warm: self.warm.clone(),
            forks: self.forks.clone(),
            limits: self.limits,
            ..ScriptOptions::default()
        }
    }
}

/// All groups of options that act only in some contexts.
pub(super) fn option_groups() -> Vec<OptionGroup> {
    let mut groups = ScriptOptions::groups().to_vec();
    groups.extend(pool::args::groups());
    groups.extend(pool::serve_args::groups());
    groups.extend(call::args::groups());
    groups.extend(check::args::groups());
    groups
}

/// The program with all its commands.
pub(super) fn program() -> clap::Command {
    let codes = EXIT_STATUS.iter().map(|(code, meaning)| format!("\n  {code:<4} {meaning}"));
    let text = std::iter::once(EXAMPLES.to_owned()).chain(codes).collect::<String>();
    with_help(CommandLine::command()).after_help(text).mut_subcommands(prepared)
}

/// `command` as it parses arguments and shows its help.
pub(super) fn prepared(command: clap::Command) -> clap::Command {
    // Options with own words move to the end: the option `--help` comes after them.
    accept_negative_numbers(with_help(in_own_words(command)))
}

/// `command` with the help of options that mean something else in it than in other commands.
fn in_own_words(command: clap::Command) -> clap::Command {
    let command = match command.get_name() {
        "call" => call::args::with_names_of_curl(command),
        _ => command,
    };
    let texts: &[(&str, &str, &str)] = match command.get_name() {
        "call" => &[
            (
                "timeout",
                "Stop the request after SECONDS; 0 sets no limit",
                "Without the option, the request has no limit, but loading the application is \
                 stopped after 30 seconds, and so is the wait for a silent server of --via.",
            ),
            (
                "script_name",
                "Send the request to an application below the URL path PATH, such as /app",
                "PATH becomes SCRIPT_NAME, and the path of TARGET becomes PATH_INFO.",
            ),
        ],
        "check" => &[
            (
                "timeout",
                "Stop the check after SECONDS; 0 sets no limit [default: 30]",
                "The time includes loading the application and its first request.",
            ),
            (
                "script_name",
                "Send the first request to the application below the URL path PATH, such as /app",
                "PATH becomes SCRIPT_NAME, as with this option in a pool or on a `#!` line.",
            ),
            (
                "mode",
                "Check whether the application can be served in MODE of CGI",
                "Without the option, wsgate checks the mode on the `#!` line of the script.",
            ),
            (
                "warm_up",
                "Send one GET request to PATH (or a full URL) after loading the application",
                "The report says whether the application can be forked after that request, as a \
                 pool with this option forks it.",
            ),
        ],
        _ => &[],
    };
    texts.iter().fold(command, |command, (option, help, more)| {
        command.mut_arg(option, |arg| arg.help(*help).long_help(format!("{help}\n\n{more}")))
    })
}

/// `command` with the option `--help`, which would otherwise come before its own options.
fn with_help(command: clap::Command) -> clap::Command {
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help("Print a summary of the options with -h, all details with --help")
        .help_heading("Help");
    let command = command.disable_help_flag(true).arg(help);
    if command.get_version().is_none() {
        return command;
    }
    let version = Arg::new("version")
        .short('V')
        .long("version")
        .action(ArgAction::Version)
        .help("Print the version")
        .help_heading("Help");
    command.disable_version_flag(true).arg(version)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    /// The verbs that help texts start with.
    const VERBS: [&str; 28] = [
        "Add", "Change", "Check", "Close", "Ignore", "Keep", "Let", "Limit", "Listen", "Load",
        "Log", "Name", "Print", "Read", "Reload", "Replace", "Return", "Run", "Send", "Serve",
        "Set", "Show", "Start", "Stop", "Trust", "Use", "Wait", "Write",
    ];

    #[test]
    fn every_option_has_a_heading_and_a_help_text_that_starts_with_a_verb() {
        let program = program();
        for command in program.get_subcommands().chain([&program]) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let name = format!("{} {}", command.get_name(), arg.get_id());
                assert!(arg.get_help_heading().is_some(), "{name} has no heading");
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                let verb = help.split(' ').next().unwrap_or_default();
                assert!(VERBS.contains(&verb), "{name}: {help}");
            }
        }
    }

    #[test]
    fn the_help_option_is_the_last_of_each_command() {
        for command in program().get_subcommands() {
            let last = command.get_arguments().last().unwrap();
            assert_eq!(last.get_help_heading(), Some("Help"), "{}", command.get_name());
        }
    }

    #[test]
    fn every_value_of_an_option_is_named_after_what_it_is() {
        for command in program().get_subcommands() {
            for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let names = arg.get_value_names().unwrap_or_default();
                let is_short = names.iter().any(|name| ["S", "N", "VALUE"].contains(&&**name));
                assert!(!names.is_empty() && !is_short, "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn each_refused_value_names_the_option_and_an_example() {
        let mut refused = 0;
        for command in program().get_subcommands().filter(|command| !command.is_hide_set()) {
            for option in command.get_arguments().filter_map(Arg::get_long) {
                for value in ["", "\u{7}", "-1", "x:", "9z", "/run/x.sock"] {
                    let arguments = [command.get_name().to_owned(), format!("--{option}={value}")];
                    let Err(error) = command.clone().try_get_matches_from(arguments) else {
                        continue;
                    };
                    if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
                    {
                        let text = error.to_string();
                        let shown = ["such as", "possible values", "is required for"];
                        assert!(shown.iter().any(|shown| text.contains(shown)), "{text}");
                        assert!(text.contains(&format!("--{option} <")), "{text}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 60, "{refused}");
    }

    #[test]
    fn each_option_of_a_command_that_runs_an_application_is_in_a_group_with_contexts() {
        let groups = option_groups();
        let program = program();
        for name in ["cgi", "fastcgi", "serve", "call", "check"] {
            let command = program.find_subcommand(name).unwrap();
            for option in command.get_arguments().filter_map(Arg::get_long) {
                let is_known = groups.iter().any(|group| group.has(option));
                assert!(is_known || option == "help", "{name} --{option}");
            }
        }
    }
}
