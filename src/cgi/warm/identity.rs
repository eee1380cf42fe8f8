//! Which requests one warm pool may serve: those that a new interpreter would serve in the same way.
//!
//! Everything that the application may have seen while it was loaded is part of the identity, so a change of any of it leads the
//! next request to another pool. What differs from request to request is not, and a pool never sees it before a request comes.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use link::{app::Source, build, snapshot::Snapshot};
use rustix::process::{getegid, geteuid};

use crate::{options::Options, settings::Settings, start::OF_THE_MANAGER};

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
    // Apache's way to know clients by their `User-Agent`: the usual `BrowserMatch` lines, as CGI programs see these names.
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
/// `AUTHENTICATE_` and `AUTHORIZE_` are of Apache's modules for LDAP and databases, `MELLON_` and `OIDC_` of those for single sign-on.
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
            || OF_A_REQUEST_WITH.iter().any(|beginning| name.as_bytes().starts_with(beginning.as_bytes()));
        !is_of_request
    };
    // Of two with one name the first counts, as everywhere.
    inherited.into_iter().rev().filter(|(name, _)| is_lasting(name)).collect()
}

/// Files whose change makes another pool of it, beside those of modules.
pub(super) fn witnesses(settings: &Settings) -> Vec<PathBuf> {
    let mut paths = Vec::new();
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
    for program in [&settings.interpreter.program, &settings.engine] {
        program.hash(&mut digest);
        // The time of the last change as a whole is left out: another link to the file changes it.
        let found = fs::metadata(program).ok();
        found
            .map(|found| (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
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
