//! What the kernel allows the processes of a pool: limits of resources, umask, priority and groups.

use std::{fmt, io, str::FromStr};

use clap::{ArgAction, Args};
use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::Mode,
    process::{
        Resource, Rlimit, Signal, getppid, getpriority_process, set_parent_process_death_signal,
        setpriority_process, setrlimit, umask,
    },
};

use crate::{
    config::options::{Context, contexts::ActsIn, count, size},
    pool::socket_access::FileMode,
};

/// Names of the limits that `--rlimit` can set.
const RESOURCES: [(&str, Resource); 9] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("memlock", Resource::Memlock),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("stack", Resource::Stack),
];

/// The lowest and the highest `--nice`.
const NICE_RANGE: std::ops::RangeInclusive<i32> = -20..=19;

/// The value `text` of `--nice`.
fn niceness(text: &str) -> Result<i32, String> {
    let value = text.parse().ok().filter(|value| NICE_RANGE.contains(value));
    let (least, most) = (NICE_RANGE.start(), NICE_RANGE.end());
    value.ok_or_else(|| format!("give a whole number from {least} to {most}, such as `5`"))
}

/// The options about what the kernel allows the processes of a pool.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Process")]
pub(crate) struct ProcessOptions {
    /// Run the pool in GROUP, too, a name or number (repeatable)
    #[arg(
        long,
        value_name = "GROUP",
        requires = "user",
        action = ArgAction::Append
    )]
    pub(crate) supplementary_group: Vec<String>,

    /// Start python without the environment variables of the shell or service manager
    ///
    /// PATH, LANG, LANGUAGE, LC_*, TZ, TMPDIR, HOME, USER, LOGNAME, SHELL and MAIL stay, and
    /// variables of --env and --env-file are added.
    #[arg(long)]
    pub(crate) clear_env: bool,

    /// Set the umask of the pool's processes to MASK, in octal [default: the inherited umask]
    #[arg(long, value_name = "MASK")]
    umask: Option<FileMode>,

    /// Add NICENESS, from -20 (favoured) to 19, to the nice value of the pool's processes
    #[arg(long, value_name = "NICENESS", value_parser = niceness)]
    nice: Option<i32>,

    /// Limit a resource of each process of the pool, such as nofile=4096 or core=0 (repeatable)
    ///
    /// NAME is one of as, core, cpu, data, fsize, memlock, nofile, nproc and stack, as in
    /// setrlimit(2). VALUE is a number with or without a unit (K, M, G), `unlimited`, or
    /// SOFT:HARD.
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    rlimit: Vec<ResourceLimit>,

    /// Stop the pool when the process PID exits, which has started it
    ///
    /// For programs that start a pool for themselves, as `wsgate serve` does. The pool stops as on
    /// SIGTERM.
    #[arg(long, value_name = "PID", value_parser = count(1, i32::MAX.unsigned_abs()))]
    stop_with_parent: Option<u32>,
}

impl ActsIn for ProcessOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool, Context::LoneWorker];
}

impl ProcessOptions {
    /// Each option, and whether it has another value than in `other`.
    pub(super) fn changes(&self, other: &Self) -> [(&'static str, bool); 5] {
        [
            ("supplementary-group", self.supplementary_group != other.supplementary_group),
            ("umask", self.umask != other.umask),
            ("nice", self.nice != other.nice),
            ("rlimit", self.rlimit != other.rlimit),
            ("stop-with-parent", self.stop_with_parent != other.stop_with_parent),
        ]
    }

    /// Applies limits, umask and nice value to this process, whose children inherit them.
    ///
    /// # Errors
    /// The log message that names the option which the kernel refuses.
    pub(super) fn apply(&self) -> Result<(), LogMessage> {
        for limit in &self.rlimit {
            setrlimit(limit.resource, limit.limit)
                .map_err(|error| refused(&format!("--rlimit {limit}"), error.into()))?;
        }
        if let Some(more) = self.nice {
            getpriority_process(None)
                .and_then(|nice| setpriority_process(None, (nice + more).clamp(-20, 19)))
                .map_err(|error| refused(&format!("--nice {more}"), error.into()))?;
        }
        if let Some(FileMode(mask)) = self.umask {
            umask(Mode::from_raw_mode(mask));
        }
        Ok(())
    }

    /// Has the kernel stop this process when its parent exits, if that is wanted. The kernel drops
    /// this when the user changes, so the user has changed already.
    ///
    /// # Errors
    /// The log message, if the kernel refuses, or the parent has exited already.
    pub(super) fn tie_to_parent(&self) -> Result<(), LogMessage> {
        let Some(pid) = self.stop_with_parent else { return Ok(()) };
        let option = format!("--stop-with-parent {pid}");
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|error| refused(&option, error.into()))?;
        // The kernel sends no signal for a parent that exited before.
        let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if parent == Some(pid) {
            return Ok(());
        }
        let sentence = format!("{option}: the process has not started this pool, or has exited");
        Err(LogMessage::new(Code::BadSetting, sentence).hint("give the id of the parent process"))
    }
}

fn refused(option: &str, error: io::Error) -> LogMessage {
    LogMessage::new(Code::BadSetting, format!("{option} cannot be applied: {error}"))
        .hint("only root, or a process with that capability, may raise limits and priority")
}

/// A limit of `--rlimit`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct ResourceLimit {
    name: &'static str,
    resource: Resource,
    limit: Rlimit,
}

impl FromStr for ResourceLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not NAME=VALUE, such as nofile=4096"))?;
        let known = RESOURCES.iter().find(|(known, _)| *known == name);
        let (name, resource) = *known.ok_or_else(|| {
            let names = RESOURCES.map(|(name, _)| name).join(", ");
            format!("`{name}` is none of {names}")
        })?;
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        let limit = Rlimit { current: number(soft)?, maximum: number(hard)? };
        // `None` is unlimited.
        if limit.maximum.is_some_and(|hard| limit.current.is_none_or(|soft| soft > hard)) {
            return Err(format!("the soft limit of `{value}` is above the hard limit"));
        }
        Ok(Self { name, resource, limit })
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |number: Option<u64>| {
            number.map_or("unlimited".to_owned(), |number| number.to_string())
        };
        let (soft, hard) = (text(self.limit.current), text(self.limit.maximum));
        write!(f, "{}={soft}", self.name)?;
        if soft == hard { Ok(()) } else { write!(f, ":{hard}") }
    }
}

fn number(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" { Ok(None) } else { size(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_a_name_and_one_or_two_numbers() {
        for (text, soft, hard) in [
            ("nofile=4096", Some(4096), Some(4096)),
            ("as=1G", Some(1 << 30), Some(1 << 30)),
            ("core=0:unlimited", Some(0), None),
            ("core=unlimited", None, None),
        ] {
            let limit: ResourceLimit = text.parse().unwrap();
            assert_eq!((limit.limit.current, limit.limit.maximum), (soft, hard), "{text}");
        }
        for wrong in [
            "",
            "nofile",
            "files=1",
            "nofile=",
            "nofile=-1",
            "nofile=2:1",
            "as=1T",
            "core=unlimited:0",
        ] {
            assert!(wrong.parse::<ResourceLimit>().is_err(), "{wrong}");
        }
    }
}
