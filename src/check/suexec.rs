//! What Apache's suexec refuses: it runs a script as the owner only if nobody else can change the
//! script or its directory, and both belong to the owner's group. The web server itself, which
//! reads `.htaccess`, is another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{
    check::{quoted, reader::Reader, report::Report, web_root::WebRoot},
    system::users,
};

/// Reports directories of `user` above the document root `root` that the web server cannot enter.
pub(super) fn web_server(report: &mut Report, root: &WebRoot, user: &Reader) {
    // A closed document root belongs to a host that runs the web server as the user, too.
    if user.closes(&root.directory) {
        return;
    }
    for directory in root.directory.ancestors().skip(1).filter(|above| user.closes(above)) {
        report.warning(format!(
            "the web server may not be able to enter `{}`, and then answers 403\n\
             hint: chmod o+x {}",
            directory.display(),
            quoted(directory)
        ));
    }
}

/// Reports why suexec would not run `script` as `user`.
pub(super) fn inspect(report: &mut Report, script: &Path, user: &Reader) {
    let directory = script.parent().unwrap_or(Path::new("/"));
    for (path, kind) in [(script, "script"), (directory, "directory of the script")] {
        let Ok(found) = fs::metadata(path) else {
            continue;
        };
        let (shown, file) = (path.display(), quoted(path));
        let mode = found.permissions().mode();
        if mode & 0o022 != 0 {
            let whom = if mode & 0o002 != 0 { "everybody" } else { "its group" };
            report.problem(format!(
                "the {kind}, `{shown}`, can be changed by {whom} (mode {:o}): suexec refuses it\n\
                 hint: chmod go-w {file}",
                mode & 0o7777
            ));
        }
        if found.is_file() && mode & 0o6000 != 0 {
            report.problem(format!(
                "the {kind}, `{shown}`, is setuid or setgid (mode {:o}): suexec refuses it\n\
                 hint: chmod ug-s {file}",
                mode & 0o7777
            ));
        }
        if found.uid() != user.uid {
            report.problem(format!(
                "the {kind}, `{shown}`, belongs to user {}, not to {}: suexec refuses it\n\
                 hint: chown {} {file}",
                found.uid(),
                user.name,
                user.name
            ));
        }
        // The web server of some hosts enters directories by their group, and suexec knows that.
        let is_for_web_server = found.is_dir() && mode & 0o007 == 0;
        if let Some(group) = user.group().filter(|&group| group != found.gid())
            && !is_for_web_server
        {
            let named = |gid: u32| users::group_name(gid).unwrap_or_else(|| gid.to_string());
            let group = named(group);
            report.problem(format!(
                "the {kind}, `{shown}`, belongs to group {}, not to {group}, the group of {}: \
                 suexec refuses it, unless SuexecUserGroup names that group\n\
                 hint: chgrp {group} {file}",
                named(found.gid()),
                user.name
            ));
        }
    }
}
