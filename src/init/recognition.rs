//! Recognises applications by their files: Flask, Django, `wsgi.py`, `passenger_wsgi.py`,
//! PasteDeploy. Nothing of the application is run.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use wire::app::Source;

use crate::{
    config::settings::application,
    exit::CommandError,
    init::{
        check_name, literals,
        python_text::{
            Callable, callable_in, is_module, is_name, literal, may_define, settings_module,
            string_setting,
        },
    },
};

/// Files that may hold an application, the first first.
const FILES: [&str; 6] =
    ["wsgi.py", "passenger_wsgi.py", "app.py", "main.py", "application.py", "server.py"];

/// The directory of a project that may have its packages.
const SOURCE: &str = "src";

/// How much of a file is looked at.
const MAX_BYTES: u64 = 1 << 20;

/// A sample for a virtualenv without Flask.
const SAMPLE: &str = "\
def application(environ, start_response):
    start_response(\"200 OK\", [(\"Content-Type\", \"text/plain; charset=utf-8\")])
    return [b\"Hello from WSGI\\n\"]
";

/// A sample for a virtualenv with Flask.
const FLASK_SAMPLE: &str = "\
from flask import Flask

app = Flask(__name__)


@app.route(\"/\")
def hello():
    return \"Hello from Flask\\n\"
";

/// An application, and how a script gets hold of it.
#[derive(Debug)]
pub(super) struct FoundApp {
    /// What was found, for a person.
    pub(super) what: String,
    /// The directory that modules are imported from, and that the application runs in.
    pub(super) directory: PathBuf,
    /// The file that was found.
    pub(super) file: PathBuf,
    /// Python code that defines `application`.
    pub(super) code: String,
    /// The content of the file, if it has to be written.
    pub(super) sample: Option<String>,
    /// What a person should know.
    pub(super) note: Option<String>,
}

impl FoundApp {
    /// The application that `--app` names.
    ///
    /// # Errors
    /// If there is no such application.
    pub(super) fn named(app: &str) -> Result<Self, CommandError> {
        let missing = |sentence: String| {
            CommandError::usage(
                LogMessage::new(Code::BadSetting, sentence)
                    .hint("--app takes a file, a directory, FILE:NAME, MODULE:NAME, or FILE.ini"),
            )
        };
        if Path::new(app).is_dir() {
            let directory = fs::canonicalize(app).map_err(|error| missing(error.to_string()))?;
            return Self::in_directory(&directory, Path::new("")).ok_or_else(|| {
                missing(format!("no application was recognised in `{}`", directory.display()))
            });
        }
        let (file, name) = app.split_once('#').unwrap_or((app, ""));
        if file.ends_with(".ini") {
            let file = fs::canonicalize(file)
                .map_err(|error| missing(format!("`{file}` cannot be opened: {error}")))?;
            return Self::of_paste(&file, name).ok_or_else(|| {
                missing(format!("`{}` describes no application of PasteDeploy", file.display()))
            });
        }
        let (parsed, base) = application(app)?;
        let callable = parsed.callable.map(|name| Callable { name, arguments: parsed.factory });
        match parsed.source {
            Source::File(path) => {
                let path = base.join(OsStr::from_bytes(&path));
                let file = fs::canonicalize(&path).map_err(|error| {
                    missing(format!("`{}` cannot be opened: {error}", path.display()))
                })?;
                let text = read(&file);
                check_callable(&file, &text, callable.as_ref())?;
                let callable = callable.or_else(|| callable_in(&text));
                let callable = callable.ok_or_else(|| {
                    missing(format!(
                        "`{}` seems to define no application; name it: --app {app}:NAME",
                        file.display()
                    ))
                })?;
                check_name(&file).map_err(CommandError::settings)?;
                literals::check(&callable, file.parent().unwrap_or(&base))?;
                Ok(Self::in_file(&file, callable))
            }
            Source::Module(module) => {
                let mut directory = fs::canonicalize(&base).unwrap_or(base);
                let source = directory.join(SOURCE);
                if file_of(&directory, &module).is_none() && file_of(&source, &module).is_some() {
                    directory = source;
                }
                let file = file_of(&directory, &module);
                let text = file.as_deref().map(read).unwrap_or_default();
                if let Some(file) = &file {
                    check_callable(file, &text, callable.as_ref())?;
                }
                let callable = callable.or_else(|| callable_in(&text)).ok_or_else(|| {
                    missing(match &file {
                        Some(file) => format!(
                            "`{}` seems to define no application; name it: --app {module}:NAME",
                            file.display()
                        ),
                        None => format!(
                            "there is no file, directory or module `{module}` here; for a module \
                             of the virtualenv, write {module}:NAME"
                        ),
                    })
                })?;
                literals::check(&callable, &directory)?;
                let note = file.is_none().then(|| {
                    format!(
                        "the module `{module}` is not in `{}`: unless it is installed in the \
                         virtualenv, run `wsgate init` in the directory that has it",
                        directory.display()
                    )
                });
                Ok(Self {
                    what: format!("`{module}:{}{}`", callable.name, callable.call()),
                    code: imported(&module, &callable),
                    file: file.unwrap_or_else(|| PathBuf::from(&module)),
                    directory,
                    sample: None,
                    note,
                })
            }
        }
    }

    /// The application in the files of `directory`; `script` is none.
    pub(super) fn in_directory(directory: &Path, script: &Path) -> Option<Self> {
        check_name(directory).ok()?;
        Self::of_django(directory)
            .or_else(|| {
                FILES.iter().map(|name| directory.join(name)).find_map(|file| {
                    let text = read(&file);
                    // Such a file replaces the process by another Python.
                    let is_usable = !text.contains("os.exec") && file != script;
                    callable_in(&text)
                        .filter(|_| is_usable)
                        .map(|found| Self::in_file(&file, found))
                })
            })
            .or_else(|| Self::of_package(directory))
            .or_else(|| Self::of_package(&directory.join(SOURCE)))
            .or_else(|| {
                let found = entries(directory)
                    .into_iter()
                    .filter(|path| path.extension().is_some_and(|extension| extension == "ini"));
                let mut found: Vec<Self> =
                    found.filter_map(|path| Self::of_paste(&path, "")).collect();
                // `development.ini` has a debugger.
                found.sort_by_key(|one| !one.file.ends_with("production.ini"));
                let is_clear = found.len() == 1
                    || found.first().is_some_and(|one| one.file.ends_with("production.ini"));
                found.into_iter().next().filter(|_| is_clear)
            })
    }

    /// A sample in the new file `file`. `venv` is the virtualenv that it runs in.
    pub(super) fn sample(file: &Path, venv: &Option<PathBuf>) -> Self {
        let has_flask = venv.as_ref().is_some_and(|venv| {
            entries(&venv.join("lib"))
                .iter()
                .any(|python| python.join("site-packages/flask/__init__.py").is_file())
        });
        let sample = if has_flask { FLASK_SAMPLE } else { SAMPLE };
        let name = if has_flask { "app" } else { "application" };
        let callable = Callable::application(name);
        Self {
            what: format!("no application; `{}` is a sample to begin with", file.display()),
            sample: Some(sample.to_owned()),
            ..Self::in_file(file, callable)
        }
    }

    /// The object `callable` in `file`.
    fn in_file(file: &Path, callable: Callable) -> Self {
        let text = read(file);
        let kind = if text.contains("Flask(") { "a Flask application" } else { "an application" };
        let what = format!("{kind}, `{}` in `{}`", callable.name, file.display());
        let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let mut directory = file.parent().unwrap_or(Path::new("/")).to_owned();
        let is_python = file.extension().is_some_and(|extension| extension == "py");
        let mut module = stem.to_owned();
        if is_python && is_name(stem) {
            // A module of a package is imported from above the package.
            while directory.join("__init__.py").is_file() {
                let package = directory.file_name().unwrap_or_default().to_string_lossy();
                module = if module == "__init__" {
                    package.into()
                } else {
                    format!("{package}.{module}")
                };
                if !directory.pop() {
                    break;
                }
            }
        }
        let code = if is_python && is_name(stem) && is_module(&module) {
            imported(&module, &callable)
        } else {
            // The name of the file is none of a module.
            let file = literal(&file.to_string_lossy());
            let (first, rest) = callable.parts();
            let call = callable.call();
            format!(
                "import runpy\n\napplication = runpy.run_path({file})[{}]{rest}{call}\n",
                literal(first)
            )
        };
        Self { what, directory, file: file.to_owned(), code, sample: None, note: None }
    }

    /// The package in `directory` that has an application, if there is only one.
    fn of_package(directory: &Path) -> Option<Self> {
        let files = entries(directory).into_iter().map(|path| path.join("__init__.py"));
        let mut found =
            files.filter_map(|file| callable_in(&read(&file)).map(|it| Self::in_file(&file, it)));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// The project of Django in `directory`.
    fn of_django(directory: &Path) -> Option<Self> {
        let manage = directory.join("manage.py");
        let text = read(&manage);
        let settings = settings_module(&text)?;
        let settings_text =
            file_of(directory, settings).map(|file| read(&file)).unwrap_or_default();
        let in_settings = string_setting(&settings_text, "WSGI_APPLICATION")
            .and_then(|path| path.rsplit_once('.'))
            .map(|(module, name)| (module.to_owned(), name.to_owned()));
        let package = settings.split('.').next().unwrap_or_default();
        let beside = (format!("{package}.wsgi"), "application".to_owned());
        let found = in_settings
            .into_iter()
            .chain([beside])
            .find(|(module, _)| file_of(directory, module).is_some());
        let code = match found {
            Some((module, name)) => imported(&module, &Callable::application(&name)),
            None => format!(
                "import os\n\nfrom django.core.wsgi import get_wsgi_application\n\n\
                 os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", {})\n\
                 application = get_wsgi_application()\n",
                literal(settings)
            ),
        };
        Some(Self {
            what: format!("a Django project, `{}` with `{settings}`", manage.display()),
            directory: directory.to_owned(),
            file: manage,
            code,
            sample: None,
            note: Some(
                "clients get static files from the directory `static` beside the script: set \
                 STATIC_ROOT to that, and run `manage.py collectstatic`"
                    .to_owned(),
            ),
        })
    }

    /// The application `name` that PasteDeploy makes from `file`.
    fn of_paste(file: &Path, name: &str) -> Option<Self> {
        let text = read(file);
        let has_app = text.lines().any(|line| {
            ["[app:", "[composite:", "[pipeline:", "[application:"]
                .iter()
                .any(|section| line.trim_start().starts_with(section))
        });
        let path = file.to_str().filter(|_| has_app)?;
        // PasteDeploy reads the path as a URL.
        let path = path.replace('%', "%25").replace('#', "%23");
        let fragment = if name.is_empty() { String::new() } else { format!("#{name}") };
        Some(Self {
            what: format!("an application of PasteDeploy, `{}`", file.display()),
            directory: file.parent()?.to_owned(),
            file: file.to_owned(),
            code: format!(
                "from paste.deploy import loadapp\n\napplication = loadapp({})\n",
                literal(&format!("config:{path}{fragment}"))
            ),
            sample: None,
            note: None,
        })
    }
}

/// Checks that `text`, the content of `file`, defines `callable`, as far as text can show that.
///
/// # Errors
/// If the name does not occur.
fn check_callable(
    file: &Path,
    text: &str,
    callable: Option<&Callable>,
) -> Result<(), CommandError> {
    let Some(name) = callable.and_then(|callable| callable.name.split('.').next()) else {
        return Ok(());
    };
    if may_define(text, name) {
        return Ok(());
    }
    let other = callable_in(text).map_or_else(
        || "name an object of the file with --app FILE:NAME".to_owned(),
        |found| format!("the file defines `{}`", found.name),
    );
    let sentence = format!("`{}` does not define `{name}`", file.display());
    Err(CommandError::usage(LogMessage::new(Code::BadSetting, sentence).hint(other)))
}

/// Python code that imports `callable` from `module` as `application`.
fn imported(module: &str, callable: &Callable) -> String {
    let Callable { name, arguments } = callable;
    let call = callable.call();
    if !is_module(module) {
        // An import statement cannot name a module such as `class`.
        let module = literal(module);
        return format!(
            "import importlib\n\napplication = importlib.import_module({module}).{name}{call}\n"
        );
    }
    // An attribute of an attribute cannot be imported.
    let (first, rest) = callable.parts();
    if arguments.is_some() || !rest.is_empty() {
        return format!("from {module} import {first}\n\napplication = {name}{call}\n");
    }
    let rename = if name == "application" { "" } else { " as application" };
    format!("from {module} import {name}{rename}\n")
}

/// The file of `module` below `directory`.
fn file_of(directory: &Path, module: &str) -> Option<PathBuf> {
    let path = directory.join(module.replace('.', "/"));
    let files = [path.with_extension("py"), path.join("__init__.py")];
    files.into_iter().find(|file| file.is_file())
}

/// The text of a regular file; empty if it cannot be read.
fn read(file: &Path) -> String {
    let mut bytes = Vec::new();
    if file.is_file()
        && let Ok(file) = File::open(file)
    {
        // What was read until an error is looked at.
        let _ = file.take(MAX_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The paths in `directory`, in the order of their names.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
