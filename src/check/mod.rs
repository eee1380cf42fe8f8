//! `wsgate check`: loads an application in the interpreter that would serve it. The report lists
//! the findings, and the files that the user of the web server cannot read.

pub(crate) mod args;
mod budget;
mod reader;
mod warm;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    io::{
        Read as _, Write as _, {self},
    },
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use diagnostics::escape;
use wire::{
    app::Source,
    check::{Findings, Loaded, Sharing},
    launch::{RequestFds, Work},
    message,
};

use crate::{
    check::{args::CheckArgs, budget::Measured, reader::Reader},
    config::{
        missing_path::MissingPath,
        options::Mode,
        script_line,
        settings::{INTERACTIVE_TIMEOUT_SECS, Settings, application},
    },
    exit::{CommandError, Exit},
    guard,
    request::Request,
    system::trusted_path::is_real_root,
};

/// Indents a line below the value of the previous line.
const CONTINUATION: &str = "\n               ";

/// Maximum number of unreadable files in the report.
const MAX_FILES: usize = 10;

/// Checks an application, and prints the report.
///
/// # Errors
/// If the application cannot be checked.
pub(crate) fn run(args: &CheckArgs) -> Result<Exit, CommandError> {
    let (app, base) = application(&args.app)?;
    let reader = Reader::find(args.check.user.as_deref()).map_err(CommandError::settings)?;
    let mut report = Report::default();
    report.line("application", &app);
    if let Source::File(path) = &app.source {
        report.problems.extend(script_line::problems(&base.join(OsStr::from_bytes(path))));
    }
    let (settings, options) = script_line::complete(args.script_options(), &app, &base)
        .and_then(|mut options| {
            options.request.timeout.get_or_insert(INTERACTIVE_TIMEOUT_SECS);
            Ok((Settings::resolve(&options, app.clone(), &base)?, options))
        })
        .map_err(|message| {
            report.print_findings();
            CommandError::settings(message)
        })?;
    let interpreter = &settings.interpreter;
    report.line(
        "interpreter",
        format!("{} ({})", interpreter.program.display(), interpreter.chosen_by),
    );
    for missing in MissingPath::of_loading(&settings) {
        report.problem(missing.message().for_client());
    }
    report.line("engine", format!("{}, build {}", settings.engine.path().display(), wire::build()));
    match findings(&settings) {
        Some(findings) => {
            let mode = options.mode.mode;
            let is_fit = describe(&mut report, &settings, mode, &findings, reader.as_ref());
            let measured = Measured { app: &app, options: &options, base: &base, is_fit };
            budget::report(&mut report, &measured);
        }
        None => report.problem(
            "python exited before it could report more: see the log message above".to_owned(),
        ),
    }
    Ok(report.print())
}

/// The lines of the report, and the problems.
struct Report {
    text: String,
    problems: Vec<String>,
    /// The last line, if there is no problem.
    conclusion: &'static str,
}

impl Default for Report {
    fn default() -> Self {
        Self { text: String::new(), problems: Vec::new(), conclusion: "no problem was found" }
    }
}

impl Report {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name:<14} {}", shown(&value.to_string()));
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn print(mut self) -> Exit {
        if self.problems.is_empty() {
            self.text.push_str(self.conclusion);
            self.text.push('\n');
        }
        self.print_findings();
        if self.problems.is_empty() { Exit::Success } else { Exit::Failure }
    }

    fn print_findings(&self) {
        let mut text = self.text.clone();
        for problem in &self.problems {
            let _ = writeln!(text, "{:<14} {}", "problem", shown(problem.trim_end()));
        }
        // If standard output is closed, nobody reads the report.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
}

/// A value of one or more lines, formatted for the report.
fn shown(value: &str) -> String {
    escape::lines(value.as_bytes()).replace('\n', CONTINUATION)
}

/// The findings of the engine, unless python exits before.
fn findings(settings: &Settings) -> Option<Findings> {
    message::decode(&response(settings, Work::Check)?).ok()
}

/// The response of the engine to `work`.
fn response(settings: &Settings, work: fn(RequestFds) -> Work) -> Option<Vec<u8>> {
    let request = Request::synthetic("GET", "/", Vec::new());
    let nothing = File::open("/dev/null").ok()?.into();
    let read = |response| {
        let mut bytes = Vec::new();
        File::from(response).read_to_end(&mut bytes).map(|_| bytes)
    };
    let (bytes, _) = guard::run_with_pipe(
        nothing,
        |channels| guard::run(settings, work, &request, channels),
        read,
    )
    .ok()?;
    bytes.ok()
}

/// Describes the findings. Returns whether several processes may load the application at a time.
fn describe(
    report: &mut Report,
    settings: &Settings,
    mode: Mode,
    findings: &Findings,
    reader: Option<&Reader>,
) -> bool {
    let mut is_fit = false;
    report.line("python", &findings.python_version);
    match &settings.interpreter.venv {
        Some(venv) => {
            let made_by = venv.version.as_deref().unwrap_or("an unknown version");
            report.line(
                "virtualenv",
                format!(
                    "{}, created by Python {made_by}",
                    String::from_utf8_lossy(&venv.directory)
                ),
            );
            if let Source::File(script) = &settings.app.source
                && Path::new(OsStr::from_bytes(&venv.directory)).parent()
                    == Path::new(OsStr::from_bytes(script)).parent()
            {
                report.line(
                    "note",
                    "the virtualenv is beside the script: where the web server runs all files in \
                     that directory\n\
                     as programs (ScriptAlias), clients can run its python; move it one directory \
                     up",
                );
            }
            if !findings.in_venv {
                report.problem(format!(
                    "`{}` does not find its virtualenv; create the virtualenv again",
                    settings.interpreter.program.display()
                ));
            }
            if venv
                .version
                .as_ref()
                .is_some_and(|version| !findings.python_version.starts_with(&format!("{version}.")))
            {
                report.problem(format!(
                    "the virtualenv was created by Python {made_by}; its python is {} now, and \
                     does not find its packages; create the virtualenv again",
                    findings.python_version
                ));
            }
        }
        None => report.line("virtualenv", "none"),
    }
    report.line("sys.path", findings.sys_path.join("\n"));
    report.line("import", format!("{} ms", findings.import_time.as_millis()));
    match &findings.loaded {
        Err(message) => report.problem(message.clone()),
        Ok(loaded) => {
            report.line("callable", format!("{}, a {}", loaded.callable, loaded.kind));
            match &loaded.first_request {
                Ok(status) => {
                    let valid = loaded.not_validated.as_ref().map_or_else(
                        || "valid under wsgiref.validate".to_owned(),
                        |reason| format!("not validated: {reason}"),
                    );
                    let time = loaded.request_time.as_millis();
                    report.line(
                        "first request",
                        format!("GET / returned {status} in {time} ms, {valid}"),
                    );
                }
                Err(messages) => report.problem(messages.clone()),
            }
            if loaded.threads > 0 {
                report.line(
                    "threads",
                    format!("{} besides the main thread after import", loaded.threads),
                );
            }
            let sharing = warm::report_fitness(report, settings, mode, loaded);
            is_fit = sharing < Sharing::OneProcess && loaded.first_request.is_ok();
            if let Some(reader) = reader {
                report_readability(report, settings, loaded, reader);
            }
        }
    }
    if std::env::var_os("PYTHONDONTWRITEBYTECODE").is_some() {
        report.line(
            "note",
            "PYTHONDONTWRITEBYTECODE is set: if the web server sets it, too, each start compiles \
             the modules again",
        );
    }
    if is_real_root() {
        report.line(
            "note",
            "this user is root: `wsgate fastcgi` serves as root, too, unless --user names another \
             user (W0723)",
        );
    }
    if let Some(prefix) = &settings.pycache_prefix {
        report.line("pycache", prefix.display());
    }
    is_fit
}

fn report_readability(report: &mut Report, settings: &Settings, loaded: &Loaded, reader: &Reader) {
    let mut paths: BTreeSet<PathBuf> =
        loaded.files.iter().map(|file| PathBuf::from(OsStr::from_bytes(file))).collect();
    if let Source::File(path) = &settings.app.source {
        paths.insert(PathBuf::from(OsStr::from_bytes(path)));
    }
    paths.insert(settings.engine.path().to_owned());
    paths.insert(settings.interpreter.program.clone());
    let unusable: BTreeSet<PathBuf> =
        paths.iter().filter_map(|path| reader.first_unusable(path)).collect();
    if unusable.is_empty() {
        report.line("readable", format!("all {} files, by user {}", paths.len(), reader.name));
        return;
    }
    let mut text = format!("user {} cannot read files of the application:", reader.name);
    for path in unusable.iter().take(MAX_FILES) {
        let _ = write!(text, "\n{}", path.display());
    }
    if unusable.len() > MAX_FILES {
        let _ = write!(text, "\nand {} more", unusable.len() - MAX_FILES);
    }
    report.problem(text);
}
