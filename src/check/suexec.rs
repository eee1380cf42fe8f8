//! What Apache's suexec refuses: it runs a script as the owner only if nobody else can change the
//! script or its directory, and both belong to the owner's group. The web server itself, which
//! reads `.htaccess`, is another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    check::{quoted, reader::Reader, report::Report, web_root::WebRoot},
    system::users,
};

/// How many static files are looked at.
const MAX_FILES: usize = 2000;

/// Reports what the web server reads itself, and `user` keeps it from: the document root `root`,
/// the directories above it, its `.htaccess` and its static files.
pub(super) fn web_server(report: &mut Report, root: &WebRoot, user: &Reader) {
    let root = root.directory.as_path();
    let (shown, rules, files) = (root.display(), root.join(".htaccess"), root.join("static"));
    // Some hosts run the web server as the user, too.
    if user.closes(root) {
        let opened = if user.closes(&rules) {
            format!(" && chmod o+r {}", quoted(&rules))
        } else {
            String::new()
        };
        report.warning(format!(
            "only {} can enter the document root `{shown}`: a web server with a user of its own \
             answers 403\n\
             hint: if the host has such a web server: chmod o+x {}{opened}",
            user.name,
            quoted(root)
        ));
        return;
    }
    for directory in root.ancestors().skip(1).filter(|above| user.closes(above)) {
        report.warning(format!(
            "the web server may not be able to enter `{}`, and then answers 403\n\
             hint: chmod o+x {}",
            directory.display(),
            quoted(directory)
        ));
    }
    if user.closes(&rules) {
        report.warning(format!(
            "the web server may not be able to read `{}`, and then answers 403\nhint: chmod o+r {}",
            rules.display(),
            quoted(&rules)
        ));
    }
    let closed = closed_below(&files, user);
    if let Some(first) = closed.first() {
        let more = match closed.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        report.warning(format!(
            "the web server may not be able to read `{}`{more}, and then answers 403\n\
             hint: chmod -R o+rX {}",
            first.display(),
            quoted(&files)
        ));
    }
}

/// The directory `files` and what is below it, as far as `user` keeps the web server out.
fn closed_below(files: &Path, user: &Reader) -> Vec<PathBuf> {
    let (mut closed, mut seen) = (Vec::new(), 0);
    let mut next = vec![files.to_owned()];
    while let Some(path) = next.pop() {
        seen += 1;
        let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if user.closes(&path) {
            closed.push(path);
        } else if is_directory && seen < MAX_FILES {
            let entries = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            let mut below: Vec<PathBuf> =
                entries.take(MAX_FILES).map(|entry| entry.path()).collect();
            below.sort();
            next.extend(below.into_iter().rev());
        }
    }
    closed
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
