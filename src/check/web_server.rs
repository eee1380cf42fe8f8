//! The settings of a request. A web server starts the wsgate of the `#!` line, and has other
//! environment variables than the person who runs this check.

use std::path::Path;

use diagnostics::message::LogMessage;
use wire::app::App;

use crate::{
    check::reader::{Need, Reader},
    config::{options::ScriptOptions, settings::Settings},
    python::{engine::Engine, interpreter::InterpreterSearch},
};

/// The settings of a request. `other_wsgate` is the program of the `#!` line, if that is another
/// wsgate than this one. `reader` is the user that the request runs as: if variables of this
/// process name an interpreter that this user cannot run, it is not the one of the request.
///
/// # Errors
/// As [`Settings::resolve`].
pub(super) fn settings(
    options: &ScriptOptions,
    (app, base): (&App, &Path),
    other_wsgate: Option<&Path>,
    reader: Option<&Reader>,
    clears_environment: bool,
) -> Result<Settings, LogMessage> {
    let mut search = InterpreterSearch::of_this_process();
    if clears_environment {
        search = search.without_virtual_env();
    }
    if let Some(program) = other_wsgate {
        search = search.by_program(program);
    }
    let resolve = |search: &InterpreterSearch| {
        Settings::resolve_with(options, app.clone(), base, search, Engine::find)
    };
    let settings = resolve(&search)?;
    let interpreter = &settings.interpreter;
    let is_unusable = |reader: &Reader| {
        interpreter.is_by_variable()
            && reader.first_unusable(&interpreter.program, Need::Execute).is_some()
    };
    if reader.is_some_and(is_unusable) {
        return resolve(&search.without_variables()).or(Ok(settings));
    }
    Ok(settings)
}
