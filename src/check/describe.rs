//! The lines about an application: its interpreter, its import, its first request, its files.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use wire::{
    app::Source,
    check::{Findings, FirstRequest, Loaded, Sharing, Validation},
};

use crate::{
    check::{
        quoted,
        reader::{Need, Reader},
        report::Report,
        warm,
        web_root::WebRoot,
    },
    config::{options::Mode, settings::Settings},
    system::{trusted_path::is_real_root, users},
};

/// Maximum number of unreadable files in the report.
const MAX_FILES: usize = 10;

/// Reports which interpreter and engine would serve the application.
pub(super) fn interpreter(report: &mut Report, settings: &Settings) {
    let interpreter = &settings.interpreter;
    report.line(
        "interpreter",
        format!("{} ({})", interpreter.program.display(), interpreter.chosen_by),
    );
    report.line("engine", format!("{}, build {}", settings.engine.path().display(), wire::build()));
    if let Some(skipped) = &interpreter.skipped {
        report.warning(skipped.clone());
    }
}

/// Reports what the engine has found. Returns whether several processes may load the application at
/// a time.
pub(super) fn findings(
    report: &mut Report,
    settings: &Settings,
    mode: Mode,
    findings: &Findings,
) -> bool {
    report.line("python", &findings.python_version);
    virtualenv(report, settings, findings);
    report.line("sys.path", findings.sys_path.join("\n"));
    report.line("import", format!("{} ms", findings.import_time.as_millis()));
    match &findings.loaded {
        Err(message) => {
            report.problem(message.clone());
            false
        }
        Ok(loaded) => {
            report.line("callable", format!("{}, a {}", loaded.callable, loaded.kind));
            first_request(report, loaded);
            if loaded.threads > 0 {
                report.line(
                    "threads",
                    format!("{} besides the main thread after import", loaded.threads),
                );
            }
            let sharing = warm::report_fitness(report, settings, mode, loaded);
            sharing < Sharing::OneProcess && loaded.first_request.is_complete
        }
    }
}

fn virtualenv(report: &mut Report, settings: &Settings, findings: &Findings) {
    let Some(venv) = &settings.interpreter.venv else {
        report.line("virtualenv", "none");
        return;
    };
    let made_by = venv.version.as_deref().unwrap_or("an unknown version");
    let directory = String::from_utf8_lossy(&venv.directory);
    report.line("virtualenv", format!("{directory}, created by Python {made_by}"));
    if let Source::File(script) = &settings.app.source
        && Path::new(OsStr::from_bytes(&venv.directory)).parent()
            == Path::new(OsStr::from_bytes(script)).parent()
        && WebRoot::of(Path::new(OsStr::from_bytes(script))).is_none()
    {
        report.line(
            "note",
            "the virtualenv is beside the script: where the web server runs all files in that \
             directory\n\
             as programs (ScriptAlias), clients can run its python; create it one directory up",
        );
    }
    let again = format!("python3 -m venv --clear {}", quoted(Path::new(&*directory)));
    if !findings.in_venv {
        report.problem(format!(
            "`{}` does not find its virtualenv\n\
             hint: create the virtualenv again, and install the packages: {again}",
            settings.interpreter.program.display()
        ));
    }
    if venv
        .version
        .as_ref()
        .is_some_and(|version| !findings.python_version.starts_with(&format!("{version}.")))
    {
        report.problem(format!(
            "the virtualenv was created by Python {made_by}; its python is {} now, and does not \
             find its packages\n\
             hint: create the virtualenv again, and install the packages: {again}",
            findings.python_version
        ));
    }
}

/// Reports on the first request, as a web server would get its response.
fn first_request(report: &mut Report, loaded: &Loaded) {
    let FirstRequest { target, status, messages, is_complete } = &loaded.first_request;
    let is_error = !is_complete || messages.contains("wsgate: error[");
    let number = status.split(' ').next().and_then(|number| number.parse::<u16>().ok());
    let is_served = number.is_some_and(|number| number < 500);
    if is_error {
        report.problem(messages.clone());
    } else if !messages.is_empty() {
        report.warning(messages.clone());
    }
    if is_error || status.is_empty() {
        return;
    }
    let valid = match &loaded.validation {
        Validation::Valid => "valid under wsgiref.validate".to_owned(),
        Validation::Invalid(_) => "not valid under wsgiref.validate".to_owned(),
        Validation::NotValidated(reason) => format!("not validated: {reason}"),
    };
    let time = loaded.request_time.as_millis();
    report.line("first request", format!("GET {target} returned {status} in {time} ms, {valid}"));
    if let Validation::Invalid(finding) = &loaded.validation {
        report.warning(format!(
            "wsgiref.validate: {finding}\n\
             hint: other WSGI servers may refuse that; the response was sent all the same"
        ));
    }
    if !is_served {
        report.problem(format!(
            "GET {target} returned {status}: the application has answered that itself\n\
             hint: its own messages, on standard error or in its log, have the reason; another \
             path can be checked with `wsgate check APP PATH`"
        ));
    } else if number == Some(404) {
        report.line(
            "note",
            format!("the application has no page at {target}; name one: `wsgate check APP PATH`"),
        );
    }
}

/// Reports which files of the application `reader` cannot use: among them the program of the `#!`
/// line and the engine.
pub(super) fn readability(
    report: &mut Report,
    settings: &Settings,
    modules: &[PathBuf],
    (program, engine): (Option<&Path>, Option<&Path>),
    reader: &Reader,
) {
    // A file that nobody can execute is reported with the first line.
    let executed = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
    };
    let mut paths: BTreeSet<(PathBuf, Need)> =
        modules.iter().map(|file| (file.clone(), Need::Read)).collect();
    if let Source::File(path) = &settings.app.source {
        let script = PathBuf::from(OsStr::from_bytes(path));
        if program.is_some() && executed(&script) {
            paths.insert((script.clone(), Need::Execute));
        }
        paths.insert((script, Need::Read));
    }
    paths.extend(engine.map(|engine| (engine.to_owned(), Need::Read)));
    paths.insert((settings.interpreter.program.clone(), Need::Execute));
    let program = program.map(Path::to_owned).filter(executed);
    paths.extend(program.map(|program| (program, Need::Execute)));
    let count = paths.iter().map(|(path, _)| path).collect::<BTreeSet<_>>().len();
    let unusable: BTreeSet<(PathBuf, &str)> =
        paths.iter().filter_map(|(path, need)| reader.first_unusable(path, *need)).collect();
    if unusable.is_empty() {
        report.line("readable", format!("all {count} files, by user {}", reader.name));
        return;
    }
    let named = unusable.iter().take(MAX_FILES).map(|(path, _)| path.display().to_string());
    let mut named: Vec<String> = named.collect();
    if unusable.len() > MAX_FILES {
        named.push(format!("and {} more", unusable.len() - MAX_FILES));
    }
    let (of_root, others): (Vec<_>, Vec<_>) =
        unusable.iter().take(MAX_FILES).partition(|(path, _)| is_home_of_root(path));
    let commands: Vec<String> =
        others.iter().map(|(path, mode)| format!("chmod {mode} {}", quoted(path))).collect();
    let elsewhere = of_root.iter().map(|(path, _)| {
        format!(
            "install what is in `{}`, the home directory of root, where other users can use it, \
             such as in /usr/local",
            path.display()
        )
    });
    let mut hints: Vec<String> = elsewhere.collect();
    if !commands.is_empty() {
        hints.push(commands.join(" && "));
    }
    report.problem(format!(
        "user {} cannot read files of the application:\n{}\nhint: {}",
        reader.name,
        named.join("\n"),
        hints.join("; ")
    ));
}

/// Is `path` the home directory of root, which no other user should enter?
fn is_home_of_root(path: &Path) -> bool {
    let root = users::passwd("0");
    root.is_some_and(|root| root.split(':').nth(5).is_some_and(|home| path == Path::new(home)))
}

/// Reports what depends on the environment of this check, and on its user instead of `reader`.
/// `is_pool`: the options are those of a configuration file.
pub(super) fn notes(
    report: &mut Report,
    settings: &Settings,
    reader: Option<&Reader>,
    is_pool: bool,
) {
    if std::env::var_os("PYTHONDONTWRITEBYTECODE").is_some() {
        report.line(
            "note",
            "PYTHONDONTWRITEBYTECODE is set: if the web server sets it, too, each start compiles \
             the modules again",
        );
    }
    if is_real_root() && !is_pool {
        let other = reader.filter(|reader| reader.uid != 0).map(|reader| {
            let number = if users::number(&reader.name).is_some() { "\\#" } else { "" };
            format!(
                "; this check has loaded the application as root, too: to load it as the web \
                 server does, run `sudo -u {number}{} wsgate check`",
                reader.name
            )
        });
        report.line(
            "note",
            format!(
                "this user is root: `wsgate fastcgi` serves as root, too, unless --user names \
                 another user (W0723){}",
                other.unwrap_or_default()
            ),
        );
    }
    if let Some(prefix) = &settings.pycache_prefix {
        report.line("pycache", prefix.display());
    }
}
