//! Which requests one warm pool may serve: those that a new interpreter would serve in the same
//! way.
//!
//! Everything that the application may have seen while it was loaded is part of the identity, so a
//! change of any of it leads the next request to another pool. What differs from request to request
//! is not, and a pool never sees it before a request comes.

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
        options::{Mode, Options},
        settings::Settings,
    },
    python::start::OF_THE_MANAGER,
    request::Request,
};

/// Variables of a request (RFC 3875 4.1), and what web servers add for each.
const OF_A_REQUEST: [&str; 37] = [
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
    // Apache's way to know clients by their `User-Agent`: the usual `BrowserMatch` lines, as CGI
    // programs see these names.
    "downgrade_1_0",
    "force_response_1_0",
    "nokeepalive",
    "redirect_carefully",
    // Who has logged in, by Kerberos.
    "GSS_NAME",
    "KRB5CCNAME",
    // Which process the service manager has started.
    "SYSTEMD_EXEC_PID",
];

/// Beginnings of names of such variables.
///
/// `AUTHENTICATE_` and `AUTHORIZE_` are of Apache's modules for LDAP and databases, `MELLON_` and
/// `OIDC_` of those for single sign-on.
const OF_A_REQUEST_WITH: [&str; 13] = [
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

/// The variables of this process that are not the request's own: what the administrator has set.
pub(super) fn lasting_environment() -> BTreeMap<OsString, OsString> {
    let inherited: Vec<_> = std::env::vars_os().collect();
    let is_lasting = |name: &OsString| {
        let is_of_request = OF_A_REQUEST.iter().chain(&OF_THE_MANAGER).any(|known| name == known)
            || OF_A_REQUEST_WITH
                .iter()
                .any(|beginning| name.as_bytes().starts_with(beginning.as_bytes()));
        !is_of_request
    };
    // Of two with one name the first counts, as everywhere.
    inherited.into_iter().rev().filter(|(name, _)| is_lasting(name)).collect()
}

/// Files whose change makes another pool of it, beside those of modules.
pub(super) fn witnesses(settings: &Settings) -> Vec<PathBuf> {
    let mut paths = settings.changes.reload_on.clone();
    if let Source::File(script) = &settings.app.source {
        let script = Path::new(std::ffi::OsStr::from_bytes(script));
        if let Some(home) = script.parent() {
            paths.push(home.join("tmp/restart.txt"));
        }
    }
    if let Some(venv) = &settings.interpreter.venv {
        paths.push(Path::new(std::ffi::OsStr::from_bytes(&venv.directory)).join("pyvenv.cfg"));
    }
    paths
}

/// `options` for the pool of `request`. If a process answers more than one request, the pool is one
/// of the URL path that the application is reached at: frameworks keep addresses that they have
/// made once. A warm-up request goes there.
pub(super) fn with_request(options: &Options, request: &Request) -> Options {
    let mut options = options.clone();
    let answers_several = options.warm_up.is_some() || options.mode == Mode::Resident;
    if answers_several && options.script_name.is_none() {
        options.script_name = script_name(request);
    }
    options
}

/// `SCRIPT_NAME` as the application sees it.
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
    // A slash more in the address of a client makes no other pool.
    found.dedup_by(|next, last| *next == b'/' && *last == b'/');
    String::from_utf8(found).ok()
}

/// The warm-up request of a pool that `request` starts: at its host, by its scheme, unless the
/// option names them.
pub(super) fn warm_up_url(options: &Options, request: &Request) -> Option<String> {
    let path = options.warm_up.clone().filter(|target| target.starts_with('/'))?;
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
    let mount = percent::encode_path(options.script_name.as_deref().unwrap_or_default().as_bytes());
    Some(format!("{scheme}://{host}{}{path}", String::from_utf8_lossy(&mount)))
}

/// A digest of all that the pool of a request depends on.
pub(super) fn digest(settings: &Settings, options: &Options) -> u64 {
    let mut digest = DefaultHasher::new();
    (build(), geteuid().as_raw(), getegid().as_raw()).hash(&mut digest);
    (options.mode as u8).hash(&mut digest);
    for part in options.words() {
        part.hash(&mut digest);
    }
    format!("{:?}", settings.app).hash(&mut digest);
    (&settings.working_directory, &settings.sys_path, &settings.pycache_prefix).hash(&mut digest);
    for program in [settings.interpreter.program.as_path(), settings.engine.path()] {
        program.hash(&mut digest);
        // The time of the last change as a whole is left out: another link to the file changes it.
        let found = fs::metadata(program).ok();
        found
            .map(|found| {
                (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec())
            })
            .hash(&mut digest);
    }
    if let Source::File(script) = &settings.app.source {
        let script = Path::new(std::ffi::OsStr::from_bytes(script));
        // Where its links lead.
        fs::canonicalize(script).ok().hash(&mut digest);
        format!("{:?}", Snapshot::of(script)).hash(&mut digest);
    }
    for witness in witnesses(settings) {
        format!("{:?}", Snapshot::of(&witness)).hash(&mut digest);
    }
    lasting_environment().hash(&mut digest);
    digest.finish()
}

/// A digest of where the application stands, whatever else changes.
pub(super) fn place(settings: &Settings) -> u64 {
    let mut digest = DefaultHasher::new();
    format!("{:?}", settings.app).hash(&mut digest);
    digest.finish()
}
