//! What to do about a module that was not found.

use std::path::{Path, PathBuf};

use pyo3::{exceptions::PyModuleNotFoundError, prelude::*};
use wire::app::Source;

use crate::advice::{
    START, Start, distributions,
    own_modules::{almost, directory_of, source_directory_of},
    removed_modules::RemovedModule,
    running,
};

/// The name of the module that was not found, if `error` says that. Code that raises such an error
/// itself may give any text, or none.
pub(crate) fn name(py: Python<'_>, error: &PyErr) -> Option<String> {
    if !error.is_instance_of::<PyModuleNotFoundError>(py) {
        return None;
    }
    let name: String = error.value(py).getattr("name").and_then(|name| name.extract()).ok()?;
    let is_hostile = |character: char| character == '/' || character.is_control();
    let is_part = |part: &str| !part.is_empty() && !part.contains(is_hostile);
    name.split('.').all(is_part).then_some(name)
}

/// What to do about the module `name`, which was not found. No hint lets a person install a package
/// that somebody else may have given that name.
pub(crate) fn advice(py: Python<'_>, name: &str) -> String {
    let Some(start) = START.get() else {
        return "see `sys.path` with `wsgate check`".to_owned();
    };
    let (top, below) = name.split_once('.').map_or((name, None), |(top, rest)| (top, Some(rest)));
    if below.is_some()
        && let Some(file) = file_of(py, top)
    {
        return in_package(start, name, top, &file);
    }
    let own = directory_of(start, top).or_else(|| source_directory_of(start, top));
    if let Some(directory) = own {
        let option = match &start.source {
            Source::File(_) => "--path",
            Source::Module(_) => "--chdir",
        };
        return elsewhere(option, top, &directory);
    }
    let distribution = distributions::find(top);
    if let Some(file) = almost(start, top, distribution.is_some()) {
        return format!(
            "there is `{}`: correct the name in the import, or rename the file; upper and lower \
             case differ",
            file.display()
        );
    }
    if let Some(module) = RemovedModule::find(top, py.version_info().minor) {
        return module.advice();
    }
    installing(start, &running(py), top, distribution.as_deref())
}

/// What to do about the module `name` of the application itself, which was not found.
pub(crate) fn for_application(name: &str) -> String {
    let top = name.split('.').next().unwrap_or_default();
    let own = |start| directory_of(start, top).or_else(|| source_directory_of(start, top));
    match START.get().and_then(own) {
        Some(directory) => elsewhere("--chdir", top, &directory),
        None => "name a file by its path, or give the directory of the module with --chdir DIR"
            .to_owned(),
    }
}

/// What to do about `name`, which is in `directory` and needs `option`.
fn elsewhere(option: &str, name: &str, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "`{name}` is in `{directory}`, which is not on sys.path: add `{option} {directory}` to the \
         `#!` line or to the command"
    )
}

/// The file of the module `name`, if it is loaded.
fn file_of(py: Python<'_>, name: &str) -> Option<PathBuf> {
    let modules = py.import("sys").ok()?.getattr("modules").ok()?;
    let module = modules.get_item(name).ok()?;
    module.getattr("__file__").ok()?.extract().ok()
}

/// What to do about `name`, which the package `top` in `file` does not have.
fn in_package(start: &Start, name: &str, top: &str, file: &Path) -> String {
    let shown = file.display();
    let is_own = start.directories.iter().any(|directory| file.starts_with(directory));
    let is_plain = file.file_name().is_none_or(|name| name != "__init__.py");
    if is_own && is_plain {
        format!(
            "`{top}` is the file `{shown}`, which hides a package of that name and has no modules: \
             rename the file"
        )
    } else if is_own {
        format!("the package `{top}` in `{shown}` has no module `{name}`: correct the name")
    } else {
        format!(
            "the installed `{top}` in `{shown}` has no module `{name}`: install the version that \
             the application was written for, or correct the name"
        )
    }
}

/// How to install the distribution of the module `name`.
fn installing(start: &Start, running: &str, name: &str, distribution: Option<&str>) -> String {
    let python = match &start.venv {
        Some(venv) => {
            let directory = String::from_utf8_lossy(&venv.directory);
            if let Some(made_by) = venv.version.as_ref().filter(|made_by| *made_by != running) {
                return format!(
                    "the virtualenv `{directory}` was made by Python {made_by}, but its python is \
                     {running} now and does not see its packages; make it again"
                );
            }
            format!("{directory}/bin/python")
        }
        None => "DIR/bin/python".to_owned(),
    };
    let into = distribution.map(|distribution| format!("{python} -m pip install {distribution}"));
    let begin = match (&start.venv, &start.skipped_venv) {
        (Some(_), _) => String::new(),
        (None, Some(skipped)) => format!("{skipped}; "),
        (None, None) => "no virtualenv is in use (--venv DIR); ".to_owned(),
    };
    match into {
        Some(command) if start.venv.is_some() => format!("install it there: {command}"),
        Some(command) if start.skipped_venv.is_some() => {
            format!("{begin}then install it there: {command}")
        }
        Some(command) => format!(
            "no virtualenv is in use; name one with --venv DIR, or make one outside the \
             directories of the web server: python3 -m venv DIR && {command}"
        ),
        None => format!(
            "{begin}if `{name}` is a module of your own, add its directory with --path DIR; if it \
             comes from a package, the distribution may have another name: look it up before you \
             install it with {python} -m pip"
        ),
    }
}
