//! `wsgate serve`: opens the listening socket, and becomes `wsgate-http`, which speaks HTTP and
//! runs the application in a pool of its own.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    net::TcpListener,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use diagnostics::{
    log_style::LogFormat,
    message::{Code, LogMessage},
};
use wire::{app::Source, serve::ServeLaunch};

use crate::{
    config::settings::{application, working_directory},
    exit::CommandError,
    guard::start::log_settings,
    pool::{
        http_program,
        listen_error::{
            refused, {self},
        },
        serve_args::{ServeArgs, StaticDirectory},
    },
    system::{hosts, log_style},
};

/// The first port that is tried without `--port`.
const DEFAULT_PORT: u16 = 8000;

/// The name of a server in its log messages.
const LOG_NAME: &str = "serve";

/// How many ports are tried without `--port`.
const TRIED_PORTS: u16 = 100;

/// Seconds that requests of old code have to finish.
const DRAIN: &str = "5";

/// Becomes the development server. Returns only if that fails.
pub(crate) fn run(args: &ServeArgs) -> CommandError {
    match start(args) {
        Ok(error) | Err(error) => error,
    }
}

fn start(args: &ServeArgs) -> Result<CommandError, CommandError> {
    log_style::set_for_pool(LogFormat::Text, LOG_NAME.to_owned());
    let base = working_directory()?;
    let served = served(args, &base)?;
    let http = http_program::find()?;
    let program = env::current_exe().map_err(|error| {
        CommandError::settings(
            LogMessage::new(
                Code::NoHttpProgram,
                format!("the path of this program is unknown: {error}"),
            )
            .hint("mount /proc"),
        )
    })?;
    let (listener, taken_port) = listen(&args.serve.host, args.serve.port)?;
    let address = listener.local_addr().map_err(|error| {
        listen_error::tcp(&format!("{}:{DEFAULT_PORT}", args.serve.host), &error)
    })?;
    let launch = ServeLaunch {
        app: served.name,
        address: address.to_string(),
        host: args.serve.host.clone(),
        taken_port,
        program: program.into_os_string().into_encoded_bytes(),
        arguments: served.arguments.into_iter().map(OsString::into_encoded_bytes).collect(),
        watched: served
            .watched
            .into_iter()
            .map(|path| path.into_os_string().into_encoded_bytes())
            .collect(),
        live: !args.serve.no_live,
        cgi: served.cgi.map(|path| path.into_os_string().into_encoded_bytes()),
        static_files: static_files(args, &base)?,
        open: args.serve.open,
        log: log_settings(),
    };
    Ok(http_program::execute(&http, &launch, &[listener.as_fd()]))
}

/// What is served: an application, or CGI programs.
struct Served {
    name: String,
    /// Arguments of the pool of an application.
    arguments: Vec<OsString>,
    watched: Vec<PathBuf>,
    cgi: Option<PathBuf>,
}

fn served(args: &ServeArgs, base: &Path) -> Result<Served, CommandError> {
    let Some(app) = &args.app else {
        let directory = base.join(args.serve.cgi.as_deref().unwrap_or(Path::new("")));
        check_directory("cgi", &directory)?;
        let name = directory.display().to_string();
        let (arguments, watched) = (Vec::new(), Vec::new());
        return Ok(Served { name, arguments, watched, cgi: Some(directory) });
    };
    let (parsed, base) = application(app)?;
    match &parsed.source {
        Source::File(path) => check_exists(Path::new(OsStr::from_bytes(path)))?,
        // Without such a file, the name could be that of a module.
        Source::Module(name) if name.ends_with(".py") || name.ends_with(".wsgi") => {
            check_exists(Path::new(name))?;
        }
        Source::Module(_) => {}
    }
    Ok(Served {
        name: parsed.to_string(),
        arguments: pool_arguments(args, app),
        watched: watched(args, &parsed.source, &base),
        cgi: None,
    })
}

/// Checks that `directory`, which an option names, is one.
fn check_directory(option: &str, directory: &Path) -> Result<(), CommandError> {
    if directory.is_dir() {
        return Ok(());
    }
    let sentence = format!("`{}` of --{option} is no directory", directory.display());
    Err(CommandError::settings(
        LogMessage::new(Code::BadSetting, sentence).hint("correct the path of the directory"),
    ))
}

/// Checks that the file of the application exists and is no directory, since no edit heals such an
/// error.
fn check_exists(path: &Path) -> Result<(), CommandError> {
    let found = path.metadata().and_then(|found| match found.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    });
    found.map_err(|error| {
        CommandError::settings(
            LogMessage::new(
                Code::UnreadableScript,
                format!("`{}` cannot be read: {error}", path.display()),
            )
            .hint("correct the path: APP is a file or a module, such as `app.py` or `site.wsgi`"),
        )
    })
}

/// The URL paths of `--static` with their directories.
fn static_files(args: &ServeArgs, base: &Path) -> Result<Vec<(String, Vec<u8>)>, CommandError> {
    let checked = args.serve.static_files.iter().map(|StaticDirectory { url, path }| {
        let directory = base.join(path);
        check_directory("static", &directory)?;
        Ok((url.clone(), directory.into_os_string().into_encoded_bytes()))
    });
    checked.collect()
}

/// The listening socket, and the port that was taken if it has another one.
fn listen(host: &str, port: Option<u16>) -> Result<(TcpListener, Option<u16>), CommandError> {
    let at = |port: u16| {
        let name =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let bound = hosts::addresses(&name).and_then(|found| TcpListener::bind(&found[..]));
        bound.map_err(|error| (name, error))
    };
    let refused_at = |(name, error): (String, io::Error)| listen_error::tcp(&name, &error);
    if let Some(port) = port {
        return Ok((at(port).map_err(refused_at)?, None));
    }
    for port in DEFAULT_PORT..DEFAULT_PORT + TRIED_PORTS {
        match at(port) {
            Ok(listener) => {
                return Ok((listener, (port != DEFAULT_PORT).then_some(DEFAULT_PORT)));
            }
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(failed) => return Err(refused_at(failed)),
        }
    }
    let last = DEFAULT_PORT + TRIED_PORTS - 1;
    Err(refused(
        format!("all ports from {DEFAULT_PORT} to {last} of `{host}` are in use"),
        "`ss -tlnp` names the servers: stop one, or set --port",
    ))
}

/// The arguments of `wsgate fastcgi` for the pool behind the server.
fn pool_arguments(args: &ServeArgs, app: &OsStr) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["--workers=1", "--debug", "--drain", DRAIN].map(OsString::from).to_vec();
    arguments.push(format!("--threads={}", args.serve.threads).into());
    // This process becomes wsgate-http, which starts the pool.
    arguments.push(format!("--stop-with-parent={}", std::process::id()).into());
    arguments.extend(args.request.arguments());
    arguments.extend(args.app_options.arguments());
    arguments.extend(["--".into(), app.to_owned()]);
    arguments
}

/// The directories with code and templates, and the files of `--env-file`.
fn watched(args: &ServeArgs, source: &Source, base: &Path) -> Vec<PathBuf> {
    let options = &args.app_options;
    let of_source = match source {
        Source::File(path) => base.join(OsStr::from_bytes(path)).parent().map(Path::to_owned),
        Source::Module(_) => Some(base.to_owned()),
    };
    let named = options.chdir.iter().chain(&options.path).chain(&options.env_file);
    of_source.into_iter().chain(named.map(|path| base.join(path))).collect()
}
