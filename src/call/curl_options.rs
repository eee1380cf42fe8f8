//! Options of curl that a copied command may have, and that mean nothing here.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Id};

use crate::config::options::{Context, contexts::ActsIn};

/// Why options about the connection are ignored.
const NO_NETWORK: &str = "the request needs no network";

/// Name, short name, and the reason why the option is ignored; without a reason, wsgate does what
/// the option asks for.
const IGNORED: [(&str, Option<char>, Option<&str>); 9] = [
    ("insecure", Some('k'), Some("there is no TLS connection, and no certificate")),
    ("http1.0", None, Some(NO_NETWORK)),
    ("http1.1", None, Some(NO_NETWORK)),
    ("http2", None, Some(NO_NETWORK)),
    ("http3", None, Some(NO_NETWORK)),
    ("path-as-is", None, None),
    ("globoff", Some('g'), None),
    ("no-buffer", Some('N'), None),
    ("show-error", Some('S'), None),
];

/// The options of curl that were given and are ignored, each with its reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoredOptions(pub(super) Vec<(&'static str, &'static str)>);

impl FromArgMatches for IgnoredOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = IGNORED.into_iter().filter(|(name, ..)| matches.get_flag(name));
        Ok(Self(given.filter_map(|(name, _, reason)| Some((name, reason?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for IgnoredOptions {
    fn augment_args(command: Command) -> Command {
        IGNORED.into_iter().fold(command, |command, (name, short, _)| {
            let arg = Arg::new(name).long(name).action(ArgAction::SetTrue).hide(true);
            let arg = arg.help("Ignore an option of curl").help_heading("Request");
            command.arg(match short {
                Some(short) => arg.short(short),
                None => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }

    fn group_id() -> Option<Id> {
        None
    }
}

impl ActsIn for IgnoredOptions {
    const CONTEXTS: &'static [Context] = &[Context::Call, Context::Via];
}
