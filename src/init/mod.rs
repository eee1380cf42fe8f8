//! `wsgate init`: writes the files with which a web server on a shared host serves an application.
//!
//! The files that exist are never changed. All files are written, or none.

pub(crate) mod args;
mod literals;
mod private_directory;
mod python_text;
mod ready_script;
mod recognition;
mod script;
mod web_directory;
mod write;

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::geteuid;

use crate::{
    config::options::Mode,
    exit::{CommandError, Exit, print},
    init::{
        args::InitArgs,
        recognition::FoundApp,
        script::ScriptPlan,
        web_directory::WebDirectory,
        write::{PlannedFile, Transaction},
    },
    system::shell::quoted,
};

/// One application behind all URLs of a directory.
const FRONT_CONTROLLER: &str = include_str!("../../apache/public_html.htaccess");

/// Scripts in a directory of scripts.
const CGI_BIN: &str = include_str!("../../apache/cgi-bin.htaccess");

/// Writes the files for `args`, or shows them.
///
/// # Errors
/// If the directory cannot be used, or a file exists.
pub(crate) fn run(args: &InitArgs) -> Result<Exit, CommandError> {
    let web = WebDirectory::open(&args.dir).map_err(CommandError::settings)?;
    if web.is_script_named && args.app.is_some() {
        return Err(CommandError::usage(
            LogMessage::new(
                Code::BadSetting,
                format!("--app has no effect on the script `{}`", web.script().display()),
            )
            .hint("name its directory to write another script"),
        ));
    }
    let has_script =
        args.app.is_none() && ready_script::is_ready(&web.script()) && !web.has_rules();
    if web.is_script_named || has_script {
        return write_rules(args, &web);
    }
    let app = find_app(args, &web)?;
    let plan = ScriptPlan::new(&app, &web, args.mode).map_err(CommandError::settings)?;
    let modes = web.modes;
    let mut files = Vec::new();
    if let Some(sample) = &app.sample {
        files.push(PlannedFile::new(&app.file, sample, modes.source));
    }
    files.push(rules(&web));
    files.push(PlannedFile::new(&web.script(), &plan.content, modes.script));
    let mut directories = web.missing_directories();
    if plan.needs_private_directory || app.sample.is_some() {
        directories.extend(web.missing_private_directories());
    }
    let label = if args.app.is_some() { "application" } else { "found" };
    let mut text = format!("{label}: {}\n", app.what);
    if args.dry_run {
        for directory in &directories {
            text +=
                &format!("would create {}/ (mode {:o})\n", directory.display(), modes.directory);
        }
        if let Some((link, target)) = &plan.link {
            text += &format!("would link {} to {}\n", link.display(), target.display());
        }
        for file in &files {
            text += &file.shown();
        }
        text += &notes(&web, &app, &plan);
        return print(text.as_bytes());
    }
    let mut transaction = Transaction::new(again(args));
    for directory in &directories {
        text += &transaction.create_directory(directory, modes.directory)?;
    }
    if let Some((link, target)) = &plan.link {
        text += &transaction.link(link, target)?;
    }
    // The rules come before the script: without them, clients could fetch its source.
    for file in &files {
        text += &transaction.write(file)?;
    }
    transaction.keep();
    text += &notes(&web, &app, &plan);
    text += &next_steps(&web, &plan);
    print(text.as_bytes())
}

/// The `.htaccess` file for `web`.
fn rules(web: &WebDirectory) -> PlannedFile {
    let content = if web.is_cgi_bin() { CGI_BIN } else { FRONT_CONTROLLER };
    let content = web.rules_for_script(content);
    PlannedFile::new(&web.rules(), &content, web.modes.rules).with_other_lines()
}

/// Writes the `.htaccess` file alone, for a script that wsgate runs already.
fn write_rules(args: &InitArgs, web: &WebDirectory) -> Result<Exit, CommandError> {
    let script = web.script();
    let mut text = format!("kept {}, which wsgate runs already\n", script.display());
    if args.dry_run {
        text += &rules(web).shown();
    } else {
        let mut transaction = Transaction::new(again(args));
        text += &transaction.write(&rules(web))?;
        transaction.keep();
    }
    text.extend(web.notes(&script).iter().map(|note| format!("note: {note}\n")));
    print(text.as_bytes())
}

/// The command with `args`, for a person who runs it again.
fn again(args: &InitArgs) -> String {
    let mut command = format!("{} init {}", this_program(), quoted(&args.dir));
    if let Some(app) = &args.app {
        command += &format!(" --app {}", quoted(Path::new(app)));
    }
    match args.mode {
        Mode::Cold => command += " --mode cold",
        Mode::Warm => {}
        Mode::Resident => command += " --mode resident",
    }
    command
}

/// This program, as a shell reads its path.
fn this_program() -> String {
    script::this_program().map_or_else(|_| "wsgate".to_owned(), |program| quoted(&program))
}

/// The application of `--app`, or the first that is found: in the working directory, in the
/// directory of the web server, or where an earlier `wsgate init` has put one; else a sample.
fn find_app(args: &InitArgs, web: &WebDirectory) -> Result<FoundApp, CommandError> {
    if let Some(app) = &args.app {
        return FoundApp::named(app);
    }
    let here = std::env::current_dir().ok().filter(|here| is_own(here));
    let private = web.private_directory.clone();
    let places = [here, Some(web.path.clone()), private.clone()];
    let script = web.script();
    let mut found =
        places.into_iter().flatten().filter_map(|place| FoundApp::in_directory(&place, &script));
    if let Some(found) = found.next() {
        return Ok(found);
    }
    let private = private.ok_or_else(|| {
        CommandError::settings(
            LogMessage::new(Code::BadSetting, "there is no application to serve").hint(
                "name one with --app FILE: for root, and without a home directory, wsgate writes \
                 no sample",
            ),
        )
    })?;
    Ok(FoundApp::sample(&private.join("app.py"), &script::interpreter_directory()))
}

/// Can only this user and root put files into `directory`? A file that another user has left in a
/// shared directory, such as /tmp, is not the application.
fn is_own(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| {
        [0, geteuid().as_raw()].contains(&found.uid()) && found.mode() & 0o002 == 0
    })
}

/// What a person should know about the files.
fn notes(web: &WebDirectory, app: &FoundApp, plan: &ScriptPlan) -> String {
    let mut notes = web.notes(&app.file);
    notes.extend(plan.note.clone());
    if app.file.starts_with(&web.path) {
        notes.push(format!(
            "`{}` is in a directory of the web server, and only `.htaccess` keeps clients from its \
             source: move it elsewhere, and run `wsgate init` with --app",
            app.file.display()
        ));
    }
    notes.extend(app.note.clone());
    notes.iter().map(|note| format!("note: {note}\n")).collect()
}

fn next_steps(web: &WebDirectory, plan: &ScriptPlan) -> String {
    let address = if web.is_cgi_bin() {
        "/cgi-bin/app.wsgi of your site".to_owned()
    } else {
        format!("the address of {}", web.path.display())
    };
    let mut steps = format!(
        "next: check the set-up: {} check {}\nnext: open {address} in a browser\n",
        quoted(&plan.program),
        quoted(&web.script())
    );
    if let Some(log) = &plan.error_log {
        steps += &format!("next: if that fails, read {}\n", log.display());
    }
    steps
}

/// The log message of a setting that is refused.
fn refused(sentence: String, hint: &str) -> LogMessage {
    LogMessage::new(Code::BadSetting, sentence).hint(hint.to_owned())
}

/// Is `path` plain text? Other paths cannot stand on a `#!` line, or in Python code.
fn check_name(path: &Path) -> Result<(), LogMessage> {
    let is_plain = str::from_utf8(path.as_os_str().as_bytes())
        .is_ok_and(|text| !text.chars().any(char::is_control));
    if is_plain {
        return Ok(());
    }
    Err(LogMessage::new(
        Code::BadSetting,
        format!("the name `{}` is not plain text in UTF-8", path.display()),
    )
    .hint("rename the file or directory"))
}

/// The nearest directory above `path` that exists, and the missing ones below that, from the top.
fn missing_above(path: &Path) -> Vec<PathBuf> {
    let missing = path.ancestors().take_while(|directory| !directory.exists());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    missing.reverse();
    missing
}
