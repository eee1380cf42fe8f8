//! Looks up the script of a CGI invocation without trusting the arguments.
//!
//! A web server may build arguments from the query string (RFC 3875 4.4). A gateway that reads its
//! options or its script from arguments lets any client choose them, as in PHP's CVE-2012-1823. So
//! the script is the file that the kernel executed, or the file that the web server names in
//! SCRIPT_FILENAME. If that file is this program itself, all arguments are ignored.

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

use crate::{config::script_line::FirstLine, request::nonempty_variable};

/// The script of a CGI invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestedScript {
    /// The script at this path, started by its `#!` line, or by a web server that has wsgate as the
    /// interpreter of such files.
    Script(PathBuf),
    /// A script whose handler in the web server is this program. The environment describes the
    /// handler; `variables` describe the script.
    Handler { script: PathBuf, variables: Vec<(OsString, OsString)> },
    /// The script in the arguments, which a program of the administrator passes.
    InArguments,
    /// No script: the file is this program itself.
    Program,
    /// The web server does not name the script.
    Unknown,
}

impl RequestedScript {
    /// Looks up the script of this invocation.
    pub(super) fn find(arguments: &[OsString]) -> Self {
        if let Some(script) = executed_script() {
            return Self::Script(script);
        }
        match nonempty_variable("SCRIPT_FILENAME").map(PathBuf::from) {
            Some(script) if is_this_program(&script) => Self::by_handler(),
            Some(script) => match FirstLine::of(&script) {
                // `env` started wsgate, or a web server that has it as the interpreter of such
                // files: both pass the script as an argument.
                Ok(FirstLine::Wsgate(_) | FirstLine::NoProgram) if contains(arguments, &script) => {
                    Self::Script(script)
                }
                // An unreadable file is reported where it is opened.
                Err(_) if contains(arguments, &script) => Self::Script(script),
                _ if arguments.is_empty() => Self::Script(script),
                Ok(FirstLine::OtherProgram) => Self::InArguments,
                // Parts of a query string may follow trusted arguments.
                _ if is_indexed_query() => Self::Unknown,
                _ => Self::InArguments,
            },
            None if arguments.is_empty() || is_indexed_query() => Self::Unknown,
            None => Self::InArguments,
        }
    }

    /// The script for Apache's `Action`, in PATH_TRANSLATED. REDIRECT_STATUS and REDIRECT_HANDLER
    /// show that the configuration redirected the request; a client that requests this program by
    /// its URL cannot set them.
    fn by_handler() -> Self {
        let redirected = nonempty_variable("REDIRECT_STATUS").is_some_and(|status| status == "200");
        if !redirected || nonempty_variable("REDIRECT_HANDLER").is_none() {
            return Self::Program;
        }
        let (Some(translated), Some(info)) =
            (nonempty_variable("PATH_TRANSLATED"), nonempty_variable("PATH_INFO"))
        else {
            return Self::Program;
        };
        let translated = PathBuf::from(translated);
        let Some(script) = file_in(&translated) else {
            return Self::Script(translated);
        };
        // The part of PATH_TRANSLATED after the file is PATH_INFO.
        let rest = &translated.as_os_str().as_bytes()[script.as_os_str().len()..];
        let info = info.into_vec();
        let Some(script_name) = info.strip_suffix(rest) else {
            return Self::Script(script.to_owned());
        };
        let variables = [
            ("SCRIPT_NAME", OsStr::from_bytes(script_name)),
            ("PATH_INFO", OsStr::from_bytes(rest)),
            ("SCRIPT_FILENAME", script.as_os_str()),
            // The web server translated the extra path of the handler, which is the URL of the
            // script.
            ("PATH_TRANSLATED", OsStr::new("")),
        ];
        Self::Handler {
            script: script.to_owned(),
            variables: variables.map(|(name, value)| (name.into(), value.to_owned())).to_vec(),
        }
    }
}

/// The script whose `#!` line started this process. The kernel passes the executed path apart from
/// the arguments.
pub(crate) fn executed_script() -> Option<PathBuf> {
    let executed = PathBuf::from(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    (executed.is_file() && !is_this_program(&executed)).then_some(executed)
}

/// The file at `path`, or at the longest prefix of `path` that ends before a slash.
fn file_in(path: &Path) -> Option<&Path> {
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
fn contains(arguments: &[OsString], script: &Path) -> bool {
    arguments.iter().any(|argument| is_same_file(Path::new(argument), script))
}

/// Does a web server build arguments from this query string (RFC 3875 4.4)?
fn is_indexed_query() -> bool {
    nonempty_variable("QUERY_STRING").is_some_and(|query| !query.as_bytes().contains(&b'='))
}
