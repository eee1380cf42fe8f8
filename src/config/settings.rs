//! Settings of a run, resolved from options, the script and the environment. Every default is
//! defined here or at the option itself.

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
    offload::Offload,
    path_timeouts::{self, PathTimeout},
    trusted_proxies::TrustedProxies,
};

use crate::{
    config::{
        env_file,
        options::{FastcgiOptions, LoggingOptions, ScriptOptions, WorkerLimits, app::program_at},
        unreadable_script,
    },
    exit::CommandError,
    python::{
        engine::Engine,
        interpreter::{
            Interpreter, InterpreterSearch, {self},
        },
    },
    system::runtime_directory,
};

/// The timeout of a warm-up request if requests have no timeout.
const DEFAULT_WARM_UP_TIMEOUT_SECS: u64 = 30;

/// The timeout of commands at a terminal if requests have no timeout, because a person waits for
/// the result.
pub(crate) const INTERACTIVE_TIMEOUT_SECS: u64 = 30;

/// Maximum length of a pool name that is taken from the application, in characters.
const MAX_POOL_NAME_CHARS: usize = 40;

/// The settings that are known before python is started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The application; the path of a file is absolute.
    pub(crate) app: App,
    /// The interpreter of the application.
    pub(crate) interpreter: Interpreter,
    /// The engine that the interpreter loads.
    pub(crate) engine: Engine,
    /// The directory that python is started in.
    pub(crate) working_directory: PathBuf,
    /// The first entries of `sys.path`.
    pub(crate) sys_path: Vec<PathBuf>,
    /// Does the process get only the most necessary variables of this process?
    pub(crate) clears_environment: bool,
    /// Environment variables of the process, in addition to those of the request.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// The files that some of these variables come from.
    pub(crate) env_files: Vec<PathBuf>,
    /// The directory of `.pyc` files, if they are not beside their sources.
    pub(crate) pycache_prefix: Option<PathBuf>,
    /// The file of log messages, if they do not go to standard error.
    pub(crate) error_log: Option<PathBuf>,
    /// The options of the log; `error_log` has the absolute path.
    pub(crate) logging: LoggingOptions,
    /// Do error pages show tracebacks?
    pub(crate) debug: bool,
    /// The timeout of a request.
    pub(crate) timeout: Option<Duration>,
    /// The timeouts of requests for some paths.
    pub(crate) path_timeouts: Vec<PathTimeout>,
    /// The timeout until the response begins, if it differs from that of a request.
    pub(crate) response_timeout: Option<Duration>,
    /// The timeout of loading the application, if it differs from that of a request.
    pub(crate) load_timeout: Option<Duration>,
    /// The request that the application serves before workers are forked.
    pub(crate) warm_up: Option<WarmUp>,
    /// Function to call in each process that is forked with the application loaded.
    pub(crate) after_fork: Option<String>,
    /// The URL path of the application, if the web server does not set it.
    pub(crate) script_name: Option<String>,
    /// The proxies that say where a request came from.
    pub(crate) proxies: TrustedProxies,
    /// The files that the web server sends in place of the application.
    pub(crate) offload: Option<Offload>,
    /// The limits after which a worker is replaced.
    pub(crate) limits: WorkerLimits,
    /// The options of FastCGI workers; their paths are absolute.
    pub(crate) fastcgi: FastcgiOptions,
}

impl Settings {
    /// Resolves `options` for `app`. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// The log message about the setting that cannot be used.
    pub(crate) fn resolve(
        options: &ScriptOptions,
        app: App,
        base: &Path,
    ) -> Result<Self, LogMessage> {
        Self::resolve_with(options, app, base, &InterpreterSearch::of_this_process(), Engine::find)
    }

    /// Resolves `options` as [`Settings::resolve`] does, with the interpreter that `search` finds,
    /// and the engine that `engine` finds.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub(crate) fn resolve_with(
        options: &ScriptOptions,
        app: App,
        base: &Path,
        search: &InterpreterSearch,
        engine: impl FnOnce() -> Result<Engine, LogMessage>,
    ) -> Result<Self, LogMessage> {
        let app = match &options.app.callable {
            Some(callable) => app.with_callable(callable).map_err(|bad| {
                LogMessage::new(Code::BadSetting, format!("--callable is wrong: {bad}"))
                    .hint("give a name or the call of a factory, such as `create_app()`")
            })?,
            None => app,
        };
        let app = match app.source {
            Source::File(path) => {
                let path = base.join(OsStr::from_bytes(&path));
                readable_file(&path)?;
                App { source: Source::File(path.into_os_string().into_vec()), ..app }
            }
            Source::Module(_) => app,
        };
        let chdir = options.app.chdir.as_ref().map(|directory| base.join(directory));
        let homes = match &app.source {
            Source::File(path) => homes_of(Path::new(OsStr::from_bytes(path))),
            Source::Module(_) => vec![chdir.clone().unwrap_or_else(|| base.to_owned())],
        };
        let home = homes.first().cloned().unwrap_or_else(|| base.to_owned());
        let working_directory = chdir.unwrap_or_else(|| home.clone());
        if !working_directory.is_dir() {
            return Err(LogMessage::new(
                Code::BadSetting,
                format!(
                    "the directory `{}` for --chdir cannot be entered",
                    working_directory.display()
                ),
            )
            .hint("name a directory that exists and that this user may enter"));
        }
        let interpreter = interpreter::find(
            options.app.python.as_ref().map(|program| program_at(base, program)).as_deref(),
            options.app.venv.as_ref().map(|directory| base.join(directory)).as_deref(),
            &homes,
            &owners_of(&app, &homes),
            search,
        )?;
        let timeout = options.request.timeout.filter(|&seconds| seconds > 0);
        let env_files: Vec<PathBuf> =
            options.app.env_file.iter().map(|file| base.join(file)).collect();
        let mut variables = Vec::new();
        for file in &env_files {
            variables.extend(env_file::read(file)?);
        }
        variables.extend(options.app.env.iter().cloned());
        Ok(Self {
            app,
            interpreter,
            engine: engine()?,
            working_directory,
            sys_path: homes
                .into_iter()
                .chain(options.app.path.iter().map(|directory| base.join(directory)))
                .collect(),
            clears_environment: false,
            variables,
            env_files,
            pycache_prefix: pycache_prefix(&home),
            error_log: options.logging.in_directory(base),
            logging: options.logging.clone(),
            debug: options.error_pages.debug,
            timeout: timeout.map(Duration::from_secs),
            path_timeouts: options.path_timeouts.timeout_for.clone(),
            response_timeout: None,
            load_timeout: None,
            after_fork: options.forks.after_fork.clone(),
            warm_up: options.forks.warm_up.clone().map(|target| WarmUp {
                target,
                seconds: timeout.unwrap_or(DEFAULT_WARM_UP_TIMEOUT_SECS),
            }),
            script_name: options.request.script_name.clone(),
            proxies: options.trust.proxies(),
            offload: options.sendfile.offload()?,
            limits: options.limits,
            fastcgi: options.fastcgi.in_directory(base),
        })
    }

    /// The shortest timeout that a request can have.
    pub(crate) fn shortest_timeout(&self) -> Option<Duration> {
        let default = self.timeout.map_or(0, |timeout| timeout.as_secs());
        let shortest = path_timeouts::shortest(default, &self.path_timeouts);
        (shortest > 0).then(|| Duration::from_secs(shortest))
    }
}

/// The application that the argument APP names, and the directory that relative paths are relative
/// to.
///
/// # Errors
/// If `app` names no application on any machine, or the working directory does not exist.
pub(crate) fn application(app: impl AsRef<OsStr>) -> Result<(App, PathBuf), CommandError> {
    let app = app.as_ref();
    let is_file = |name: &[u8]| {
        let path = Path::new(OsStr::from_bytes(name));
        match fs::metadata(path) {
            // The directory of a package, and not one such as `shop.wsgi`: the module of that name
            // would be in the directory `shop`.
            Ok(found) if found.is_dir() => {
                let first = name.split(|&byte| byte == b'.').next().unwrap_or_default();
                first.len() < name.len() && !Path::new(OsStr::from_bytes(first)).is_dir()
            }
            Ok(_) => true,
            Err(_) => path.is_symlink(),
        }
    };
    let app = App::parse(app.as_bytes(), is_file).map_err(|bad| {
        let sentence = format!("`{}` does not name an application: {bad}", app.display());
        CommandError::usage(LogMessage::new(Code::BadSetting, sentence).hint(
            "APP is path/to/file.wsgi[:callable], package.module[:callable], either with \
             :factory(arguments), or path/to/file.ini[#name]",
        ))
    })?;
    Ok((app, working_directory()?))
}

/// The directory that paths on the command line start at.
///
/// # Errors
/// If it was removed, or this user may not enter a directory above it.
pub(crate) fn working_directory() -> Result<PathBuf, CommandError> {
    env::current_dir().map_err(|error| {
        let sentence = format!("the working directory cannot be used: {error}");
        CommandError::settings(
            LogMessage::new(Code::BadSetting, sentence)
                .hint("start wsgate in a directory that exists"),
        )
    })
}

/// The name of a pool without `--name`: that of its configuration file, or of the file or module of
/// the application.
pub(crate) fn default_pool_name(config_file: Option<&Path>, app: &App) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = match (config_file, &app.source) {
        (Some(path), _) => stem(path),
        (None, Source::File(path)) => stem(Path::new(OsStr::from_bytes(path))),
        (None, Source::Module(name)) => name.clone(),
    };
    let plain = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' });
    plain.take(MAX_POOL_NAME_CHARS).collect()
}

/// The directories in which a file's modules and virtualenv may be: that of the file, and that of
/// the file it links to, which Python itself would use.
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

/// The users who own the script or a directory of it. These users could change the script, so their
/// files in these directories are as trusted as the script.
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
        Err(LogMessage::new(Code::UnreadableScript, sentence).hint(hint))
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => unreadable(
            format!("`{shown}` is a directory, not a WSGI file"),
            "name the file in it that defines `application`",
        ),
        Ok(found) if !found.is_file() => unreadable(
            format!("`{shown}` is not a regular file"),
            "name a Python file that defines `application`",
        ),
        Ok(_) => access(path, Access::READ_OK)
            .map_err(|error| unreadable_script::unreadable(path, &error.into())),
        Err(error) => Err(unreadable_script::unreadable(path, &error)),
    }
}

/// The directory of `.pyc` files, if this user cannot write them beside the sources in `home`:
/// without `.pyc` files each request compiles the application again.
fn pycache_prefix(home: &Path) -> Option<PathBuf> {
    if env::var_os("PYTHONPYCACHEPREFIX").is_some() {
        return None;
    }
    let beside = home.join("__pycache__");
    let directory = if beside.exists() { &beside } else { home };
    if access(directory, Access::WRITE_OK).is_ok() {
        return None;
    }
    // Without a runtime directory, requests are served without a cache.
    runtime_directory::open().ok().map(|directory| directory.join("pycache"))
}
