//! Explains why an application cannot be loaded, and how to fix the problem.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, time::Duration};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::{
    exceptions::{PyOSError, PySystemExit},
    prelude::*,
};
use wire::{
    app::{App, Source},
    launch::Launch,
};

use crate::{
    advice,
    wsgi::{ExceptionText, Refusal, ServerSettings, interruption, text_of},
};

/// Functions that serve clients, or start a process that does.
const SERVER_FUNCTIONS: [&str; 8] = [
    "serve_forever",
    "run_forever",
    "run_until_complete",
    "run_simple",
    "run_with_reloader",
    "serve",
    "listen",
    "accept",
];

/// The log message for loading that was interrupted after `seconds`.
fn not_in_time(py: Python<'_>, app: &App, error: &PyErr, seconds: u64) -> LogMessage {
    let (place, serves) = position(py, error);
    let place = place.map_or_else(String::new, |(line, file)| {
        format!(": Python was at line {line} of `{file}`")
    });
    let hint = if serves {
        STARTS_A_SERVER_HINT
    } else {
        "the last lines of the traceback show the place; make that code faster or leave it to \
         the first request, or raise `--timeout` or `--response-timeout`"
    };
    LogMessage::new(Code::LoadTimedOut, format!("`{app}` was not loaded within {seconds} s{place}"))
        .traceback(ExceptionText::of(py, error).trace)
        .hint(hint)
}

const STARTS_A_SERVER_HINT: &str = "the file seems to start a server when it is loaded: put \
    `app.run()`, or another call that starts one, under `if __name__ == \"__main__\":`";

/// The line and file of the last module code in the traceback of `error`, and whether a function of
/// [`SERVER_FUNCTIONS`] is in the traceback.
fn position(py: Python<'_>, error: &PyErr) -> (Option<(u32, String)>, bool) {
    let mut place = None;
    let mut serves = false;
    let mut step = error.traceback(py).map(Bound::into_any);
    while let Some(frame) = step {
        let look = || -> PyResult<(String, String, u32)> {
            let code = frame.getattr("tb_frame")?.getattr("f_code")?;
            let text = |name: &str| text_of(code.getattr(name)?.cast()?);
            Ok((text("co_filename")?, text("co_name")?, frame.getattr("tb_lineno")?.extract()?))
        };
        if let Ok((file, function, line)) = look() {
            if function == "<module>" && !file.starts_with('<') {
                place = Some((line, file));
            }
            serves |= SERVER_FUNCTIONS.contains(&function.as_str());
        }
        step = frame.getattr("tb_next").ok().filter(|next| !next.is_none());
    }
    (place, serves)
}

/// The error for an import that raised `error` after `took`.
pub(super) fn failed_import(
    py: Python<'_>,
    launch: &Launch,
    setting: &ServerSettings,
    error: &PyErr,
    took: Duration,
) -> Refusal {
    let app = &launch.app;
    if let Some(refusal) = interruption(py, error, setting) {
        // At a terminal, the limit is not in the launch message.
        let limits = [setting.timeout_seconds, setting.response_timeout_seconds];
        let limit = limits
            .into_iter()
            .filter(|&limit| limit > 0)
            .min()
            .unwrap_or(took.as_secs_f64().round() as u64);
        // Otherwise the start of Python took most of the time of the request.
        let is_long = took.as_secs_f64() >= limit as f64 * 0.5;
        if refusal.status == Status::GatewayTimeout && is_long {
            return Refusal { message: not_in_time(py, app, error, limit), ..refusal };
        }
        return refusal;
    }
    let ExceptionText { line, trace } = ExceptionText::of(py, error);
    if error.is_instance_of::<PySystemExit>(py) {
        return LogMessage::new(
            Code::ExitAtImport,
            format!("`{app}` called `sys.exit` while it was loaded"),
        )
        .traceback(trace)
        .hint(if position(py, error).1 {
            // The reloader of a development server exits like this when its own process exits.
            STARTS_A_SERVER_HINT
        } else {
            "code that runs a program of its own belongs under `if __name__ == \"__main__\":`"
        })
        .into();
    }
    if let Some(name) = advice::missing_name(py, error) {
        return missing_module(py, launch, &name, &trace).into();
    }
    let value = error.value(py);
    let unreadable = value.is_instance_of::<PyOSError>()
        && matches!(&app.source, Source::File(path) if value.getattr("filename").is_ok_and(|name| {
            name.extract::<OsString>().is_ok_and(|name| name.as_bytes() == path)
        }));
    if unreadable {
        return LogMessage::new(Code::UnreadableScript, format!("`{app}` cannot be read: {value}"))
            .hint(
                "the user that the web server runs programs as must be able to read it: chmod a+r",
            )
            .into();
    }
    LogMessage::new(Code::ImportRaised, format!("`{app}` raised `{line}` while it was loaded"))
        .traceback(trace)
        .hint(advice::for_exception(py, error).unwrap_or_else(|| {
            "the last lines of the traceback name the place; `wsgate check` loads it again from a \
             shell"
                .to_owned()
        }))
        .into()
}

fn missing_module(py: Python<'_>, launch: &Launch, name: &str, trace: &str) -> LogMessage {
    let version = py.version_info();
    let running = format!("{}.{}", version.major, version.minor);
    let path = py
        .import("sys")
        .and_then(|sys| search_path(&sys))
        .map(|path| path.iter().map(|directory| format!("  {directory}\n")).collect::<String>())
        .unwrap_or_default();
    if let Source::Module(module) = &launch.app.source
        && (module == name || module.starts_with(&format!("{name}.")))
    {
        return LogMessage::new(
            Code::ModuleNotFound,
            format!("there is no module `{name}`, and no file `{module}`"),
        )
        .detail(format!("Python {running} searched:\n{path}"))
        .hint(advice::for_application(name));
    }
    LogMessage::new(
        Code::ModuleNotFound,
        format!("`{}` needs the module `{name}`, which was not found", launch.app),
    )
    .traceback(format!("{trace}Python {running} searched:\n{path}"))
    .hint(advice::for_missing_module(py, name))
}

/// `sys.path` as text.
pub(crate) fn search_path(sys: &Bound<'_, PyModule>) -> PyResult<Vec<String>> {
    let mut path = Vec::new();
    // `collect` would import `operator` to learn the count.
    for directory in sys.getattr("path")?.try_iter()? {
        path.push(text_of(&directory?.str()?)?);
    }
    Ok(path)
}
