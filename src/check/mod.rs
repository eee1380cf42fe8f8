//! `wsgate check`: what an application looks like to the interpreter that would serve it, and what
//! a web server's user could not read.

pub(crate) mod args;
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
    check::{Findings, Loaded},
    launch::{RequestFds, Work},
};

use crate::{
    call::through_pipe,
    check::{args::Check, reader::Reader},
    config::{
        options::{Mode, Options},
        script_line,
        settings::{AT_A_TERMINAL, Settings, application},
    },
    exit::{Complaint, Exit},
    guard,
    request::Request,
    system::trusted_path::is_mighty,
};

/// Begins a line below the value of the line before.
const NEXT_LINE: &str = "\n               ";

/// Most files that are listed as unreadable.
const FILES_SHOWN: usize = 10;

/// Checks an application and prints what is found.
///
/// # Errors
/// If it cannot be checked.
pub(crate) fn run(words: &Check) -> Result<Exit, Complaint> {
    let (app, base) = application(&words.app).map_err(Complaint::usage)?;
    let reader = Reader::find(words.user.as_deref()).map_err(Complaint::usage)?;
    let mut report = Report::default();
    report.line("application", &app);
    if let Source::File(path) = &app.source {
        report.problems.extend(script_line::problems(&base.join(OsStr::from_bytes(path))));
    }
    let (settings, mode) = script_line::complete(words.options.clone(), &app, &base)
        .and_then(|options| {
            let timeout = options.timeout.or(Some(AT_A_TERMINAL));
            let mode = options.mode;
            Ok((Settings::resolve(&Options { timeout, ..options }, app, &base)?, mode))
        })
        .map_err(|entry| {
            report.print_what_was_found();
            Complaint::settings(entry)
        })?;
    let interpreter = &settings.interpreter;
    report.line(
        "interpreter",
        format!("{} ({})", interpreter.program.display(), interpreter.chosen_by),
    );
    report.line("engine", format!("{}, build {}", settings.engine.path().display(), wire::build()));
    match findings(&settings) {
        Some(findings) => describe(&mut report, &settings, mode, &findings, reader.as_ref()),
        None => report.problem(
            "python did not get far enough to say more; the entry above says why".to_owned(),
        ),
    }
    Ok(report.print())
}

/// Lines for standard output, and what is wrong.
struct Report {
    text: String,
    problems: Vec<String>,
    /// The last line if nothing is wrong.
    verdict: &'static str,
}

impl Default for Report {
    fn default() -> Self {
        Self { text: String::new(), problems: Vec::new(), verdict: "no problem was found" }
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
            self.text.push_str(self.verdict);
            self.text.push('\n');
        }
        self.print_what_was_found();
        if self.problems.is_empty() { Exit::Done } else { Exit::Failed }
    }

    fn print_what_was_found(&self) {
        let mut text = self.text.clone();
        for problem in &self.problems {
            let _ = writeln!(text, "{:<14} {}", "problem", shown(problem.trim_end()));
        }
        // If standard output is closed there is nobody to tell.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
}

/// A value of several lines, as it stands behind its name.
fn shown(value: &str) -> String {
    escape::lines(value.as_bytes()).replace('\n', NEXT_LINE)
}

/// What the engine finds, if python gets that far.
fn findings(settings: &Settings) -> Option<Findings> {
    Findings::decode(&response(settings, Work::Check)?).ok()
}

/// All that the engine writes when it is put to `work`.
fn response(settings: &Settings, work: fn(RequestFds) -> Work) -> Option<Vec<u8>> {
    let request = Request::made("GET", "/", Vec::new());
    let nothing = File::open("/dev/null").ok()?.into();
    let read = |response| {
        let mut bytes = Vec::new();
        File::from(response).read_to_end(&mut bytes).map(|_| bytes)
    };
    let (bytes, _) =
        through_pipe(nothing, |channels| guard::run(settings, work, &request, channels), read)
            .ok()?;
    bytes.ok()
}

fn describe(
    report: &mut Report,
    settings: &Settings,
    mode: Mode,
    findings: &Findings,
    reader: Option<&Reader>,
) {
    report.line("python", &findings.python_version);
    match &settings.interpreter.venv {
        Some(venv) => {
            let made_by = venv.version.as_deref().unwrap_or("an unknown version");
            report.line(
                "virtualenv",
                format!("{}, made by Python {made_by}", String::from_utf8_lossy(&venv.directory)),
            );
            if let Source::File(script) = &settings.app.source
                && Path::new(OsStr::from_bytes(&venv.directory)).parent()
                    == Path::new(OsStr::from_bytes(script)).parent()
            {
                report.line(
                    "note",
                    "the virtualenv lies beside the script: where the web server runs all that is \
                        in that directory\n\
                     as programs (ScriptAlias), clients can run its python; move it one directory \
                     up",
                );
            }
            if !findings.in_venv {
                report.problem(format!(
                    "`{}` does not see its virtualenv; make it again",
                    settings.interpreter.program.display()
                ));
            }
            if venv
                .version
                .as_ref()
                .is_some_and(|version| !findings.python_version.starts_with(&format!("{version}.")))
            {
                report.problem(format!(
                    "the virtualenv was made by Python {made_by}, its python is {} now and does \
                     not see its packages; make it again",
                    findings.python_version
                ));
            }
        }
        None => report.line("virtualenv", "none"),
    }
    report.line("sys.path", findings.sys_path.join("\n"));
    report.line("import", format!("{} ms", findings.import_time.as_millis()));
    match &findings.loaded {
        Err(entry) => report.problem(entry.clone()),
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
                        format!("GET / gave {status} in {time} ms, {valid}"),
                    );
                }
                Err(entries) => report.problem(entries.clone()),
            }
            if loaded.threads > 0 {
                report.line(
                    "threads",
                    format!("{} beside the main one after import", loaded.threads),
                );
            }
            crate::check::warm::fitness(report, settings, mode, loaded);
            if let Some(reader) = reader {
                readability(report, settings, loaded, reader);
            }
        }
    }
    if std::env::var_os("PYTHONDONTWRITEBYTECODE").is_some() {
        report.line(
            "note",
            "PYTHONDONTWRITEBYTECODE is set: if the web server sets it too, modules are compiled \
             at each start",
        );
    }
    if is_mighty() {
        report.line(
            "note",
            "this is root: `wsgate fastcgi` serves as root, too, unless --user names another user \
             (W0723)",
        );
    }
    if let Some(prefix) = &settings.pycache_prefix {
        report.line("pycache", prefix.display());
    }
}

fn readability(report: &mut Report, settings: &Settings, loaded: &Loaded, reader: &Reader) {
    let mut paths: BTreeSet<PathBuf> =
        loaded.files.iter().map(|file| PathBuf::from(OsStr::from_bytes(file))).collect();
    if let Source::File(path) = &settings.app.source {
        paths.insert(PathBuf::from(OsStr::from_bytes(path)));
    }
    paths.insert(settings.engine.path().to_owned());
    paths.insert(settings.interpreter.program.clone());
    let closed: BTreeSet<PathBuf> =
        paths.iter().filter_map(|path| reader.first_closed(path)).collect();
    if closed.is_empty() {
        report.line("readable", format!("all {} files, by the user {}", paths.len(), reader.name));
        return;
    }
    let mut text = format!("the user {} could not read, and would need to:", reader.name);
    for path in closed.iter().take(FILES_SHOWN) {
        let _ = write!(text, "\n{}", path.display());
    }
    if closed.len() > FILES_SHOWN {
        let _ = write!(text, "\nand {} more", closed.len() - FILES_SHOWN);
    }
    report.problem(text);
}
