//! The directory of the web server that `wsgate init` writes to: its owner, the modes that its
//! files need, and the directory for what clients must not see.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::LogMessage;
use rustix::process::{getegid, geteuid};

use crate::{
    config::script_line::is_plain_name,
    init::{
        check_name, missing_above, private_directory, quoted, ready_script, refused, this_program,
    },
    system::{trusted_path::is_real_root, users},
};

/// The name of a script that wsgate writes.
const SCRIPT: &str = "app.wsgi";

/// Extensions of scripts.
const SCRIPT_EXTENSIONS: [&str; 4] = ["cgi", "wsgi", "fcgi", "py"];

/// The name of directories whose files the web server runs.
const CGI_BIN: &str = "cgi-bin";

/// The directory below the home directory for applications and logs.
const APPS: &str = "wsgate-apps";

/// Names of files that clients should not see.
const PRIVATE_NAMES: [&str; 9] =
    [".env", ".git", ".hg", ".svn", "venv", ".venv", "node_modules", "manage.py", "settings.py"];

/// Ends of the names of such files.
const PRIVATE_SUFFIXES: [&str; 8] =
    [".py", ".sqlite3", ".sqlite", ".db", ".sql", ".ini", ".pem", ".log"];

/// Directories of a virtualenv.
const VENV_PARTS: [&str; 5] = ["bin", "lib", "lib64", "include", "share"];

/// How many private files a message names.
const MAX_NAMES: usize = 5;

/// Permissions of the files.
#[derive(Clone, Copy)]
pub(super) struct FileModes {
    pub(super) directory: u32,
    pub(super) script: u32,
    pub(super) rules: u32,
    pub(super) source: u32,
}

/// For a web server with a user of its own.
const SHARED: FileModes =
    FileModes { directory: 0o755, script: 0o755, rules: 0o644, source: 0o644 };

/// For a web server that runs as the user: nobody else can enter the directory.
const PRIVATE: FileModes =
    FileModes { directory: 0o700, script: 0o700, rules: 0o600, source: 0o600 };

/// A directory of the web server.
pub(super) struct WebDirectory {
    /// The path without links.
    pub(super) path: PathBuf,
    pub(super) modes: FileModes,
    /// The directory for the sample and the log, if the user has a home directory.
    pub(super) private_directory: Option<PathBuf>,
    /// The name of the script in the directory.
    script: String,
    /// The person has named the script, not the directory.
    pub(super) is_script_named: bool,
    home: Option<PathBuf>,
    exists: bool,
}

impl WebDirectory {
    /// The directory at `path`, which need not exist if the one above it does, or the directory of
    /// the script at `path`.
    ///
    /// # Errors
    /// Why no application can be served from there.
    pub(super) fn open(path: &Path) -> Result<Self, LogMessage> {
        let named = path.file_name().filter(|_| ready_script::is_ready(path));
        let (path, script) = match named {
            None => (path, SCRIPT.to_owned()),
            Some(name) => (
                path.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new(".")),
                script_name(name)?,
            ),
        };
        let exists = path.exists();
        if !exists && fs::symlink_metadata(path).is_err() {
            check_no_script(path)?;
        }
        let path = resolved(path, exists)?;
        check_name(&path)?;
        let home = home().filter(|_| !is_real_root());
        if let Some(home) = home.as_ref().filter(|home| home.starts_with(&path)) {
            return Err(refused(
                format!("`{}` contains the home directory `{}`", path.display(), home.display()),
                "name the directory that the web server shows, such as ~/public_html",
            ));
        }
        if let Some(venv) = path.ancestors().find(|venv| is_part_of_virtualenv(venv, &path)) {
            return Err(refused(
                format!(
                    "`{}` is a virtualenv, and clients could request its programs",
                    venv.display()
                ),
                "name the directory that the web server shows, such as ~/public_html",
            ));
        }
        let mut modes = SHARED;
        if exists {
            let found = fs::metadata(&path).map_err(|error| unusable(&path, &error))?;
            check_owner(&path, &found)?;
            let of_group = found.mode() & 0o070 != 0 && found.gid() != getegid().as_raw();
            if found.mode() & 0o007 == 0 && !of_group {
                modes = PRIVATE;
            }
        }
        let private_directory =
            home.as_ref().map(|home| home.join(APPS).join(place_of(&path, home)));
        if let (Some(home), Some(private)) = (&home, &private_directory) {
            private_directory::check(&home.join(APPS), private, &path)?;
        }
        let is_script_named = named.is_some();
        Ok(Self { path, modes, private_directory, script, is_script_named, home, exists })
    }

    /// The script of the application.
    pub(super) fn script(&self) -> PathBuf {
        self.path.join(&self.script)
    }

    /// `rules`, which are for [`SCRIPT`], for the script of this directory.
    pub(super) fn rules_for_script(&self, rules: &str) -> String {
        let escaped = |name: &str| name.replace('.', "\\.");
        let extension = |name: &str| name.rfind('.').map_or("", |at| &name[at..]).to_owned();
        rules
            .replace(SCRIPT, &self.script)
            .replace(&escaped(SCRIPT), &escaped(&self.script))
            .replace(&escaped(&extension(SCRIPT)), &escaped(&extension(&self.script)))
    }

    /// The `.htaccess` file.
    pub(super) fn rules(&self) -> PathBuf {
        self.path.join(".htaccess")
    }

    /// Is there a `.htaccess` file, or something else of that name?
    pub(super) fn has_rules(&self) -> bool {
        fs::symlink_metadata(self.rules()).is_ok()
    }

    /// Does the web server run all files of the directory?
    pub(super) fn is_cgi_bin(&self) -> bool {
        self.path.ends_with(CGI_BIN)
    }

    /// The directory, if it has to be created.
    pub(super) fn missing_directories(&self) -> Vec<PathBuf> {
        if self.exists { Vec::new() } else { vec![self.path.clone()] }
    }

    /// The directories to create for the sample and the log.
    pub(super) fn missing_private_directories(&self) -> Vec<PathBuf> {
        self.private_directory.as_deref().map(missing_above).unwrap_or_default()
    }

    /// What a person should know about the directory, but for the file `app`.
    pub(super) fn notes(&self, app: &Path) -> Vec<String> {
        let mut notes = Vec::new();
        let shown = self.path.display();
        let directory = quoted(&self.path);
        if let Ok(found) = fs::metadata(&self.path) {
            if found.mode() & 0o020 != 0 {
                notes.push(format!(
                    "the group may write in `{shown}`, and suexec runs no script there: chmod g-w \
                     {directory}"
                ));
            }
            if found.uid() != geteuid().as_raw() {
                notes.push(format!(
                    "`{shown}` belongs to user {}, and suexec runs only scripts of the owner",
                    found.uid()
                ));
            }
            // Without rights of others, the group is that of the web server.
            let group = getegid().as_raw();
            if found.gid() != group && found.mode() & 0o007 != 0 {
                let named = |gid: u32| users::group_name(gid).unwrap_or_else(|| gid.to_string());
                notes.push(format!(
                    "`{shown}` belongs to group {}, and suexec runs only scripts of your own \
                     group: chgrp {} {directory}",
                    named(found.gid()),
                    named(group)
                ));
            }
        }
        if self.modes.script == PRIVATE.script {
            let rules = self.rules();
            notes.push(format!(
                "only you can enter `{shown}`, and a web server with a user of its own answers \
                 403: if the host has such a web server: chmod o+x {directory} && chmod o+r {}",
                quoted(&rules)
            ));
        } else if fs::metadata(self.rules()).is_ok_and(|found| found.mode() & 0o044 == 0) {
            let rules = self.rules();
            notes.push(format!(
                "the web server may not be able to read `{}`: chmod o+r {}",
                rules.display(),
                quoted(&rules)
            ));
        }
        for closed in self.closed_directories() {
            notes.push(format!(
                "the web server may not be able to enter `{}`: chmod o+x {}",
                closed.display(),
                quoted(&closed)
            ));
        }
        let private = self.private_files(app);
        if !private.is_empty() {
            notes.push(format!(
                "`{shown}` has {}, which only `.htaccess` keeps from clients: better keep such \
                 files elsewhere",
                private.join(", ")
            ));
        }
        notes
    }

    /// Directories of the path, from the home directory on, that other users cannot enter, although
    /// the last one gives them some right.
    fn closed_directories(&self) -> Vec<PathBuf> {
        let Some(home) = self.home.as_ref().filter(|_| self.modes.script == SHARED.script) else {
            return Vec::new();
        };
        let path = self.path.ancestors();
        let above = path.filter(|path| *path == self.path || path.starts_with(home));
        let is_closed = |directory: &&Path| {
            fs::metadata(directory).is_ok_and(|found| {
                let of_group = found.mode() & 0o010 != 0 && found.gid() != getegid().as_raw();
                found.mode() & 0o001 == 0 && !of_group
            })
        };
        above.filter(is_closed).map(Path::to_owned).collect()
    }

    /// Names of files in the directory that clients should not see, but for the file `app`.
    fn private_files(&self, app: &Path) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| self.path.join(name) != app);
        let is_private = |name: &String| {
            PRIVATE_NAMES.contains(&name.as_str())
                || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        };
        let mut names: Vec<String> =
            names.filter(is_private).map(|name| format!("`{}`", name.escape_debug())).collect();
        names.sort();
        if names.len() > MAX_NAMES {
            let more = names.len() - MAX_NAMES;
            names.truncate(MAX_NAMES);
            names.push(format!("{more} more"));
        }
        names
    }
}

/// `path` without links. The last part need not exist.
fn resolved(path: &Path, exists: bool) -> Result<PathBuf, LogMessage> {
    if exists {
        let path = fs::canonicalize(path).map_err(|error| unusable(path, &error))?;
        return if path.is_dir() {
            Ok(path)
        } else {
            Err(refused(
                format!("`{}` is not a directory, and no script that wsgate runs", path.display()),
                "name the directory that the web server shows, such as ~/public_html; or a script \
                 whose `#!` line starts wsgate, which `wsgate check` checks",
            ))
        };
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(private_directory::dangling(path));
    }
    let absolute = std::path::absolute(path).map_err(|error| unusable(path, &error))?;
    let (Some(above), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(refused(format!("`{}` is no directory", path.display()), "name a directory"));
    };
    let above = fs::canonicalize(above).map_err(|error| unusable(above, &error))?;
    Ok(above.join(name))
}

/// Refuses the name of a script for a directory to create.
fn check_no_script(path: &Path) -> Result<(), LogMessage> {
    let is_of_script = path.extension().is_some_and(|extension| {
        SCRIPT_EXTENSIONS.iter().any(|one| extension.eq_ignore_ascii_case(one))
    });
    if !is_of_script {
        return Ok(());
    }
    let above = path.parent().filter(|above| *above != Path::new(""));
    let directory = quoted(above.unwrap_or(Path::new(".")));
    Err(refused(
        format!("`{}` does not exist, and has the name of a script", path.display()),
        &format!(
            "name its directory, and wsgate writes the script {SCRIPT} there: {} init {directory}",
            this_program()
        ),
    ))
}

fn check_owner(path: &Path, found: &fs::Metadata) -> Result<(), LogMessage> {
    let shown = path.display();
    if is_real_root() && found.uid() != 0 {
        let user = users::passwd(&found.uid().to_string());
        let name = user.as_deref().and_then(|line| line.split(':').next()).unwrap_or("USER");
        return Err(refused(
            format!("`{shown}` belongs to `{name}`, and files of root would not be run there"),
            &format!(
                "run the command as that user: sudo -u {name} -H {} init {}",
                this_program(),
                quoted(path)
            ),
        ));
    }
    if found.mode() & 0o002 != 0 {
        return Err(refused(
            format!("every user may write in `{shown}`, and could replace the script"),
            &format!("chmod o-w {}", quoted(path)),
        ));
    }
    Ok(())
}

/// The home directory of the user, without links.
fn home() -> Option<PathBuf> {
    fs::canonicalize(users::home(geteuid().as_raw())?).ok()
}

/// Where the application of `path` stands, below the directory for applications. Several sites may
/// have a directory of the same name, such as `htdocs`: the path has those above it, too, from
/// `home` on.
fn place_of<'a>(path: &'a Path, home: &Path) -> &'a Path {
    path.strip_prefix(home).or_else(|_| path.strip_prefix("/")).unwrap_or(path)
}

/// Is `directory` a virtualenv, or an environment of conda, and `path` that or a part of it? A
/// project may have made one of its own directory.
fn is_part_of_virtualenv(directory: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(directory).unwrap_or(path);
    let is_part = below == Path::new("") || VENV_PARTS.iter().any(|part| below.starts_with(part));
    is_part && (directory.join("pyvenv.cfg").is_file() || directory.join("conda-meta").is_dir())
}

/// The name of a script, if the rules of a web server can hold it.
fn script_name(name: &OsStr) -> Result<String, LogMessage> {
    let plain = name.to_str().filter(|_| is_plain_name(name));
    plain.map(str::to_owned).ok_or_else(|| {
        refused(
            format!("`.htaccess` cannot name the script `{}`", name.display()),
            "rename it: letters, digits, `.`, `_` and `-` are possible",
        )
    })
}

fn unusable(path: &Path, error: &std::io::Error) -> LogMessage {
    refused(
        format!("`{}` cannot be used: {error}", path.display()),
        "create the directory, or check the path",
    )
}
