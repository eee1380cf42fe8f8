//! Finds the interpreter that runs the application.
//!
//! `--python`, `--venv`, the virtualenv that wsgate is installed in, the variable `VIRTUAL_ENV`, a
//! virtualenv named `.venv` or `venv` beside the script or above it, else `python3`. The
//! interpreter of a virtualenv is its `bin/python`. Links in that path are not resolved, because
//! Python finds the packages by the path.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::{Access, access},
    process::geteuid,
};
use wire::launch::Venv;

use crate::system::{closed_directory::first_closed, links, shell::quoted};

/// The names of virtualenvs that are found without a setting.
const VENV_NAMES: [&str; 2] = [".venv", "venv"];

/// Why the virtualenv of an option, or of the environment, was chosen.
const BY_OPTION: &str = "--venv";
const BY_VARIABLE: &str = "the variable VIRTUAL_ENV";

/// The search path if the web server sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why the virtualenv of [`own_venv`] was chosen.
const OWN_VENV: &str = "wsgate is installed in it";

/// Why a program of the search path was chosen.
const BY_PATH: &str = "the first python3 on PATH";
const BY_DEFAULT_PATH: &str = "the first python3 on the PATH of a web server";

/// An interpreter that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// The program.
    pub(crate) program: PathBuf,
    /// The virtualenv of the program.
    pub(crate) venv: Option<Venv>,
    /// Why this interpreter was chosen, for `wsgate check`.
    pub(crate) chosen_by: &'static str,
    /// A sentence about the first virtualenv beside the script or above it that is not used.
    pub(crate) skipped: Option<String>,
}

impl Interpreter {
    /// Does the choice depend on the environment variables of this process?
    pub(crate) fn is_by_variable(&self) -> bool {
        [BY_VARIABLE, BY_PATH].contains(&self.chosen_by)
    }
}

/// What an interpreter is searched by, if no option names one.
#[derive(Clone, Debug)]
pub(crate) struct InterpreterSearch {
    /// The virtualenv that wsgate is installed in.
    own_venv: Option<PathBuf>,
    /// The value of `VIRTUAL_ENV`.
    virtual_env: Option<OsString>,
    /// The value of `PATH`.
    path: Option<OsString>,
}

impl InterpreterSearch {
    /// The search of this program, with its environment variables.
    pub(crate) fn of_this_process() -> Self {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            own_venv: own_venv().map(Path::to_owned),
            virtual_env: variable("VIRTUAL_ENV"),
            path: variable("PATH"),
        }
    }

    /// This search by another wsgate, the file `program`.
    pub(crate) fn by_program(self, program: &Path) -> Self {
        Self { own_venv: venv_of_program(program), ..self }
    }

    /// This search without the virtualenv of a shell.
    pub(crate) fn without_virtual_env(self) -> Self {
        Self { virtual_env: None, ..self }
    }

    /// This search in a web server that sets no variables.
    pub(crate) fn without_variables(self) -> Self {
        Self { virtual_env: None, path: None, ..self }
    }

    /// The first program `name` on the search path.
    fn on_path(&self, name: &OsStr) -> Result<PathBuf, LogMessage> {
        let path = self.path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH));
        env::split_paths(path)
            // A relative directory would depend on the working directory of the web server.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|program| can_run(program).is_ok())
            .ok_or_else(|| {
                bad_python(
                    Path::new(name),
                    &format!("is in none of the directories `{}`", Path::new(path).display()),
                )
            })
    }
}

/// Finds the interpreter. `beside` are the directories of the script, or the working directory;
/// `owners` are the users who may change files there.
///
/// # Errors
/// The log message, if the chosen interpreter cannot be used.
pub(crate) fn find(
    python: Option<&Path>,
    venv: Option<&Path>,
    beside: &[PathBuf],
    owners: &[u32],
    search: &InterpreterSearch,
) -> Result<Interpreter, LogMessage> {
    if let Some(program) = python {
        let program = if program.components().count() == 1 {
            search.on_path(program.as_os_str())?
        } else {
            program.to_owned()
        };
        can_run(&program).map_err(|reason| bad_python(&program, &reason))?;
        let venv =
            program.parent().and_then(Path::parent).and_then(|directory| read_venv(directory).ok());
        return Ok(Interpreter { program, venv, chosen_by: "--python", skipped: None });
    }
    if let Some(directory) = venv {
        return of_venv(directory, BY_OPTION);
    }
    let own = search.own_venv.as_deref();
    if let Some(directory) = own.filter(|directory| !is_tool_venv(directory)) {
        return of_venv(directory, OWN_VENV);
    }
    if let Some(directory) = &search.virtual_env {
        return of_venv(Path::new(directory), BY_VARIABLE);
    }
    let mut skipped = None;
    for directory in beside.iter().flat_map(|directory| directory.ancestors()) {
        for name in VENV_NAMES {
            let candidate = directory.join(name);
            if fs::symlink_metadata(&candidate).is_err() {
                continue;
            }
            match refusal(&candidate, owners) {
                None => {
                    let found = of_venv(&candidate, "found beside the script or above it")?;
                    return Ok(Interpreter { skipped, ..found });
                }
                Some(reason) => {
                    skipped.get_or_insert_with(|| {
                        format!("`{}` is not used: {reason}", candidate.display())
                    });
                }
            }
        }
    }
    if let Some(directory) = own {
        return of_venv(directory, OWN_VENV).map(|found| Interpreter { skipped, ..found });
    }
    Ok(Interpreter {
        program: search.on_path(OsStr::new("python3"))?,
        venv: None,
        chosen_by: if search.path.is_some() { BY_PATH } else { BY_DEFAULT_PATH },
        skipped,
    })
}

/// The virtualenv in whose `bin` this program is installed.
///
/// The first call decides, at the start: an upgrade by pip moves the program of a running pool.
pub(crate) fn own_venv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| venv_of_program(&env::current_exe().ok()?)).as_deref()
}

/// The virtualenv in whose `bin` the file `program` is.
fn venv_of_program(program: &Path) -> Option<PathBuf> {
    let directory = program.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
    directory.join("pyvenv.cfg").is_file().then(|| directory.to_owned())
}

/// Did pipx or `uv tool` make this virtualenv? Such a virtualenv is meant for one program without
/// the applications that it runs, so virtualenvs of applications come first.
pub(crate) fn is_tool_venv(directory: &Path) -> bool {
    ["pipx_metadata.json", "uv-receipt.toml"].iter().any(|file| directory.join(file).is_file())
}

/// The interpreter of a virtualenv.
fn of_venv(directory: &Path, chosen_by: &'static str) -> Result<Interpreter, LogMessage> {
    let bad = |reason: String, hint: String| {
        LogMessage::new(
            Code::BadVenv,
            format!(
                "the virtualenv `{}` ({chosen_by}) cannot be used: {reason}",
                directory.display()
            ),
        )
        .hint(hint)
    };
    let (shown, in_command) = (directory.display(), quoted(directory));
    // A setting that names the wrong directory is corrected; a broken virtualenv is made again.
    let correct = match chosen_by {
        BY_VARIABLE => "unset VIRTUAL_ENV, or let it name a virtualenv".to_owned(),
        BY_OPTION => "let --venv name a virtualenv".to_owned(),
        _ => format!("remove `{shown}`"),
    };
    let again = || {
        let wsgate = if chosen_by == OWN_VENV { ", and install wsgate in it" } else { "" };
        format!("create it again: python3 -m venv --clear {in_command}{wsgate}")
    };
    if let Some(closed) = first_closed(directory) {
        return Err(bad(
            format!("user {} may not enter `{}`", geteuid().as_raw(), closed.display()),
            format!("let that user enter it: chmod o+x {}", quoted(&closed)),
        ));
    }
    if !directory.is_dir() {
        return Err(if directory.exists() {
            bad("this is not a directory".to_owned(), correct)
        } else {
            let hint = format!("{correct}; or create one there: python3 -m venv {in_command}");
            bad("the directory does not exist".to_owned(), hint)
        });
    }
    let venv = read_venv(directory).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("let that user read it: chmod o+r {in_command}/pyvenv.cfg")
            }
            io::ErrorKind::NotFound => match venv_below(directory) {
                Some(below) => {
                    format!("this is the directory of an application; use its {}", below.display())
                }
                None => format!("{correct}; or create one: python3 -m venv {in_command}/.venv"),
            },
            _ => again(),
        };
        let user = geteuid().as_raw();
        bad(format!("its pyvenv.cfg cannot be read by user {user}: {error}"), hint)
    })?;
    let program = directory.join("bin/python");
    can_run(&program).map_err(|reason| {
        let is_forbidden = program.is_file();
        let hint = if is_forbidden {
            format!("let that user run it: chmod o+x {}", quoted(&program))
        } else {
            again()
        };
        bad(format!("its bin/python {reason}"), hint)
    })?;
    Ok(Interpreter { program, venv: Some(venv), chosen_by, skipped: None })
}

/// A virtualenv of the usual names in `directory`.
fn venv_below(directory: &Path) -> Option<PathBuf> {
    let named = VENV_NAMES.iter().map(|name| directory.join(name));
    named.into_iter().find(|candidate| candidate.join("pyvenv.cfg").is_file())
}

/// Reads `pyvenv.cfg`, the description of a virtualenv.
fn read_venv(directory: &Path) -> io::Result<Venv> {
    let description = fs::read_to_string(directory.join("pyvenv.cfg"))?;
    let version = description.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let mut numbers = value.trim().split('.');
        matches!(name.trim(), "version" | "version_info")
            .then(|| Some(format!("{}.{}", numbers.next()?, numbers.next()?)))
            .flatten()
    });
    Ok(Venv { directory: directory.as_os_str().as_bytes().to_vec(), version })
}

/// Why `candidate` is not used, if it is no virtualenv or any part of it belongs to somebody else
/// than root, this user, or an owner of the script. Any user may create a directory `/tmp/venv`,
/// and links in it.
fn refusal(candidate: &Path, owners: &[u32]) -> Option<String> {
    if !candidate.join("pyvenv.cfg").is_file() {
        let reason = "it has no pyvenv.cfg that this user can read, so it is no virtualenv";
        return Some(format!(
            "{reason}; remove it, or make one of it: python3 -m venv {}",
            quoted(candidate)
        ));
    }
    let distrust = |path: &Path| {
        let Ok(found) = fs::symlink_metadata(path) else {
            return Some(format!(
                "`{}` is missing; make it again: python3 -m venv {}",
                path.display(),
                quoted(candidate)
            ));
        };
        // The owner of the link counts, because that user has chosen the target.
        let owner = found.uid();
        let named = format!("name it with --venv {} if you trust it", candidate.display());
        let which = if path == candidate { "it" } else { "a part of it" };
        if !found.is_symlink() && found.mode() & 0o002 != 0 {
            return Some(format!("{which} can be changed by everybody: chmod -R o-w, or {named}"));
        }
        let is_trusted = owner == 0 || owner == geteuid().as_raw() || owners.contains(&owner);
        (!is_trusted).then(|| {
            format!("{which} belongs to user {owner}, who does not own the script; {named}")
        })
    };
    let Ok(directory) = fs::canonicalize(candidate) else {
        return Some("it is a broken link".to_owned());
    };
    let parts = ["pyvenv.cfg", "bin", "bin/python"].map(|part| directory.join(part));
    [candidate, &directory].into_iter().chain(parts.iter().map(PathBuf::as_path)).find_map(distrust)
}

/// Checks that `program` can be executed. The error is the part of a sentence after the program's
/// name.
fn can_run(program: &Path) -> Result<(), String> {
    match fs::metadata(program) {
        Ok(found) if !found.is_file() => Err("is not a program".to_owned()),
        Ok(_) => access(program, Access::EXEC_OK)
            .map_err(|_| format!("may not be run by user {}", geteuid().as_raw())),
        Err(error) => match links::end(program).filter(|_| program.is_symlink()) {
            Some(target) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("points to `{}`, which does not exist", target.display()))
            }
            _ if error.kind() == io::ErrorKind::NotFound => Err("does not exist".to_owned()),
            _ => Err(format!("cannot be accessed: {error}")),
        },
    }
}

fn bad_python(program: &Path, reason: &str) -> LogMessage {
    LogMessage::new(Code::BadPython, format!("the interpreter `{}` {reason}", program.display()))
        .hint("use another with --python EXE, or a virtualenv with --venv DIR")
}
