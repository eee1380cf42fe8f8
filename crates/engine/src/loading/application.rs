//! Finds and loads the application, and says clearly why it cannot.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt as _,
    time::{Duration, Instant},
};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::{
    exceptions::{PyModuleNotFoundError, PySyntaxError, PySystemExit},
    ffi,
    prelude::*,
    types::{PyBytes, PyDict},
};
use wire::{
    app::{App, Source},
    launch::Launch,
};

use crate::{
    log::Log,
    process,
    process::forks,
    wsgi::{Described, Setting, interruption, note_streams, text_of, type_name},
};

/// Names under which an application is looked for when none is given.
const USUAL_NAMES: [&str; 2] = ["application", "app"];

/// Most names that a message lists.
const NAMES_SHOWN: usize = 12;

/// An application that can be called.
pub(crate) struct Loaded<'py> {
    /// The callable.
    pub(crate) application: Bound<'py, PyAny>,
    /// The name it was found by.
    pub(crate) name: String,
}

/// Why there is no application.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// For the log.
    pub(crate) entry: LogMessage,
    /// For the client.
    pub(crate) status: Status,
}

impl From<LogMessage> for Failure {
    fn from(entry: LogMessage) -> Self {
        Self { entry, status: Status::InternalServerError }
    }
}

/// Loads the application that `launch` names. Requests find the standard streams that this leaves.
pub(crate) fn load<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &Setting,
) -> Result<Loaded<'py>, Failure> {
    let loaded = find_and_load(py, launch, setting);
    note_streams(py);
    loaded
}

/// How long a pool loads before its log says where that stands.
const LOADS_LONG: Duration = Duration::from_secs(30);

/// The same in a process of a pool, which has no limit for it.
pub(crate) fn load_for_pool<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &Setting,
) -> Result<Loaded<'py>, Failure> {
    let sentence =
        format!("`{}` has been loading for {} s, and goes on", launch.app, LOADS_LONG.as_secs());
    let entry = LogMessage::warning(Code::LoadsLong, sentence).hint(
        "the stacks stand just above, the innermost call first; what waits for a server needs a \
         limit, what starts one belongs under `if __name__ == \"__main__\":`, and what is slow can \
         be left to the first request",
    );
    let message = Log::new(&launch.request.id, &launch.request.line).text(&entry);
    let _watch = process::tell_after(py, LOADS_LONG, message);
    load(py, launch, setting)
}

fn find_and_load<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &Setting,
) -> Result<Loaded<'py>, Failure> {
    let log = Log::new(&launch.request.id, &launch.request.line);
    let begun = Instant::now();
    let imported = forks::end_if_child(py, &log, import(py, &launch.app.source));
    let module =
        imported.map_err(|error| failed_import(py, launch, setting, &error, begun.elapsed()))?;
    let (mut application, name) = find(&module, launch)?;
    if launch.app.factory {
        application = forks::end_if_child(py, &log, application.call0())
            .map_err(|error| failed_import(py, launch, setting, &error, begun.elapsed()))?;
    }
    if !application.is_callable() {
        return Err(LogMessage::error(
            Code::NoCallable,
            format!(
                "`{name}` in `{}` is of type `{}`, which cannot be called",
                launch.app,
                type_name(&application)
            ),
        )
        .hint(
            "a WSGI application is a function or object that is called with environ and \
             start_response",
        )
        .into());
    }
    Ok(Loaded { application, name })
}

/// Runs the code of the module.
fn import<'py>(py: Python<'py>, source: &Source) -> PyResult<Bound<'py, PyAny>> {
    let path = match source {
        Source::Module(name) => return py.import(name.as_str()).map(Bound::into_any),
        Source::File(path) => OsStr::from_bytes(path),
    };
    let external = py.import("_frozen_importlib_external")?;
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
    let is_python = path.as_bytes().ends_with(b".py");
    let name = module_name(path, is_python, &modules)?;
    let loader = external.getattr("SourceFileLoader")?.call1((&name, path))?;
    let options = PyDict::new(py);
    options.set_item("loader", &loader)?;
    let spec = external.getattr("spec_from_file_location")?.call((&name, path), Some(&options))?;
    let module = py.import("_frozen_importlib")?.call_method1("module_from_spec", (&spec,))?;
    modules.set_item(&name, &module)?;
    let run = || -> PyResult<()> {
        if is_python {
            loader.call_method1("exec_module", (&module,))?;
        } else {
            // Python would cache `site.wsgi` under the name of `site.py`, and each would throw the
            // other's code away.
            let source = loader.call_method1("get_data", (path,))?.cast_into::<PyBytes>()?;
            let code = compile(&source, path)?;
            py.import("builtins")?.call_method1("exec", (code, module.getattr("__dict__")?))?;
        }
        Ok(())
    };
    run().inspect_err(|_| {
        // As the import statement does: a module that failed is not there. It may have taken itself
        // away already.
        let _ = modules.del_item(&name);
    })?;
    Ok(module)
}

/// Compiles the source of a module. `compile()` of Python's builtins would first make all types of
/// the `ast` module, which takes longer than everything else that is done for a small request.
fn compile<'py>(source: &Bound<'py, PyBytes>, path: &OsStr) -> PyResult<Bound<'py, PyAny>> {
    let py = source.py();
    let text = CString::new(source.as_bytes())
        .map_err(|_| PySyntaxError::new_err("source code string cannot contain null bytes"))?;
    let path = CString::new(path.as_bytes())?;
    // SAFETY: both are strings that end with NUL and outlive the call, which returns a new
    // reference or null with an exception set.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::Py_CompileString(text.as_ptr(), path.as_ptr(), ffi::Py_file_input),
        )
    }
}

/// Name of the module made from the file at `path`. A `.py` file keeps its own, so that other
/// modules that import it get the same one; a script is given one that hides no package, since
/// `flask.wsgi` imports `flask`.
fn module_name(path: &OsStr, is_python: bool, modules: &Bound<'_, PyDict>) -> PyResult<String> {
    let file = path.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let stem = file.split(|&byte| byte == b'.').find(|part| !part.is_empty()).unwrap_or_default();
    let stem: String = String::from_utf8_lossy(stem)
        .chars()
        .map(|character| if character.is_alphanumeric() { character } else { '_' })
        .collect();
    if is_python && !modules.contains(&stem)? { Ok(stem) } else { Ok(format!("wsgi_{stem}")) }
}

fn find<'py>(
    module: &Bound<'py, PyAny>,
    launch: &Launch,
) -> Result<(Bound<'py, PyAny>, String), Failure> {
    let walk = |name: &str| {
        name.split('.').try_fold(module.clone(), |object, attribute| object.getattr(attribute)).ok()
    };
    let asked: Vec<&str> = match &launch.app.callable {
        Some(name) => vec![name],
        None => USUAL_NAMES.to_vec(),
    };
    for name in &asked {
        if let Some(found) = walk(name) {
            return Ok((found, (*name).to_owned()));
        }
    }
    let callables = callables(module);
    let there = if callables.is_empty() {
        "nothing that can be called".to_owned()
    } else {
        format!("`{}`", callables.join("`, `"))
    };
    let names = asked.join("` or `");
    Err(LogMessage::error(Code::NoCallable, format!("there is no `{names}` in `{}`", launch.app))
        .detail(format!("found there: {there}"))
        .hint(if launch.app.callable.is_some() {
            "name one of those behind the colon of APP"
        } else {
            "name the WSGI callable `application` in the file: `application = …`"
        })
        .into())
}

/// Names in a module that look as if they were meant to be called from outside.
fn callables(module: &Bound<'_, PyAny>) -> Vec<String> {
    let names = || -> PyResult<Vec<String>> {
        let mut names = Vec::new();
        for item in module.getattr("__dict__")?.call_method0("items")?.try_iter()? {
            let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
            if !name.starts_with('_') && value.is_callable() && names.len() < NAMES_SHOWN {
                names.push(name);
            }
        }
        Ok(names)
    };
    names().unwrap_or_default()
}

/// Functions that wait for clients, or have another process do so.
const SERVERS: [&str; 8] = [
    "serve_forever",
    "run_forever",
    "run_until_complete",
    "run_simple",
    "run_with_reloader",
    "serve",
    "listen",
    "accept",
];

/// Loading was interrupted, after so many seconds.
fn not_in_time(py: Python<'_>, app: &App, error: &PyErr, seconds: u64) -> LogMessage {
    let (place, serves) = standpoint(py, error);
    let place = place
        .map_or_else(String::new, |(line, file)| format!(": it stands at line {line} of `{file}`"));
    let hint = if serves {
        STARTS_A_SERVER
    } else {
        "the last lines of the traceback are where it was; make that faster or leave it to the \
         first request, or raise `--timeout`"
    };
    LogMessage::error(
        Code::LoadTimedOut,
        format!("`{app}` was not loaded within {seconds} s{place}"),
    )
    .detail(Described::of(py, error).trace)
    .hint(hint)
}

const STARTS_A_SERVER: &str = "it looks as if the file started a server when it is loaded: put \
    `app.run()`, or what starts it, under `if __name__ == \"__main__\":`";

/// Line and file of the code of a module that `error` came by last, and whether a function that
/// serves was on the way.
fn standpoint(py: Python<'_>, error: &PyErr) -> (Option<(u32, String)>, bool) {
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
            serves |= SERVERS.contains(&function.as_str());
        }
        step = frame.getattr("tb_next").ok().filter(|next| !next.is_none());
    }
    (place, serves)
}

fn failed_import(
    py: Python<'_>,
    launch: &Launch,
    setting: &Setting,
    error: &PyErr,
    took: Duration,
) -> Failure {
    let app = &launch.app;
    if let Some((entry, status)) = interruption(py, error, setting) {
        // Only at a terminal there is a limit that the launch frame does not name.
        let limit = if setting.timeout_seconds > 0 {
            setting.timeout_seconds
        } else {
            took.as_secs_f64().round() as u64
        };
        // Else it was the start of Python that took most of the time of the request.
        let is_long = took.as_secs_f64() >= limit as f64 * 0.5;
        let entry = if status == Status::GatewayTimeout && is_long {
            not_in_time(py, app, error, limit)
        } else {
            entry
        };
        return Failure { entry, status };
    }
    let Described { line, trace } = Described::of(py, error);
    if error.is_instance_of::<PySystemExit>(py) {
        return LogMessage::error(
            Code::ExitAtImport,
            format!("`{app}` called `sys.exit` while it was loaded"),
        )
        .detail(trace)
        .hint(if standpoint(py, error).1 {
            // As the reloader of a development server does when its own process ends.
            STARTS_A_SERVER
        } else {
            "code that runs a program of its own belongs under `if __name__ == \"__main__\":`"
        })
        .into();
    }
    if error.is_instance_of::<PyModuleNotFoundError>(py) {
        return missing_module(py, launch, error, &trace).into();
    }
    let value = error.value(py);
    let unreadable = value.is_instance_of::<pyo3::exceptions::PyOSError>()
        && matches!(&app.source, Source::File(path) if value.getattr("filename").is_ok_and(|name| {
            name.extract::<std::ffi::OsString>().is_ok_and(|name| name.as_bytes() == path)
        }));
    if unreadable {
        return LogMessage::error(
            Code::UnreadableScript,
            format!("`{app}` cannot be read: {value}"),
        )
        .hint("the user that the web server runs programs as must be able to read it: chmod a+r")
        .into();
    }
    LogMessage::error(Code::ImportRaised, format!("`{app}` raised `{line}` while it was loaded"))
        .detail(trace)
        .hint(
            "the last lines of the traceback name the place; `wsgate check` loads it again from a \
             shell",
        )
        .into()
}

/// `sys.path` as text.
pub(crate) fn search_path(sys: &Bound<'_, PyModule>) -> PyResult<Vec<String>> {
    let mut path = Vec::new();
    // Not by `collect`, which would import `operator` to learn how many there are.
    for entry in sys.getattr("path")?.try_iter()? {
        path.push(text_of(&entry?.str()?)?);
    }
    Ok(path)
}

fn missing_module(py: Python<'_>, launch: &Launch, error: &PyErr, trace: &str) -> LogMessage {
    let name: String =
        error.value(py).getattr("name").and_then(|name| name.extract()).unwrap_or_default();
    let version = py.version_info();
    let running = format!("{}.{}", version.major, version.minor);
    let path = py
        .import("sys")
        .and_then(|sys| search_path(&sys))
        .map(|path| path.iter().map(|entry| format!("  {entry}\n")).collect::<String>())
        .unwrap_or_default();
    if let Source::Module(module) = &launch.app.source
        && (*module == name || module.starts_with(&format!("{name}.")))
    {
        return LogMessage::error(
            Code::ModuleNotFound,
            format!("there is no module `{name}`, and no file `{module}`"),
        )
        .detail(format!("Python {running} searched:\n{path}"))
        .hint("name a file by its path, or give the directory of the module with --path DIR");
    }
    let hint = match &launch.venv {
        Some(venv) => {
            let directory = String::from_utf8_lossy(&venv.directory);
            match &venv.version {
                Some(made_by) if *made_by != running => format!(
                    "the virtualenv `{directory}` was made by Python {made_by}, but its python is \
                     {running} now and does not see its packages; make it again"
                ),
                _ => format!("install it there: {directory}/bin/python -m pip install {name}"),
            }
        }
        None => {
            "no virtualenv is in use; name one with --venv DIR, or make one named `venv` beside \
             the script"
                .to_owned()
        }
    };
    LogMessage::error(
        Code::ModuleNotFound,
        format!("`{}` needs the module `{name}`, which was not found", launch.app),
    )
    .detail(format!("{trace}Python {running} searched:\n{path}"))
    .hint(hint)
}
