//! `wsgate check`: loads an application in the interpreter that would serve it. The report lists
//! the findings, and what is wrong with the script, its place and its permissions.

pub(crate) mod args;
mod budget;
mod describe;
mod error_log;
mod exposed;
mod first_line;
mod kernel_limit;
mod mended_line;
mod other_encoding;
mod reader;
mod report;
mod suexec;
mod warm;
mod web_root;
mod web_server;

use std::{
    ffi::OsStr,
    fs::File,
    io::{
        Read as _, {self},
    },
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    time::Duration,
};

use diagnostics::message::Severity;
use wire::{
    app::Source,
    check::Findings,
    launch::{RequestFds, Work},
    message,
};

use crate::{
    check::{
        args::CheckedApp, budget::Measured, reader::Reader, report::Report, web_root::WebRoot,
    },
    config::{
        missing_path::MissingPath,
        options::ScriptOptions,
        script_line,
        settings::{INTERACTIVE_TIMEOUT_SECS, Settings, application},
    },
    exit::{CommandError, Exit},
    guard::{self, start_error},
    request::Request,
    system::{shell::quoted, trusted_path::is_real_root},
};

/// Checks an application, and prints the report.
///
/// # Errors
/// If the application cannot be checked.
pub(crate) fn run(checked: CheckedApp) -> Result<Exit, CommandError> {
    let (app, base) = application(&checked.app)?;
    let script = match &app.source {
        Source::File(path) => Some(base.join(OsStr::from_bytes(path))),
        Source::Module(_) => None,
    };
    let root = script.as_deref().and_then(WebRoot::of);
    let reader =
        Reader::find(checked.user.as_deref(), root.as_ref()).map_err(CommandError::settings)?;
    let mut report = Report::default();
    report.line("application", &app);
    for problem in &checked.problems {
        match problem.code().severity() {
            Severity::Error => report.problem(problem.for_client()),
            Severity::Warning | Severity::Notice => report.warning(problem.for_client()),
        }
    }
    if let Some(reader) = reader.as_ref().filter(|reader| reader.is_guessed_owner) {
        report.line(
            "user",
            format!(
                "{}, the owner of the document root, as whom suexec runs scripts; --user USER \
                 checks for another",
                reader.name
            ),
        );
    }
    // A pool does not execute the script.
    let program = script
        .as_deref()
        .filter(|_| !checked.is_pool)
        .and_then(|script| first_line::inspect(&mut report, script, root.is_some()));
    let other_wsgate = program.as_deref().and_then(first_line::other_wsgate);
    let variables = reader.as_ref().zip(script.as_deref()).and_then(|(reader, script)| {
        let variables = reader.assume(script)?;
        report.line("note", format!("{} loads the application, not root", reader.name));
        Some(variables)
    });
    // The defects of the line are reported already. Its options may be those that loading needs.
    let completed = script_line::complete_as(checked.options, &app, &base, mended_line::meant);
    let settings = completed.and_then(|options| {
        let mut options = with_limit(options, checked.timeout);
        options.app.env.splice(0..0, variables.unwrap_or_default());
        if is_real_root() && reader.as_ref().is_some_and(|reader| reader.uid != 0) {
            // Another user could not replace the files of root.
            options.app.env.insert(0, ("PYTHONDONTWRITEBYTECODE".into(), "1".into()));
        }
        let app = (&app, base.as_path());
        let mut settings = web_server::settings(
            &options,
            app,
            other_wsgate.as_deref(),
            reader.as_ref(),
            checked.clears_environment,
        )?;
        settings.clears_environment = checked.clears_environment;
        // The pool that is measured would search for itself.
        options.app.venv = None;
        options.app.python = Some(settings.interpreter.program.clone());
        Ok((settings, options))
    });
    let (settings, options) = match settings {
        Ok(resolved) => resolved,
        Err(message) => {
            report.print_findings()?;
            return Err(CommandError::settings(message));
        }
    };
    describe::interpreter(&mut report, &settings);
    for missing in MissingPath::of_loading(&settings) {
        report.problem(missing.message().for_client());
    }
    let findings = findings(&settings, checked.target.as_deref());
    match &findings {
        Ok(findings) => {
            let mode = options.mode.mode;
            let is_fit = describe::findings(&mut report, &settings, mode, findings);
            let measured = Measured { app: &app, options: &options, base: &base, is_fit };
            budget::report(&mut report, &measured);
        }
        Err(reason) => report.problem(reason.clone()),
    }
    let loaded = findings.as_ref().ok().and_then(|findings| findings.loaded.as_ref().ok());
    let modules: Vec<PathBuf> = loaded
        .map(|loaded| loaded.files.iter().map(|file| OsStr::from_bytes(file).into()).collect())
        .unwrap_or_default();
    if let (Some(script), Some(root)) = (&script, &root) {
        let limit = Duration::from_secs(INTERACTIVE_TIMEOUT_SECS);
        let python = &settings.interpreter.program;
        exposed::inspect(&mut report, root, script, &modules, python, limit);
        if let Some(owner) = reader.as_ref().filter(|reader| reader.is_run_by_suexec()) {
            suexec::inspect(&mut report, script, owner);
            suexec::web_server(&mut report, root, owner);
        }
    }
    // The supervisor of a pool opens its log.
    if let Some(log) = options.logging.in_directory(&base).filter(|_| !checked.is_pool) {
        error_log::inspect(&mut report, &log, reader.as_ref());
    }
    if let Some(reader) = &reader {
        // Another wsgate has another engine.
        let engine = Some(settings.engine.path()).filter(|_| other_wsgate.is_none());
        let programs = (program.as_deref(), engine);
        describe::readability(&mut report, &settings, &modules, programs, reader);
    }
    describe::notes(&mut report, &settings, reader.as_ref(), checked.is_pool);
    if let (Some(script), None, Some(_)) = (&script, &root, &program) {
        report.line(
            "note",
            format!(
                "`{}` is not recognised as a document root: what clients can fetch there was not \
                 checked",
                script.parent().unwrap_or(script).display()
            ),
        );
    }
    report.print()
}

/// `options` with a time limit: nothing that is checked may take longer than `asked` seconds, or
/// than the default. The `#!` line cannot raise the limit, because a person waits for the report.
fn with_limit(mut options: ScriptOptions, asked: Option<u64>) -> ScriptOptions {
    let of_line = options.request.timeout.filter(|&seconds| seconds > 0);
    let limit = of_line.unwrap_or(INTERACTIVE_TIMEOUT_SECS).min(INTERACTIVE_TIMEOUT_SECS);
    options.request.timeout = Some(asked.unwrap_or(limit));
    options
}

/// The findings of the engine.
///
/// # Errors
/// Why there are none.
fn findings(settings: &Settings, target: Option<&str>) -> Result<Findings, String> {
    let target = target.map(str::to_owned);
    let bytes = response(settings, |ends| Work::Check(ends, target))
        .map_err(|error| start_error::message(settings, &error).for_client().to_owned())?;
    message::decode(&bytes).map_err(|_| {
        "python exited before it could report more: see the log message above".to_owned()
    })
}

/// The response of the engine to `work`.
fn response(
    settings: &Settings,
    work: impl FnOnce(RequestFds) -> Work + Send,
) -> io::Result<Vec<u8>> {
    let request = Request::synthetic("GET", "/", Vec::new());
    let nothing = File::open("/dev/null")?.into();
    let read = |response| {
        let mut bytes = Vec::new();
        File::from(response).read_to_end(&mut bytes).map(|_| bytes)
    };
    let (bytes, _) = guard::run_with_pipe(
        nothing,
        |channels| guard::run(settings, work, &request, channels),
        read,
    )?;
    bytes
}
