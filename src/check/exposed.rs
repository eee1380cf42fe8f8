//! Files of an application that clients could fetch, because they stand below a document root.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{
        Read as _, Write as _, {self},
    },
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::Builder,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{
    check::{quoted, report::Report, web_root::WebRoot},
    config::script_line::is_plain_name,
    guard::start_error,
};

/// The program that looks at files and `.htaccess` files. Python has the regular expressions that
/// Apache has.
const PROGRAM: &str = include_str!("exposed.py");

/// Maximum number of files in the report.
const MAX_FILES: usize = 20;

/// The kind of a virtualenv.
const VIRTUALENV: &str = "virtualenv";

/// How often the program is asked whether it has ended.
const INTERVAL: Duration = Duration::from_millis(10);

/// Something that clients could fetch.
struct Exposed {
    kind: String,
    path: PathBuf,
}

/// Reports what clients could fetch below `root`: files beside `script` and below its directory,
/// and `files`. `python` looks at the files, for at most `limit`.
pub(super) fn inspect(
    report: &mut Report,
    root: &WebRoot,
    script: &Path,
    files: &[PathBuf],
    python: &Path,
    limit: Duration,
) {
    let found = match find(&root.directory, script, files, python, limit) {
        Ok(found) => found,
        Err(reason) => {
            report.warning(format!(
                "the files below `{}` were not looked at: `{}` {reason}",
                root.directory.display(),
                python.display()
            ));
            return;
        }
    };
    let (venvs, private): (Vec<Exposed>, Vec<Exposed>) =
        found.into_iter().partition(|one| one.kind == VIRTUALENV);
    let shown = root.directory.display();
    for Exposed { path, .. } in venvs {
        report.problem(format!(
            "a virtualenv stands where clients can request its files, and run its python where the \
             web server runs all files as programs: `{}`\n\
             hint: create it outside `{shown}`, install the packages there, and name it with \
             --venv DIR: python3 -m venv DIR; then rm -r {}",
            path.display(),
            quoted(&path)
        ));
    }
    if private.is_empty() {
        return;
    }
    let named = private.iter().take(MAX_FILES);
    let mut named: Vec<String> =
        named.map(|one| format!("{}: {}", one.kind, one.path.display())).collect();
    if private.len() > MAX_FILES {
        named.push(format!("and {} more", private.len() - MAX_FILES));
    }
    let named = named.join("\n");
    let hint = hint(&root.directory, script);
    if root.runs_programs {
        report.warning(format!(
            "clients can fetch files of the application from `{shown}`, unless the web server runs \
             all files there (ScriptAlias):\n{named}\nhint: {hint}"
        ));
    } else {
        report.problem(format!(
            "clients can fetch files of the application, below the document root \
             `{shown}`:\n{named}\nhint: {hint}"
        ));
    }
}

/// What to do about files of the application below `root`.
fn hint(root: &Path, script: &Path) -> String {
    let shown = root.display();
    let moved = format!(
        "move all but the script out of `{shown}`, and name their directory with --path DIR"
    );
    let rules = root.join(".htaccess");
    let is_missing = fs::symlink_metadata(&rules).is_err();
    if is_missing && script.parent() == Some(root) {
        let own = env::current_exe().map_or_else(|_| "wsgate".to_owned(), |own| quoted(&own));
        // Without a name, wsgate writes the rules for `app.wsgi`.
        let usual = root.join("app.wsgi");
        let command = if script == usual {
            format!("{own} init {}", quoted(root))
        } else if script.file_name().is_some_and(is_plain_name) {
            format!("{own} init {}", quoted(script))
        } else {
            format!("mv -n {} {} && {own} init {}", quoted(script), quoted(&usual), quoted(root))
        };
        return format!(
            "{moved}; or let wsgate write a `.htaccess` that keeps clients from them: {command}"
        );
    }
    // A denial for all but the script would be one for `/` and static files, too, which a front
    // controller passes on.
    let name = script.file_name().unwrap_or_default().to_string_lossy();
    let is_front_controller =
        |text: String| text.to_ascii_lowercase().contains("rewriterule") || text.contains(&*name);
    if !is_missing && fs::read_to_string(&rules).map_or(true, is_front_controller) {
        return moved;
    }
    let mut pattern = String::new();
    for character in name.chars() {
        if character.is_ascii_punctuation() && !"-_'".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    let section = PathBuf::from(format!("<FilesMatch \"^(?!{pattern}$)\">"));
    format!(
        "{moved}; or deny all but the script: printf '%s\\n' {} 'Require all denied' \
         '</FilesMatch>' >>{}",
        quoted(&section),
        quoted(&rules)
    )
}

/// What `python` finds.
///
/// # Errors
/// Why it found nothing: the end of a sentence about `python`.
fn find(
    root: &Path,
    script: &Path,
    files: &[PathBuf],
    python: &Path,
    limit: Duration,
) -> Result<Vec<Exposed>, String> {
    let start = script.parent().unwrap_or(Path::new("/"));
    let mut child = Command::new(python)
        .args(["-I", "-S", "-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| not_started("could not be started", &error))?;
    let paths = [root, start, script].into_iter().chain(files.iter().map(PathBuf::as_path));
    let input = paths.map(|path| path.as_os_str().as_bytes()).collect::<Vec<_>>().join(&0);
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("has no pipes".to_owned());
    };
    std::thread::scope(|scope| {
        let written = Builder::new().spawn_scoped(scope, move || stdin.write_all(&input));
        let output = Builder::new().spawn_scoped(scope, move || {
            let mut output = Vec::new();
            stdout.read_to_end(&mut output).map(|_| output)
        });
        let output = match written.and(output) {
            Ok(output) => output,
            Err(error) => {
                end(&mut child);
                return Err(not_started("was not asked: no thread could be started", &error));
            }
        };
        let begin = Instant::now();
        let exit = loop {
            match child.try_wait() {
                Ok(None) if begin.elapsed() < limit => std::thread::sleep(INTERVAL),
                Ok(Some(exit)) => break Ok(exit),
                _ => {
                    end(&mut child);
                    break Err(format!("took longer than {} s", limit.as_secs()));
                }
            }
        };
        let output = output.join();
        let exit = exit?;
        let (true, Ok(Ok(output))) = (exit.success(), output) else {
            return Err(format!("failed: {exit}"));
        };
        let fields: Vec<&[u8]> = output.split(|&byte| byte == 0).collect();
        Ok(fields
            .chunks_exact(2)
            .map(|pair| Exposed {
                kind: String::from_utf8_lossy(pair[0]).into_owned(),
                path: PathBuf::from(OsStr::from_bytes(pair[1])),
            })
            .collect())
    })
}

/// The reason `what`, with the limit that is its cause.
fn not_started(what: &str, error: &io::Error) -> String {
    let hint = start_error::limit_hint(error).map(|hint| format!("\nhint: {hint}"));
    format!("{what}: {error}{}", hint.unwrap_or_default())
}

/// Ends `child` and the processes that it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let _ = child.wait();
}
