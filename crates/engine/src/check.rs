//! `wsgate check`: loads the application, sends one request, and another one under
//! `wsgiref.validate`, and reports the findings.

use std::{
    fs::File,
    io::{
        Write as _, {self},
    },
    os::unix::ffi::OsStringExt as _,
    time::Instant,
};

use pyo3::prelude::*;
use wire::{
    check::{Findings, FirstRequest, Loaded, Validation},
    launch::{Launch, target_parts},
    message,
    report::Report,
};

use crate::{
    loading::{
        application::{
            LoadedApplication, {self},
        },
        import_audit::{
            Tracing, {self},
        },
        load_error::search_path,
        synthetic_request::{
            SyntheticResponse, {self},
        },
        warm_up,
    },
    log::Log,
    process::{forks::Descriptor, python_modules, random_state},
    reporter::Reporter,
    stdlib,
    wsgi::{ExceptionText, Interruptible, Refusal, ServerSettings, text_of},
};

/// Writes the findings about the application to the response descriptor.
pub(crate) fn run(
    py: Python<'_>,
    launch: &Launch,
    target: Option<&str>,
    response: Descriptor,
    reporter: &Reporter,
    interruptible: Interruptible,
) -> PyResult<()> {
    let findings = findings(py, launch, target, reporter, interruptible)?;
    write(message::encode(&findings).map_err(io::Error::other), response, reporter);
    Ok(())
}

/// Loads the application under the import tracer, and writes what the import leaves open or running
/// to the response descriptor.
pub(crate) fn trace(
    py: Python<'_>,
    launch: &Launch,
    response: Descriptor,
    reporter: &Reporter,
) -> PyResult<()> {
    let (loaded, side_effects) =
        import_audit::audit(py, Tracing::Complete, launch, || load(py, launch))?;
    drop(loaded);
    write(message::encode(&side_effects).map_err(io::Error::other), response, reporter);
    Ok(())
}

/// Loads the application as a template does.
fn load<'py>(py: Python<'py>, launch: &Launch) -> Result<LoadedApplication<'py>, Refusal> {
    let setting = setting(launch);
    let loaded = application::load(py, launch, &setting)?;
    warm_up::run(
        py,
        &loaded.application,
        launch,
        &setting,
        &Log::new(&launch.request.id, &launch.request.line),
    );
    Ok(loaded)
}

fn write(bytes: io::Result<Vec<u8>>, response: Descriptor, reporter: &Reporter) {
    reporter.send(&Report::ResponseStarts);
    let written = bytes.and_then(|bytes| File::from(response.into_owned()).write_all(&bytes));
    reporter.send(&Report::RequestEnded { complete: written.is_ok() });
}

fn setting(launch: &Launch) -> ServerSettings {
    ServerSettings {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: true,
        timeout_seconds: launch.request.timeout_seconds,
        response_timeout_seconds: launch.request.response_timeout_seconds,
        socket_timeout_seconds: 0,
        is_cgi: true,
        script_name: launch.script_name.as_deref().map(Into::into),
        proxies: std::sync::Arc::new(launch.proxies.clone()),
        offload: None,
    }
}

fn findings(
    py: Python<'_>,
    launch: &Launch,
    target: Option<&str>,
    reporter: &Reporter,
    interruptible: Interruptible,
) -> PyResult<Findings> {
    let begin = Instant::now();
    let ((loaded, import_time), side_effects) =
        import_audit::audit(py, Tracing::Off, launch, || (load(py, launch), begin.elapsed()))?;
    reporter.send(&Report::Loaded);
    let sys = py.import("sys")?;
    let text = |name: &str| -> PyResult<String> { text_of(&sys.getattr(name)?.str()?) };
    let version = sys.getattr("version_info")?;
    let number = |index: usize| -> PyResult<u32> { version.get_item(index)?.extract() };
    Ok(Findings {
        python_version: format!("{}.{}.{}", number(0)?, number(1)?, number(2)?),
        executable: text("executable")?,
        prefix: text("prefix")?,
        in_venv: !sys.getattr("prefix")?.eq(sys.getattr("base_prefix")?)?,
        sys_path: search_path(&sys)?,
        import_time,
        loaded: match loaded {
            Err(failure) => Err(failure.message.for_client()),
            Ok(loaded) => {
                let generators = random_state::generators(py, &launch.app)?;
                let answer = ask(&loaded.application, launch, target, interruptible.clone())?;
                let validation = if answer.is_complete && !has_error(&answer.messages) {
                    validate(py, &loaded.application, launch, target, interruptible)?
                } else {
                    Validation::NotValidated("the first request failed".to_owned())
                };
                Ok(Loaded {
                    callable: loaded.name,
                    kind: loaded.application.get_type().fully_qualified_name()?.to_string(),
                    files: module_files(py)?,
                    request_time: answer.time,
                    first_request: FirstRequest {
                        target: answer.target,
                        status: answer.status,
                        messages: answer.messages,
                        is_complete: answer.is_complete,
                    },
                    validation,
                    side_effects,
                    generators,
                    threads: std::fs::read_dir("/proc/self/task")
                        .map_or(1, Iterator::count)
                        .saturating_sub(1),
                })
            }
        },
    })
}

/// The files of all loaded modules.
fn module_files(py: Python<'_>) -> PyResult<Vec<Vec<u8>>> {
    let files = python_modules::files(py)?;
    Ok(files.into_iter().map(|file| file.into_os_string().into_vec()).collect())
}

/// The response to a `GET` request to `target`, or to `/` on the host of the warm-up request.
fn ask(
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    target: Option<&str>,
    interruptible: Interruptible,
) -> PyResult<SyntheticResponse> {
    let mount = launch.script_name.as_deref().unwrap_or_default();
    let parts = match (target, &launch.warm_up) {
        (Some(target), _) => target_parts(target, mount),
        (None, Some(warm_up)) => {
            let (scheme, host, _) = warm_up.parts(mount);
            (scheme, host, "/")
        }
        (None, None) => ("http", "localhost", "/"),
    };
    synthetic_request::ask(application, setting(launch), "check", parts, interruptible)
}

/// Makes a request under `wsgiref.validate`.
fn validate(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    target: Option<&str>,
    interruptible: Interruptible,
) -> PyResult<Validation> {
    let validator = stdlib::import(py, "wsgiref.validate")
        .and_then(|validate| validate.getattr("validator")?.call1((application,)));
    let validator = match validator {
        Ok(validator) => validator,
        Err(error) => {
            return Ok(Validation::NotValidated(ExceptionText::of(py, &error).line));
        }
    };
    let answer = ask(&validator, launch, target, interruptible)?;
    // The validator raises this exception, which ends a traceback.
    let finding = answer.messages.lines().rev().find_map(|line| {
        let line = line.trim_start().strip_prefix("AssertionError")?;
        Some(line.trim_start_matches(':').trim().to_owned())
    });
    Ok(match finding {
        Some(finding) => Validation::Invalid(finding),
        None if answer.is_complete && !has_error(&answer.messages) => Validation::Valid,
        None => Validation::NotValidated("the second request failed".to_owned()),
    })
}

/// Is one of the log messages an error?
fn has_error(messages: &str) -> bool {
    messages.lines().any(|line| line.starts_with("wsgate: error["))
}
