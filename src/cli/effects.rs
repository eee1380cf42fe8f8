//! Which options have an effect in which way of running an application. All others are refused
//! there, and not in the help.

use clap::{ArgMatches, Command, parser::ValueSource};

use crate::config::options::{Mode, Options};

/// A way of running an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A CGI request, in a mode.
    Cgi(Mode),
    /// A pool with a supervisor.
    Pool,
    /// The one worker of a listening standard input, which has no supervisor.
    LoneWorker,
    /// One request from the shell.
    Call,
    /// One request to a FastCGI server.
    Via,
    /// `wsgate check`.
    Check,
}

use Way::{Call, Cgi, Check, LoneWorker, Pool, Via};

const COLD: Way = Cgi(Mode::Cold);
const WARM: Way = Cgi(Mode::Warm);
const RESIDENT: Way = Cgi(Mode::Resident);

/// Wherever an application is run by us.
const RUN: &[Way] = &[COLD, WARM, RESIDENT, Pool, LoneWorker, Call, Check];
const FASTCGI: &[Way] = &[Pool, LoneWorker];
const REQUEST: &[Way] = &[Call, Via];

/// The ways in which each option has an effect, by its long name.
const EFFECTS: &[(&str, &[Way])] = &[
    ("venv", RUN),
    ("python", RUN),
    ("chdir", RUN),
    ("path", RUN),
    ("env", RUN),
    ("debug", &[COLD, WARM, RESIDENT, Pool, LoneWorker, Call]),
    ("timeout", &[COLD, WARM, RESIDENT, Pool, LoneWorker, Call, Via, Check]),
    ("script-name", &[COLD, WARM, RESIDENT, Pool, LoneWorker, Call, Via, Check]),
    // `check` says whether the application is fit for it.
    ("mode", &[COLD, WARM, RESIDENT, Check]),
    ("warm-idle", &[WARM, RESIDENT]),
    ("warm-age", &[WARM, RESIDENT]),
    ("max-processes", &[WARM, RESIDENT]),
    ("queue", &[WARM, RESIDENT]),
    ("when-full", &[WARM, RESIDENT]),
    ("warm-up", &[WARM, RESIDENT, Pool, Check]),
    ("max-requests", &[RESIDENT, Pool, LoneWorker]),
    ("max-age", &[RESIDENT, Pool, LoneWorker]),
    ("max-rss", &[RESIDENT, Pool, LoneWorker]),
    ("header-timeout", FASTCGI),
    ("socket-timeout", FASTCGI),
    ("worker-connections", FASTCGI),
    ("listen", FASTCGI),
    ("name", &[Pool]),
    ("socket-mode", &[Pool]),
    ("socket-owner", &[Pool]),
    ("user", &[Pool, LoneWorker, Check]),
    ("group", FASTCGI),
    ("workers", FASTCGI),
    ("max", &[Pool]),
    ("min", &[Pool]),
    ("idle", &[Pool]),
    ("threads", FASTCGI),
    ("preload", &[Pool]),
    // On a `#!` line, of a lone worker too.
    ("reload", FASTCGI),
    ("reload-on", FASTCGI),
    ("slow", FASTCGI),
    ("drain", FASTCGI),
    ("access-log", FASTCGI),
    ("access-format", FASTCGI),
    ("error-log", FASTCGI),
    ("errors-to-server", FASTCGI),
    ("via", &[Via]),
    ("script-filename", &[Via]),
    ("request", REQUEST),
    ("header", REQUEST),
    ("data", REQUEST),
    ("include", REQUEST),
    ("verbose", REQUEST),
    ("https", REQUEST),
    ("host", REQUEST),
    ("auth", REQUEST),
    ("remote-user", REQUEST),
];

impl Way {
    /// In the words of the command line.
    fn name(self) -> &'static str {
        match self {
            Cgi(Mode::Cold) => "CGI with --mode cold",
            Cgi(Mode::Warm) => "CGI with --mode warm",
            Cgi(Mode::Resident) => "CGI with --mode resident",
            Pool => "`wsgate fastcgi`",
            LoneWorker => "a worker on standard input without a supervisor",
            Call => "`wsgate call`",
            Via => "`wsgate call --via`",
            Check => "`wsgate check`",
        }
    }

    /// All ways of a subcommand.
    fn all_of(subcommand: &str) -> &'static [Self] {
        match subcommand {
            "cgi" => &[COLD, WARM, RESIDENT],
            "fastcgi" => FASTCGI,
            "call" => REQUEST,
            "check" => &[Check],
            _ => &[],
        }
    }

    /// The one that the words of a subcommand ask for. Whether a worker has a supervisor shows
    /// later.
    fn of(subcommand: &str, found: &ArgMatches) -> Option<Self> {
        Some(match subcommand {
            "cgi" => Cgi(*found.get_one("mode")?),
            "fastcgi" => Pool,
            "call" if found.contains_id("via") => Via,
            "call" => Call,
            "check" => Check,
            _ => return None,
        })
    }
}

/// Says that `option` has no effect in `ways`, all of which are possible, if that is so.
pub(crate) fn refusal(option: &str, ways: &[Way]) -> Option<String> {
    let (_, effective) = EFFECTS.iter().find(|(known, _)| *known == option)?;
    if ways.iter().any(|way| effective.contains(way)) {
        return None;
    }
    Some(format!(
        "--{option} has no effect in {}; it is for {}",
        ways.first()?.name(),
        names(effective)
    ))
}

/// Ways in the words of the command line.
fn names(ways: &[Way]) -> String {
    let modes = ways.iter().filter(|way| matches!(way, Cgi(_))).count();
    let has_pool = ways.contains(&Pool);
    // A worker without a supervisor is one of `wsgate fastcgi`, too.
    let is_covered = |way| way == LoneWorker && has_pool || matches!(way, Cgi(_)) && modes > 1;
    let each = ways.iter().filter(|&&way| !is_covered(way));
    let mut names: Vec<&str> = each.map(|way| way.name()).collect();
    match modes {
        3 => names.insert(0, "CGI"),
        2 => names.insert(0, "CGI with --mode warm or resident"),
        _ => {}
    }
    names.join(", ")
}

/// What is wrong with the options that were given to `subcommand`: one of them has no effect.
pub(crate) fn refused(subcommand: &str, command: &Command, found: &ArgMatches) -> Option<String> {
    let way = Way::of(subcommand, found)?;
    given(command, found).find_map(|option| refusal(option, &[way]))
}

/// The same for the options of a `#!` line, which serves CGI in its mode and FastCGI.
pub(crate) fn refused_on_line(
    command: &Command,
    found: &ArgMatches,
    options: &Options,
) -> Option<String> {
    given(command, found).find_map(|option| refusal(option, &[Cgi(options.mode), Pool, LoneWorker]))
}

/// Long names of the options that were given.
fn given<'a>(command: &'a Command, found: &'a ArgMatches) -> impl Iterator<Item = &'a str> {
    let is_given = |id: &str| found.value_source(id) == Some(ValueSource::CommandLine);
    command
        .get_arguments()
        .filter(move |known| is_given(known.get_id().as_str()))
        .filter_map(|known| known.get_long())
}

/// `command` without the options that have no effect in any way of `subcommand`, in its help.
pub(crate) fn hide(subcommand: &str, command: Command) -> Command {
    let ways = Way::all_of(subcommand);
    command.mut_args(|known| {
        let is_idle = known
            .get_long()
            .is_some_and(|option| !ways.is_empty() && refusal(option, ways).is_some());
        if is_idle { known.hide(true) } else { known }
    })
}

/// `command`, whose options take `-1` for a value: the message is then about the value, not about
/// an option `-1`.
pub(crate) fn taking_negatives(command: Command) -> Command {
    command.mut_args(|known| {
        let is_option = known.get_long().is_some() && known.get_action().takes_values();
        if is_option { known.allow_negative_numbers(true) } else { known }
    })
}

/// Is it said of `option` where it has an effect?
#[cfg(test)]
pub(crate) fn is_known(option: &str) -> bool {
    EFFECTS.iter().any(|(known, _)| *known == option)
}
