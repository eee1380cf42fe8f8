//! Which script a CGI invocation is for, as far as that can be told without trusting the arguments.
//!
//! RFC 3875 4.4 lets a web server make arguments out of a query string. A gateway that reads its
//! options or its script from there lets anybody choose them (CVE-2012-1823 is PHP's). So the
//! script is what the kernel says it executed, or what the web server says in SCRIPT_FILENAME; and
//! when that is this program itself, no argument counts at all.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use crate::{config::script_line::Beginning, request::filled};

/// What a CGI invocation is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The script with this path, by its `#!` line or as the web server's interpreter for such
    /// files.
    Script(PathBuf),
    /// A script that the web server made this program the handler of; the variables then describe
    /// the handler, and these the script.
    Handler { script: PathBuf, variables: Vec<(OsString, OsString)> },
    /// A program of the deployer's started us, with arguments of his.
    Arguments,
    /// This program itself.
    Program,
    /// It cannot be told.
    Unknown,
}

impl Origin {
    /// Finds it.
    pub(super) fn find(arguments: &[OsString]) -> Self {
        if let Some(script) = executed_script() {
            return Self::Script(script);
        }
        match filled("SCRIPT_FILENAME").map(PathBuf::from) {
            Some(script) if is_this_program(&script) => Self::by_handler(),
            Some(script) => match Beginning::of(&script) {
                // `env` started us, or a web server whose interpreter for such files we are: both
                // name the script to us.
                Ok(Beginning::Ours(_) | Beginning::NoProgram) if names(arguments, &script) => {
                    Self::Script(script)
                }
                // A file that cannot be read is dealt with where it is opened.
                Err(_) if names(arguments, &script) => Self::Script(script),
                _ if arguments.is_empty() => Self::Script(script),
                Ok(Beginning::Anothers) => Self::Arguments,
                // Whoever wrote these arguments, a query may stand behind them.
                _ if is_indexed_query() => Self::Unknown,
                _ => Self::Arguments,
            },
            None if arguments.is_empty() || is_indexed_query() => Self::Unknown,
            None => Self::Arguments,
        }
    }

    /// Apache's `Action`: the file that was asked for is in PATH_TRANSLATED. REDIRECT_STATUS and
    /// REDIRECT_HANDLER say that the configuration brought the request here; a client that asks for
    /// the program by its own URL cannot set them.
    fn by_handler() -> Self {
        let redirected = filled("REDIRECT_STATUS").is_some_and(|status| status == "200");
        if !redirected || filled("REDIRECT_HANDLER").is_none() {
            return Self::Program;
        }
        let (Some(translated), Some(info)) = (filled("PATH_TRANSLATED"), filled("PATH_INFO"))
        else {
            return Self::Program;
        };
        let translated = PathBuf::from(translated);
        let Some(script) = file_on_the_way(&translated) else {
            return Self::Script(translated);
        };
        // What follows the file in the one follows the script's URL in the other.
        let rest = &translated.as_os_str().as_bytes()[script.as_os_str().len()..];
        let info = info.into_vec();
        let Some(script_name) = info.strip_suffix(rest) else {
            return Self::Script(script.to_owned());
        };
        let variables = [
            ("SCRIPT_NAME", OsStr::from_bytes(script_name)),
            ("PATH_INFO", OsStr::from_bytes(rest)),
            ("SCRIPT_FILENAME", script.as_os_str()),
            // It described the handler's extra path, which is the script's own URL.
            ("PATH_TRANSLATED", OsStr::new("")),
        ];
        Self::Handler {
            script: script.to_owned(),
            variables: variables.map(|(name, value)| (name.into(), value.to_owned())).to_vec(),
        }
    }
}

/// The script whose `#!` line started us: the kernel keeps the path that was executed apart from
/// the arguments.
pub(crate) fn executed_script() -> Option<PathBuf> {
    let executed = PathBuf::from(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    (executed.is_file() && !is_this_program(&executed)).then_some(executed)
}

/// The file that `path` leads to or passes through. A slash behind it is the beginning of the rest.
fn file_on_the_way(path: &Path) -> Option<&Path> {
    let bytes = path.as_os_str().as_bytes();
    let ends = (0..bytes.len()).rev().filter(|&end| bytes[end] == b'/');
    let mut paths = std::iter::once(bytes.len())
        .chain(ends)
        .map(|end| Path::new(OsStr::from_bytes(&bytes[..end])));
    paths.find(|path| path.is_file())
}

fn is_this_program(path: &Path) -> bool {
    env::current_exe().is_ok_and(|program| is_same_file(path, &program))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}

/// Is `script` among the arguments?
fn names(arguments: &[OsString], script: &Path) -> bool {
    arguments.iter().any(|argument| is_same_file(Path::new(argument), script))
}

/// Would a web server have made arguments out of this query (RFC 3875 4.4)?
fn is_indexed_query() -> bool {
    filled("QUERY_STRING").is_some_and(|query| !query.as_bytes().contains(&b'='))
}
