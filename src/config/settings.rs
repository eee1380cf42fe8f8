//! Options, the script and the environment, resolved to what a run needs. Every default stands here
//! or on the option itself.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use rustix::fs::{Access, access};
use wire::{
    app::{App, Source},
    launch::WarmUp,
};

use crate::{
    config::options::{Changes, Connections, Limits, Options},
    python::{
        engine::Engine,
        interpreter::{
            Interpreter, {self},
        },
    },
    system::runtime_directory,
};

/// Longest time that is counted, in seconds: clocks end somewhere.
const LONGEST: u64 = u32::MAX as u64;

/// Seconds that a warm-up request may take where requests have no limit.
const WARM_UP: u64 = 30;

/// Seconds after which whoever waits at a terminal hears why nothing comes, where requests have no
/// limit.
pub(crate) const AT_A_TERMINAL: u64 = 30;

/// All that is known before python is started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The application; the path of a file is absolute.
    pub(crate) app: App,
    /// Its interpreter.
    pub(crate) interpreter: Interpreter,
    /// The engine for it.
    pub(crate) engine: Engine,
    /// Where python is started.
    pub(crate) working_directory: PathBuf,
    /// What goes to the front of `sys.path`.
    pub(crate) sys_path: Vec<PathBuf>,
    /// Variables for the process, beside those of the request.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Where `.pyc` files go, if not beside their sources.
    pub(crate) pycache_prefix: Option<PathBuf>,
    /// May the client see tracebacks?
    pub(crate) debug: bool,
    /// How long a request may take.
    pub(crate) timeout: Option<Duration>,
    /// How long loading the application may take, if not as long as a request.
    pub(crate) load_timeout: Option<Duration>,
    /// What the application answers before anything is forked from the process that has loaded it.
    pub(crate) warm_up: Option<WarmUp>,
    /// Where the application is mounted, if the web server does not say so.
    pub(crate) script_name: Option<String>,
    /// Which changes of files make processes load the code again, by the `#!` line.
    pub(crate) changes: Changes,
    /// How long a worker lives that serves one request after the other.
    pub(crate) limits: Limits,
    /// What a FastCGI worker grants its connections.
    pub(crate) connections: Connections,
    /// Seconds after which a FastCGI worker logs a request with its stacks, by the `#!` line.
    pub(crate) slow: Option<u64>,
}

impl Settings {
    /// Resolves `options` for `app`. Relative paths are taken from `base`.
    ///
    /// # Errors
    /// The log message that says what cannot be used.
    pub(crate) fn resolve(options: &Options, app: App, base: &Path) -> Result<Self, LogMessage> {
        Self::resolve_with(options, app, base, Engine::find)
    }

    /// The same with an `engine` that may be known already.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub(crate) fn resolve_with(
        options: &Options,
        app: App,
        base: &Path,
        engine: impl FnOnce() -> Result<Engine, LogMessage>,
    ) -> Result<Self, LogMessage> {
        let app = match app.source {
            Source::File(path) => {
                let path = base.join(OsStr::from_bytes(&path));
                readable_file(&path)?;
                App { source: Source::File(path.into_os_string().into_vec()), ..app }
            }
            Source::Module(_) => app,
        };
        let chdir = options.chdir.as_ref().map(|directory| base.join(directory));
        let homes = match &app.source {
            Source::File(path) => homes_of(Path::new(OsStr::from_bytes(path))),
            Source::Module(_) => vec![chdir.clone().unwrap_or_else(|| base.to_owned())],
        };
        let home = homes.first().cloned().unwrap_or_else(|| base.to_owned());
        let working_directory = chdir.unwrap_or_else(|| home.clone());
        if !working_directory.is_dir() {
            return Err(LogMessage::error(
                Code::BadSetting,
                format!(
                    "the directory `{}` for --chdir cannot be entered",
                    working_directory.display()
                ),
            )
            .hint("name a directory that exists and that this user may enter"));
        }
        let interpreter = interpreter::find(
            options.python.as_ref().map(|program| at(base, program)).as_deref(),
            options.venv.as_ref().map(|directory| base.join(directory)).as_deref(),
            &homes,
            &owners_of(&app, &homes),
        )?;
        Ok(Self {
            app,
            interpreter,
            engine: engine()?,
            working_directory,
            sys_path: homes
                .into_iter()
                .chain(options.path.iter().map(|directory| base.join(directory)))
                .collect(),
            variables: options.env.clone(),
            pycache_prefix: pycache_prefix(&home),
            debug: options.debug,
            timeout: options
                .timeout
                .filter(|&seconds| seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.min(LONGEST))),
            load_timeout: None,
            warm_up: options.warm_up.clone().map(|target| WarmUp {
                target,
                seconds: options.timeout.filter(|&seconds| seconds > 0).unwrap_or(WARM_UP),
            }),
            script_name: options.script_name.clone(),
            changes: Changes {
                reload_on: options.changes.reload_on.iter().map(|path| base.join(path)).collect(),
                reload: options.changes.reload,
            },
            limits: options.limits,
            connections: options.connections,
            slow: options.slow,
        })
    }
}

/// The application that a word of the command line names, and the directory that relative paths are
/// taken from.
///
/// # Errors
/// The log message, if it names none.
pub(crate) fn application(word: &str) -> Result<(App, PathBuf), LogMessage> {
    let app =
        App::parse(word, |name| fs::metadata(name).is_ok_and(|found| !found.is_dir())).map_err(
            |bad| {
                LogMessage::error(Code::BadSetting, format!("`{word}` names no application: \
                {bad}")).hint(
                "APP is path/to/file.wsgi[:callable], package.module[:callable], or either with \
                 :factory()",
            )
            },
        )?;
    let base = env::current_dir().map_err(|error| {
        LogMessage::error(
            Code::BadSetting,
            format!("the working directory cannot be used: {error}"),
        )
        .hint("start from a directory that exists")
    })?;
    Ok((app, base))
}

/// A path from `base` on; a bare name stays one, since a program of that name is looked for on
/// `PATH`.
pub(crate) fn at(base: &Path, program: &Path) -> PathBuf {
    if program.components().count() == 1 { program.to_owned() } else { base.join(program) }
}

/// The directories that a file's own modules and virtualenv may stand in: its own, and that of the
/// file it links to, which is the one that Python itself would use.
fn homes_of(file: &Path) -> Vec<PathBuf> {
    let directory = |path: &Path| path.parent().map(Path::to_owned);
    let mut homes: Vec<PathBuf> =
        [fs::canonicalize(file).ok().as_deref().and_then(directory), directory(file)]
            .into_iter()
            .flatten()
            .collect();
    homes.dedup();
    homes
}

/// Users who own the script, or a directory that it stands in: what they put there is as good as
/// the script.
fn owners_of(app: &App, homes: &[PathBuf]) -> Vec<u32> {
    let script = match &app.source {
        Source::File(path) => Some(Path::new(OsStr::from_bytes(path))),
        Source::Module(_) => None,
    };
    script
        .into_iter()
        .chain(homes.iter().map(PathBuf::as_path))
        .filter_map(|path| Some(fs::metadata(path).ok()?.uid()))
        .collect()
}

fn readable_file(path: &Path) -> Result<(), LogMessage> {
    let shown = path.display();
    let unreadable = |sentence: String, hint: &str| {
        Err(LogMessage::error(Code::UnreadableScript, sentence).hint(hint))
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => unreadable(
            format!("`{shown}` is a directory, not a WSGI file"),
            "name the file in it that defines `application`",
        ),
        Ok(found) if !found.is_file() => unreadable(
            format!("`{shown}` is no regular file"),
            "name a Python file that defines `application`",
        ),
        Ok(_) if access(path, Access::READ_OK).is_err() => unreadable(
            format!("`{shown}` cannot be read by the user that the request runs as"),
            "let that user read it: chmod a+r",
        ),
        Ok(_) => Ok(()),
        Err(error) => unreadable(
            format!("`{shown}` cannot be opened: {error}"),
            "look at the path, and at the permissions of every directory on the way to it",
        ),
    }
}

/// Where `.pyc` files go when this user cannot write them beside the sources in `home`: without
/// them an application is compiled again at each request.
fn pycache_prefix(home: &Path) -> Option<PathBuf> {
    if env::var_os("PYTHONPYCACHEPREFIX").is_some() {
        return None;
    }
    let beside = home.join("__pycache__");
    let place = if beside.exists() { &beside } else { home };
    if access(place, Access::WRITE_OK).is_ok() {
        return None;
    }
    // Without a directory of our own there is no cache, and requests are served all the same.
    runtime_directory::open().ok().map(|directory| directory.join("pycache"))
}
