//! The identity of a warm pool: a pool serves the requests that a new interpreter would serve in
//! the same way.
//!
//! The identity contains everything that the application may see while it is loaded. If any part
//! changes, the next request uses another pool. Variables of a request are not part of the
//! identity, and a pool gets them only with a request.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::{getegid, geteuid};
use wire::{app::Source, build, mount, percent, snapshot::Snapshot};

use crate::{
    config::{
        options::{Mode, ScriptOptions},
        settings::Settings,
    },
    guard::start::OWN_VARIABLES,
    request::Request,
};

/// Variables of a request (RFC 3875 4.1), and variables that web servers add to each request.
const REQUEST_VARIABLES: [&str; 37] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "HTTP2",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "OLDPWD",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "PWD",
    "QUERY_STRING",
    "QUERY_STRING_UNESCAPED",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SCRIPT_URI",
    "SCRIPT_URL",
    "SHLVL",
    "UNIQUE_ID",
    "_",
    "H2PUSH",
    // Apache's usual `BrowserMatch` lines set these variables by `User-Agent`.
    "downgrade_1_0",
    "force_response_1_0",
    "nokeepalive",
    "redirect_carefully",
    // The Kerberos credentials of the user.
    "GSS_NAME",
    "KRB5CCNAME",
    // The process ID that systemd passes to the process.
    "SYSTEMD_EXEC_PID",
];

/// Prefixes of the names of request variables.
///
/// `AUTHENTICATE_` and `AUTHORIZE_` belong to Apache's modules for LDAP and databases, `MELLON_`
/// and `OIDC_` to those for single sign-on.
const REQUEST_VARIABLE_PREFIXES: [&str; 13] = [
    "AUTHENTICATE_",
    "AUTHORIZE_",
    "CONTEXT_",
    "H2_",
    "HTTP_",
    "MELLON_",
    "OIDC_",
    "ORIG_",
    "PROXY_",
    "REDIRECT_",
    "REQUEST_",
    "SERVER_",
    "SSL_",
];

/// The environment variables that the administrator has set: all variables that do not belong to a
/// request.
pub(super) fn lasting_environment() -> BTreeMap<OsString, OsString> {
    let inherited: Vec<_> = std::env::vars_os().collect();
    let is_lasting = |name: &OsString| {
        let is_of_request =
            REQUEST_VARIABLES.iter().chain(&OWN_VARIABLES).any(|known| name == known)
                || REQUEST_VARIABLE_PREFIXES
                    .iter()
                    .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()));
        !is_of_request
    };
    // If a name repeats, the first value counts.
    inherited.into_iter().rev().filter(|(name, _)| is_lasting(name)).collect()
}

/// Files whose change stops the pool, in addition to the files of modules.
pub(super) fn watched_files(settings: &Settings) -> Vec<PathBuf> {
    let mut paths = settings.fastcgi.reload_on.clone();
    paths.extend(settings.env_files.iter().cloned());
    if let Source::File(script) = &settings.app.source {
        let script = Path::new(OsStr::from_bytes(script));
        if let Some(home) = script.parent() {
            paths.push(home.join("tmp/restart.txt"));
        }
    }
    if let Some(venv) = &settings.interpreter.venv {
        paths.push(Path::new(OsStr::from_bytes(&venv.directory)).join("pyvenv.cfg"));
    }
    paths
}

/// `options` for the pool of `request`. If a process serves more than one request, each URL path of
/// the application has its own pool, because frameworks cache URLs. The warm-up request has the
/// same path.
pub(super) fn with_request(options: &ScriptOptions, request: &Request) -> ScriptOptions {
    let mut options = options.clone();
    let answers_several = options.forks.warm_up.is_some() || options.mode.mode == Mode::Resident;
    if answers_several && options.request.script_name.is_none() {
        options.request.script_name = script_name(request);
    }
    options
}

/// `SCRIPT_NAME` in the environ of the application.
fn script_name(request: &Request) -> Option<String> {
    let [script_name, path_info, request_uri, redirect_status] =
        ["SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "REDIRECT_STATUS"]
            .map(|name| request.variable(name));
    let given = mount::MountVariables {
        script_name: script_name.as_deref().map(OsStr::as_bytes),
        path_info: path_info.as_deref().map(OsStr::as_bytes),
        request_uri: request_uri.as_deref().map(OsStr::as_bytes),
        redirect_status: redirect_status.as_deref().map(OsStr::as_bytes),
    };
    let settled = given.corrected().map(|(script_name, _)| script_name);
    let mut found = settled.unwrap_or_else(|| given.script_name.unwrap_or_default().to_vec());
    // Doubled slashes in the URL of a client do not select another pool.
    found.dedup_by(|next, last| *next == b'/' && *last == b'/');
    String::from_utf8(found).ok()
}

/// The warm-up request of a pool that `request` starts: with the scheme and host of `request`.
/// `None` if the option has a full URL.
pub(super) fn warm_up_url(options: &ScriptOptions, request: &Request) -> Option<String> {
    let path = options.forks.warm_up.clone().filter(|target| target.starts_with('/'))?;
    let text = |name: &str| {
        request.variable(name).and_then(|value| value.into_string().ok()).unwrap_or_default()
    };
    let is_on =
        |name: &str| ["on", "1", "yes"].iter().any(|on| text(name).eq_ignore_ascii_case(on));
    let scheme = if is_on("HTTPS") || text("REQUEST_SCHEME").eq_ignore_ascii_case("https") {
        "https"
    } else {
        "http"
    };
    let is_host = |host: &String| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    };
    let server = format!("{}:{}", text("SERVER_NAME"), text("SERVER_PORT"));
    let host =
        [text("HTTP_HOST"), server.trim_end_matches(':').to_owned()].into_iter().find(is_host)?;
    let mount =
        percent::encode_path(options.request.script_name.as_deref().unwrap_or_default().as_bytes());
    Some(format!("{scheme}://{host}{}{path}", String::from_utf8_lossy(&mount)))
}

/// A digest of everything that the pool of a request depends on.
///
/// # Errors
/// If the options cannot be encoded.
pub(super) fn digest(
    settings: &Settings,
    options: &ScriptOptions,
) -> Result<u64, serde_json::Error> {
    let mut digest = DefaultHasher::new();
    (build(), geteuid().as_raw(), getegid().as_raw()).hash(&mut digest);
    // The options in the form that the pool receives.
    serde_json::to_string(options)?.hash(&mut digest);
    format!("{:?}", settings.app).hash(&mut digest);
    (&settings.working_directory, &settings.sys_path, &settings.pycache_prefix).hash(&mut digest);
    for program in [settings.interpreter.program.as_path(), settings.engine.path()] {
        program.hash(&mut digest);
        // The ctime is not compared, because another hard link to the file changes it.
        let found = fs::metadata(program).ok();
        found
            .map(|found| {
                (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec())
            })
            .hash(&mut digest);
    }
    if let Source::File(script) = &settings.app.source {
        let script = Path::new(OsStr::from_bytes(script));
        // The target of links.
        fs::canonicalize(script).ok().hash(&mut digest);
        format!("{:?}", Snapshot::of(script)).hash(&mut digest);
    }
    for file in watched_files(settings) {
        format!("{:?}", Snapshot::of(&file)).hash(&mut digest);
    }
    lasting_environment().hash(&mut digest);
    Ok(digest.finish())
}

/// A digest of the application alone: all pools of the application have it.
pub(super) fn app_digest(settings: &Settings) -> u64 {
    let mut digest = DefaultHasher::new();
    format!("{:?}", settings.app).hash(&mut digest);
    digest.finish()
}
