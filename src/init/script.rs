//! The script that the web server runs: its `#!` line and its code.

use std::{
    env, fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};

use crate::{
    config::options::Mode,
    init::{check_name, recognition::FoundApp, web_directory::WebDirectory},
    python::interpreter,
};

/// The longest path of a program on a `#!` line, in bytes. Kernels before 5.1 cut the line after
/// 127 bytes. wsgate reads its options from the file, so they may be longer.
const MAX_PROGRAM_BYTES: usize = 127 - "#! ".len();

/// The second line of each script that `wsgate init` writes.
pub(super) const COMMENT: &str =
    "# Written by `wsgate init`. The web server runs this file at each request.";

/// The script of an application.
pub(super) struct ScriptPlan {
    /// The content of the script.
    pub(super) content: String,
    /// The program for the commands that a person runs next.
    pub(super) program: PathBuf,
    /// The log that the script writes to.
    pub(super) error_log: Option<PathBuf>,
    /// A link with a name that a `#!` line can hold, and its target.
    pub(super) link: Option<(PathBuf, PathBuf)>,
    pub(super) needs_private_directory: bool,
    pub(super) note: Option<String>,
}

impl ScriptPlan {
    /// The script that serves `app` from `web` in `mode`.
    ///
    /// # Errors
    /// If no `#!` line can name this program.
    pub(super) fn new(app: &FoundApp, web: &WebDirectory, mode: Mode) -> Result<Self, LogMessage> {
        let program = this_program().map_err(|error| {
            LogMessage::new(
                Code::BadSetting,
                format!("the path of this program is not known: {error}"),
            )
            .hint("mount /proc")
        })?;
        check_name(&program)?;
        check_name(&app.directory)?;
        let private = web.private_directory.as_deref();
        let link = if can_stand_on_a_line(&program) {
            None
        } else {
            let link = private.map(|directory| directory.join("wsgate"));
            let link = link.filter(|link| can_stand_on_a_line(link));
            Some((link.ok_or_else(|| too_long(&program))?, program.clone()))
        };
        let note = link.as_ref().map(|_| {
            format!(
                "a `#!` line cannot hold `{}`, which has a space or more than {MAX_PROGRAM_BYTES} \
                 bytes: the script uses a link to it",
                program.display()
            )
        });
        let named = link.as_ref().map_or(&program, |(link, _)| link);
        let error_log = private.map(|directory| directory.join("error.log"));
        let mut line = format!("#!{}", named.display());
        match mode {
            Mode::Cold => {}
            Mode::Warm => line += " --mode warm",
            Mode::Resident => line += " --mode resident",
        }
        let mut options =
            vec![("--path", app.directory.clone()), ("--chdir", app.directory.clone())];
        options.extend(venv_of(&app.directory).map(|venv| ("--venv", venv)));
        options.extend(error_log.clone().map(|log| ("--error-log", log)));
        for (option, path) in options {
            let path = path.to_string_lossy().into_owned();
            let path = shlex::try_quote(&path).map_err(|_| too_long(&program))?;
            line += &format!(" {option} {path}");
        }
        let content = format!("{line}\n{COMMENT}\n{}", app.code);
        let needs_private_directory = error_log.is_some() || link.is_some();
        Ok(Self { content, program, error_log, link, needs_private_directory, note })
    }
}

/// The path of this program, without links.
pub(super) fn this_program() -> io::Result<PathBuf> {
    fs::canonicalize(env::current_exe()?)
}

/// The directory of the interpreter that wsgate is installed beside.
pub(super) fn interpreter_directory() -> Option<PathBuf> {
    interpreter::own_venv().map(Path::to_owned)
}

fn can_stand_on_a_line(program: &Path) -> bool {
    let bytes = program.as_os_str().as_bytes();
    bytes.len() <= MAX_PROGRAM_BYTES && !bytes.iter().any(u8::is_ascii_whitespace)
}

fn too_long(program: &Path) -> LogMessage {
    LogMessage::new(
        Code::BadSetting,
        format!(
            "a `#!` line cannot hold `{}`: its path has a space, or more than {MAX_PROGRAM_BYTES} \
             bytes",
            program.display()
        ),
    )
    .hint("install wsgate at a shorter path without spaces")
}

/// The virtualenv for an application in `directory`, if requests would not find it by themselves.
fn venv_of(directory: &Path) -> Option<PathBuf> {
    if interpreter::own_venv().is_some_and(|own| !interpreter::is_tool_venv(own)) {
        return None;
    }
    let beside = directory.ancestors().flat_map(|above| [above.join(".venv"), above.join("venv")]);
    let active = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let mut venvs = beside.chain(active).filter(|venv| venv.join("pyvenv.cfg").is_file());
    venvs.next().filter(|venv| check_name(venv).is_ok())
}
