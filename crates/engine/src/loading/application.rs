//! Finds and loads the application.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt as _,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    exceptions::{PySyntaxError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyBytes, PyDict, PyTuple},
};
use wire::{
    app::{App, Source},
    launch::Launch,
};

use crate::{
    advice::{
        FACTORY_NAMES, Mismatch, {self},
    },
    loading::{load_error::failed_import, paste},
    log::Log,
    process::{dump_stacks_after, python_api},
    wsgi::{Refusal, ServerSettings, end_if_child, remember_streams, type_name},
};

/// The default names of an application, if the command line names none.
const USUAL_NAMES: [&str; 2] = ["application", "app"];

/// How many names a message lists.
const MAX_NAMES_SHOWN: usize = 12;

/// A loaded application.
pub(crate) struct LoadedApplication<'py> {
    /// The callable.
    pub(crate) application: Bound<'py, PyAny>,
    /// The name of the callable in its module.
    pub(crate) name: String,
}

/// Loads the application that `launch` names. Records the standard streams as loading leaves them.
pub(crate) fn load<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &ServerSettings,
) -> Result<LoadedApplication<'py>, Refusal> {
    let loaded = find_and_load(py, launch, setting);
    remember_streams(py);
    loaded
}

/// How long loading in a pool may take before the stacks are logged.
const SLOW_LOAD_DELAY: Duration = Duration::from_secs(30);

/// As [`load`], for a process of a pool, where loading has no time limit.
pub(crate) fn load_for_pool<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &ServerSettings,
) -> Result<LoadedApplication<'py>, Refusal> {
    let sentence = format!(
        "`{}` has been loading for {} s, and goes on",
        launch.app,
        SLOW_LOAD_DELAY.as_secs()
    );
    let message = LogMessage::new(Code::LoadsLong, sentence).hint(
        "the stacks stand just above, the innermost call first; what waits for a server needs a \
         limit, what starts one belongs under `if __name__ == \"__main__\":`, and what is slow can \
         be left to the first request",
    );
    let message = Log::new(&launch.request.id, &launch.request.line).text(&message);
    let _watch = dump_stacks_after(py, SLOW_LOAD_DELAY, message);
    load(py, launch, setting)
}

fn find_and_load<'py>(
    py: Python<'py>,
    launch: &Launch,
    setting: &ServerSettings,
) -> Result<LoadedApplication<'py>, Refusal> {
    let log = Log::new(&launch.request.id, &launch.request.line);
    let begun = Instant::now();
    if launch.app.is_paste() {
        let name = launch.app.callable.clone().unwrap_or_else(|| "main".to_owned());
        let application =
            end_if_child(py, &log, paste::load(py, &launch.app, &name)).map_err(|error| {
                match paste::is_missing(py, &error) {
                    true => paste::missing(&launch.app).into(),
                    false => failed_import(py, launch, setting, &error, begun.elapsed()),
                }
            })?;
        return Ok(LoadedApplication { application, name });
    }
    let imported = end_if_child(py, &log, import(py, &launch.app.source));
    let module =
        imported.map_err(|error| failed_import(py, launch, setting, &error, begun.elapsed()))?;
    let (mut application, name) = find(&module, launch)?;
    if launch.app.factory.is_none()
        && let Some(mismatch) = advice::mismatch(&application)
    {
        return Err(LogMessage::new(
            Code::NoCallable,
            format!("`{name}` in `{}` {}", launch.app, mismatch.sentence()),
        )
        .hint(mismatch.hint(&module_of(launch), &name))
        .into());
    }
    if let Some(arguments) = &launch.app.factory {
        let (positional, named) = literals(py, arguments)
            .map_err(|error| Refusal::from(no_literals(&name, arguments, error.value(py))))?;
        let called = application.call(positional, Some(&named));
        application = end_if_child(py, &log, called).map_err(|error| {
            // No code of the function has run.
            if error.is_instance_of::<PyTypeError>(py) && error.traceback(py).is_none() {
                let module = module_of(launch);
                let sentence = format!("`{name}` in `{module}` is not a factory: {error}");
                return LogMessage::new(Code::NoCallable, sentence)
                    .hint(advice::no_factory_hint(&application, &module, &name))
                    .into();
            }
            failed_import(py, launch, setting, &error, begun.elapsed())
        })?;
    }
    if !application.is_callable() {
        return Err(LogMessage::new(
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
    Ok(LoadedApplication { application, name })
}

/// Imports the module.
fn import<'py>(py: Python<'py>, source: &Source) -> PyResult<Bound<'py, PyAny>> {
    let path = match source {
        Source::Module(name) => {
            return py
                .import(name.as_str())
                .map(Bound::into_any)
                .or_else(|error| attribute(py, name, &error).ok_or(error));
        }
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
            // Python would cache `site.wsgi` as `site.py`, and each would replace the other's code.
            let source = loader.call_method1("get_data", (path,))?.cast_into::<PyBytes>()?;
            let text = CString::new(source.as_bytes()).map_err(|_| {
                PySyntaxError::new_err("source code string cannot contain null bytes")
            })?;
            let code = python_api::compile(py, &text, &CString::new(path.as_bytes())?)?;
            py.import("builtins")?.call_method1("exec", (code, module.getattr("__dict__")?))?;
        }
        Ok(())
    };
    run().inspect_err(|_| {
        // The import statement also removes a module that failed. The module may have removed
        // itself.
        let _ = modules.del_item(&name);
    })?;
    Ok(module)
}

/// The object that `package.module.attribute` names, if `error` is that there is no such module.
fn attribute<'py>(py: Python<'py>, name: &str, error: &PyErr) -> Option<Bound<'py, PyAny>> {
    let missing = error.value(py).getattr("name").ok()?.extract::<String>().ok()?;
    let (module, attribute) = name.rsplit_once('.').filter(|_| missing == name)?;
    py.import(module).ok()?.getattr(attribute).ok()
}

/// Is there a module with this name?
fn is_imported(py: Python<'_>, name: &str) -> bool {
    let modules = py.import("sys").and_then(|sys| sys.getattr("modules"));
    modules.and_then(|modules| modules.contains(name)).unwrap_or(true)
}

/// The name of the module of the file at `path`. A `.py` file keeps its name, so that modules which
/// import it get the same module. A script gets a name that hides no package: `flask.wsgi` imports
/// `flask`.
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
) -> Result<(Bound<'py, PyAny>, String), Refusal> {
    if let (Source::Module(name), None) = (&launch.app.source, &launch.app.callable)
        && !is_imported(module.py(), name)
    {
        // `package.module.attribute` is the application itself.
        let attribute = name.rsplit('.').next().unwrap_or_default();
        return Ok((module.clone(), attribute.to_owned()));
    }
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
    let near =
        launch.app.callable.as_deref().and_then(|name| nearest(module.py(), name, &callables));
    let names = asked.join("` or `");
    Err(LogMessage::new(Code::NoCallable, format!("there is no `{names}` in `{}`", launch.app))
        .detail(format!("found there: {there}"))
        .hint(match callables.iter().find(|name| FACTORY_NAMES.contains(&name.as_str())) {
            Some(factory) => Mismatch::Factory.hint(&module_of(launch), factory),
            None if near.is_some() => {
                format!("did you mean `{}:{}`?", module_of(launch), near.unwrap_or_default())
            }
            None if launch.app.callable.is_some() => {
                "name one of them after a colon, as in `app.wsgi:NAME`".to_owned()
            }
            None => {
                "name the WSGI callable `application` in the file: `application = …`".to_owned()
            }
        })
        .into())
}

/// The name in `names` that is most like `name`.
fn nearest(py: Python<'_>, name: &str, names: &[String]) -> Option<String> {
    let near = py.import("difflib").ok()?.call_method1("get_close_matches", (name, names, 1));
    near.ok()?.extract::<Vec<String>>().ok()?.pop()
}

/// Positional and named arguments in `text`, which are literals (`ast.literal_eval`): no code runs.
fn literals<'py>(
    py: Python<'py>,
    text: &str,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let named = PyDict::new(py);
    if text.trim().is_empty() {
        return Ok((PyTuple::empty(py), named));
    }
    let ast = py.import("ast")?;
    let call = ast.call_method1("parse", (format!("f({text})"), "APP", "eval"))?.getattr("body")?;
    let is_call = call.is_instance(&ast.getattr("Call")?)?
        && call.getattr("func")?.is_instance(&ast.getattr("Name")?)?;
    if !is_call {
        return Err(PyValueError::new_err("these are no arguments of one call"));
    }
    let value = |node: Bound<'py, PyAny>| {
        ast.call_method1("literal_eval", (&node,)).map_err(|error| {
            // Python names the class of the node, not what the person has written.
            match ast.call_method1("unparse", (node,)) {
                Ok(code) if error.is_instance_of::<PyValueError>(py) => {
                    PyValueError::new_err(format!("`{code}` is not a literal"))
                }
                _ => error,
            }
        })
    };
    let mut positional = Vec::new();
    for node in call.getattr("args")?.try_iter()? {
        positional.push(value(node?)?);
    }
    for keyword in call.getattr("keywords")?.try_iter()? {
        let keyword = keyword?;
        if keyword.getattr("arg")?.is_none() {
            return Err(PyValueError::new_err("`**` is not the name of an argument"));
        }
        named.set_item(keyword.getattr("arg")?, value(keyword.getattr("value")?)?)?;
    }
    Ok((PyTuple::new(py, positional)?, named))
}

/// The log message about arguments of a factory that are no literals.
fn no_literals(name: &str, arguments: &str, error: &impl std::fmt::Display) -> LogMessage {
    LogMessage::new(
        Code::BadSetting,
        format!("`({arguments})` after `{name}` are not literals of Python: {error}"),
    )
    .hint(
        "write strings in quotes, numbers, True, False, None, lists or dicts, as in \
         `create_app(\"prod\", debug=True)`",
    )
}

/// The application as a person names it, without its callable.
fn module_of(launch: &Launch) -> String {
    App { callable: None, factory: None, ..launch.app.clone() }.to_string()
}

/// The names of public callables in a module.
fn callables(module: &Bound<'_, PyAny>) -> Vec<String> {
    let names = || -> PyResult<Vec<String>> {
        let mut names = Vec::new();
        for item in module.getattr("__dict__")?.call_method0("items")?.try_iter()? {
            let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
            if !name.starts_with('_') && value.is_callable() && names.len() < MAX_NAMES_SHOWN {
                names.push(name);
            }
        }
        Ok(names)
    };
    names().unwrap_or_default()
}
