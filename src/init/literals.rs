//! Checks the arguments of a factory before a script calls it with them: a script can run any code,
//! and APP of all other commands has literals alone.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::geteuid;

use crate::{
    exit::CommandError,
    init::python_text::Callable,
    python::interpreter::{InterpreterSearch, find},
};

/// The program that looks at arguments: only Python knows all forms of its literals.
const PROGRAM: &str = include_str!("literals.py");

/// Checks that `callable`, which is in `directory`, has literals as arguments.
///
/// # Errors
/// If an argument is no literal, or no Python can check that.
pub(super) fn check(callable: &Callable, directory: &Path) -> Result<(), CommandError> {
    let Some(arguments) = callable.arguments.as_ref().filter(|it| !it.trim().is_empty()) else {
        return Ok(());
    };
    let search = InterpreterSearch::of_this_process();
    let beside = [directory.to_owned()];
    let owners = [0, geteuid().as_raw()];
    let python = find(None, None, &beside, &owners, &search).map_err(CommandError::settings)?;
    let mut command = Command::new(&python.program);
    command.args(["-I", "-S", "-c", PROGRAM, arguments]).stdin(Stdio::null());
    let output = command.stderr(Stdio::null()).output();
    let reason = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(output) => format!("`{}` failed: {}", python.program.display(), output.status),
        Err(error) => format!("`{}` cannot be started: {error}", python.program.display()),
    };
    if reason.is_empty() {
        return Ok(());
    }
    let sentence =
        format!("`({arguments})` after `{}` are not literals of Python: {reason}", callable.name);
    Err(CommandError::usage(LogMessage::new(Code::BadSetting, sentence).hint(
        "write strings in quotes, numbers, True, False, None, lists or dicts, as in \
         `create_app(\"prod\", debug=True)`",
    )))
}
