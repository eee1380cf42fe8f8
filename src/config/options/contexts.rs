//! The contexts in which an application runs, and which options act in them. An option that does
//! not act where it was given is a usage error.

use std::sync::OnceLock;

use clap::{
    ArgGroup, ArgMatches, Args, Command, Error, Id,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

/// A context in which an application runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Context {
    /// A CGI request with `--mode cold`.
    Cold,
    /// A CGI request with `--mode warm`.
    Warm,
    /// A CGI request with `--mode resident`.
    Resident,
    /// A FastCGI pool with a supervisor.
    Pool,
    /// The only worker of a listening socket on standard input, which has no supervisor.
    LoneWorker,
    /// `wsgate serve`.
    Serve,
    /// `wsgate call`.
    Call,
    /// `wsgate call --via`.
    Via,
    /// `wsgate check`.
    Check,
    /// `wsgate init`.
    Init,
}

impl Context {
    const CGI: [Self; 3] = [Self::Cold, Self::Warm, Self::Resident];

    fn name(self) -> &'static str {
        match self {
            Self::Cold => "CGI with --mode cold",
            Self::Warm => "CGI with --mode warm",
            Self::Resident => "CGI with --mode resident",
            Self::Pool => "`wsgate fastcgi`",
            Self::LoneWorker => "a worker on standard input without a supervisor",
            Self::Serve => "`wsgate serve`",
            Self::Call => "`wsgate call`",
            Self::Via => "`wsgate call --via`",
            Self::Check => "`wsgate check`",
            Self::Init => "`wsgate init`",
        }
    }
}

/// A struct of options that all act in the same contexts.
pub(crate) trait ActsIn: Args {
    /// The contexts in which the options of this struct act.
    const CONTEXTS: &'static [Context];
}

/// The options of a struct and their contexts, at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionGroup {
    id: fn() -> Option<Id>,
    augment: fn(Command) -> Command,
    contexts: &'static [Context],
}

impl OptionGroup {
    /// The options of the struct `T`.
    pub(crate) fn of<T: ActsIn>() -> Self {
        Self { id: T::group_id, augment: T::augment_args, contexts: T::CONTEXTS }
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        (self.augment)(Command::new("")).get_arguments().any(|arg| arg.get_long() == Some(option))
    }
}

/// The message about the first option on the command line that acts in none of `contexts`; the
/// options of `command` are in `groups`.
pub(crate) fn first_without_effect(
    command: &Command,
    matches: &ArgMatches,
    groups: &[OptionGroup],
    contexts: &[Context],
) -> Option<String> {
    let is_set = |id: &Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let idle =
        groups.iter().filter(|group| !group.contexts.iter().any(|one| contexts.contains(one)));
    idle.filter_map(|group| {
        let id = (group.id)()?;
        let options = command.get_groups().find(|known| *known.get_id() == id)?;
        let set = options.get_args().find(|&id| is_set(id))?;
        let option = command.get_arguments().find(|arg| arg.get_id() == set)?.get_long()?;
        Some(no_effect(option, &format!("in {}", contexts.first()?.name()), group.contexts))
    })
    .next()
}

/// All groups of options of all commands, which only the command line knows.
static ALL_GROUPS: OnceLock<Vec<OptionGroup>> = OnceLock::new();

/// Sets the groups of options of all commands, in which [`known_elsewhere`] looks.
pub(crate) fn set_all_groups(groups: Vec<OptionGroup>) {
    // The groups are the same in each call.
    let _ = ALL_GROUPS.set(groups);
}

/// The error that an option has no effect `here`, if `error` is about an unknown option, and a
/// command has the option.
pub(crate) fn known_elsewhere(error: &Error, here: &str, command: &mut Command) -> Option<Error> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let option =
        argument.strip_prefix("--").filter(|_| error.kind() == ErrorKind::UnknownArgument)?;
    // The groups of this command do not have the option, and need not be built again.
    let own: Vec<&Id> = command.get_groups().map(ArgGroup::get_id).collect();
    let is_own = |group: &OptionGroup| (group.id)().is_some_and(|id| own.contains(&&id));
    let groups = ALL_GROUPS.get()?.iter().filter(|group| !is_own(group) && group.has(option));
    let contexts: Vec<Context> = groups.flat_map(|group| group.contexts).copied().collect();
    let message = (!contexts.is_empty()).then(|| no_effect(option, here, &contexts))?;
    Some(command.error(ErrorKind::ArgumentConflict, message))
}

/// The message about `option`, which acts in `contexts` and was given `here`.
fn no_effect(option: &str, here: &str, contexts: &[Context]) -> String {
    format!("--{option} has no effect {here}; it is for {}", names(contexts))
}

/// The message about `option`, which a worker without a supervisor does not use.
pub(crate) fn for_supervisors_only(option: &str) -> String {
    no_effect(option, &format!("in {}", Context::LoneWorker.name()), &[Context::Pool])
}

/// The names of `contexts`, those of CGI joined.
fn names(contexts: &[Context]) -> String {
    let modes = Context::CGI.iter().filter(|mode| contexts.contains(mode)).count();
    // A worker without a supervisor is one of `wsgate fastcgi`, too.
    let is_covered = |context: &Context| match context {
        Context::LoneWorker => contexts.contains(&Context::Pool),
        context => modes > 1 && Context::CGI.contains(context),
    };
    let each = contexts.iter().filter(|context| !is_covered(context));
    let mut names: Vec<&str> = each.map(|context| context.name()).collect();
    match modes {
        3 => names.insert(0, "CGI"),
        2 => names.insert(0, "CGI with --mode warm or resident"),
        _ => {}
    }
    names.join(", ")
}

/// `command`, with `-1` as a value of each option that takes one: the error is then about the
/// value, not about an unknown option `-1`.
pub(crate) fn accept_negative_numbers(command: Command) -> Command {
    command.mut_args(|arg| {
        let takes_value = arg.get_long().is_some() && arg.get_action().takes_values();
        if takes_value { arg.allow_negative_numbers(true) } else { arg }
    })
}
