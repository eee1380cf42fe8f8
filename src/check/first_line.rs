//! Problems that keep a web server from running a script by its `#!` line. The kernel reports them
//! to the web server alone, and only by an error number.

use std::{
    ffi::OsStr,
    fs::{
        File, {self},
    },
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::{
    check::{
        kernel_limit::kernel_limit,
        mended_line::{MendedLine, before_cr, misspelt, program_with_space, replaced_link},
        other_encoding::other_encoding,
        quoted,
        report::Report,
    },
    config::script_line::{base_name, beginning},
    python::elf::Elf,
};

/// The search path of programs that Apache's suexec sets, and about what web servers have.
const WEB_SERVER_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Extensions of files that a web server runs.
const EXECUTED: [&str; 3] = ["cgi", "fcgi", "wsgi"];

/// A script and the program that its first line should start.
struct Script<'a> {
    path: &'a Path,
    /// The web server runs the file, as far as its name and place show.
    is_for_web_server: bool,
    /// The gateway that runs this check.
    wsgate: PathBuf,
}

/// Reports what is wrong with the first line of the script at `path`, which stands below a document
/// root or in a directory of programs if `is_in_web_root`. Returns the program of that line.
pub(super) fn inspect(report: &mut Report, path: &Path, is_in_web_root: bool) -> Option<PathBuf> {
    let has_extension = path.extension().is_some_and(|own| EXECUTED.iter().any(|one| own == *one));
    let script = Script {
        path,
        is_for_web_server: is_in_web_root || has_extension,
        wsgate: std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/wsgate".into()),
    };
    // `Settings::resolve` reports a file that cannot be read.
    let start = beginning(path).ok()?;
    let Some(line) = start.strip_prefix(b"#!") else {
        if !start.starts_with(b"\x7fELF") {
            script.without_program(report, &start);
        }
        return None;
    };
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    script.with_program(report, &line[..end])
}

/// The path of `program` without links, if that is a wsgate at another path than this program.
pub(super) fn other_wsgate(program: &Path) -> Option<PathBuf> {
    let path =
        fs::canonicalize(program).ok().filter(|path| is_wsgate(program) && path.is_file())?;
    std::env::current_exe().is_ok_and(|this| this != path).then_some(path)
}

impl Script<'_> {
    /// The commands that write the wsgate of this check into the line.
    fn mended(&self) -> MendedLine<'_> {
        MendedLine::new(self.path, &self.wsgate)
    }

    /// Reports on a file that does not begin with `#!`.
    fn without_program(&self, report: &mut Report, start: &[u8]) {
        let shown = self.path.display();
        let file = quoted(self.path);
        let (text, is_marked) = match start.strip_prefix(b"\xef\xbb\xbf") {
            Some(text) => (text, true),
            None => (start, false),
        };
        let trimmed = text.trim_ascii_start();
        let mark = if is_marked {
            format!("LC_ALL=C sed -i '1s/^\\xef\\xbb\\xbf//' {file} && ")
        } else {
            String::new()
        };
        // Empty lines, and white space before the first character.
        let space = if trimmed.len() < text.len() && !trimmed.is_empty() {
            format!(
                "sed -i -e '/[^[:space:]]/,$!d' -e '0,/[^[:space:]]/s/^[[:space:]]*//' {file} && "
            )
        } else {
            String::new()
        };
        let before = format!("{mark}{space}");
        let before = before.strip_suffix(" && ").unwrap_or_default();
        if let Some((name, encoding)) = other_encoding(start) {
            report.problem(format!(
                "`{shown}` is saved as {name}, and the kernel finds no `#!` line\n\
                 hint: save it as UTF-8 without a byte order mark: iconv -f {encoding} -t UTF-8 \
                 {file} >{file}.new && cat {file}.new >{file} && rm {file}.new"
            ));
        } else if is_marked && trimmed.starts_with(b"#!") {
            report.problem(format!(
                "a byte order mark stands before the `#!` of `{shown}`, and the kernel does not \
                 find the line\nhint: save the file without the mark: {before}"
            ));
        } else if trimmed.len() < text.len() && trimmed.starts_with(b"#!") {
            report.problem(format!(
                "the `#!` line of `{shown}` is not at the very beginning of the file\n\
                 hint: remove what stands before it: {before}"
            ));
        } else if let Some(mend) = misspelt(trimmed) {
            report.problem(format!(
                "the first line of `{shown}` is not `#!` and a program, but almost\n\
                 hint: write the two characters #! first: {mark}{space}sed -i '{mend}' {file}"
            ));
        } else {
            let is_empty = text.is_empty();
            let what = match (start.is_empty(), is_marked) {
                (true, _) => "is empty",
                (_, true) => "begins with a byte order mark, and has no `#!` line",
                _ => "has no `#!` line",
            };
            // The line replaces a file of the mark alone.
            let mark = if is_empty { "" } else { &mark };
            let missing = format!(
                "`{shown}` {what}\nhint: for a web server that runs the file as a CGI script: \
                 {mark}{} && chmod +x {file}",
                self.mended().prepended(is_empty)
            );
            if is_executable(self.path) && self.is_for_web_server {
                report.problem(missing);
            } else if self.is_for_web_server {
                report.line(
                    "note",
                    format!(
                        "{missing}\nwithout that line, wsgate serves the file by `wsgate fastcgi`, \
                         or as Apache's Action"
                    ),
                );
            }
        }
    }

    /// Reports on the line `line`, which stands behind `#!`. Returns its program.
    fn with_program(&self, report: &mut Report, line: &[u8]) -> Option<PathBuf> {
        let shown = self.path.display();
        let file = quoted(self.path);
        if before_cr(line).is_some() {
            // Commands for the first line would change all lines.
            report.problem(format!(
                "the lines of `{shown}` end with CR alone, and the kernel takes all of them for \
                 the `#!` line\n\
                 hint: save the file with Unix line ends: sed -i 's/\\r/\\n/g' {file}"
            ));
            return None;
        }
        let words: Vec<&[u8]> = line
            .trim_ascii()
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .collect();
        self.line_end(report, line, &words);
        let this = self.wsgate.display();
        let Some(&program) = words.first() else {
            report.problem(format!(
                "the `#!` line of `{shown}` names no program\nhint: {}",
                self.mended().replaced()
            ));
            return None;
        };
        if let Some(program) = program_with_space(line) {
            report.problem(format!(
                "the `#!` line of `{shown}` names `{}`, and the kernel takes what stands before \
                 the space for the program\nhint: write a path without a space: {}",
                String::from_utf8_lossy(program),
                self.mended().with_other_program(program)
            ));
            return None;
        }
        let begins = line.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let (end, most) = (2 + begins + program.len(), kernel_limit());
        let program = Path::new(OsStr::from_bytes(program));
        if end >= most {
            report.problem(format!(
                "the program on the `#!` line of `{shown}` has a path of {} bytes, and the kernel \
                 reads {most} bytes of the line\n\
                 hint: use a link with a short path: {}",
                end - 2 - begins,
                MendedLine::new(self.path, program)
                    .with_other_program(program.as_os_str().as_bytes())
            ));
        }
        if base_name(program.as_os_str().as_bytes()) == b"env" {
            self.through_env(report, &words);
            return Some(program.to_owned());
        }
        if let Some((what, hint)) = self.unusable(program) {
            report.problem(format!(
                "the `#!` line of `{shown}` names `{}`, which {what}\nhint: {hint}",
                program.display()
            ));
        } else if !is_wsgate(program) {
            self.other_program(report, &program.display().to_string());
        } else if is_other_file(program, &self.wsgate) {
            report.line(
                "note",
                format!("the `#!` line starts `{}`; this check ran `{this}`", program.display()),
            );
        }
        if access(self.path, Access::EXEC_OK).is_err() {
            report.problem(format!("`{shown}` is not executable\nhint: chmod +x {file}"));
        }
        Some(program.to_owned())
    }

    /// Reports on a CR at the end of `line`, which has the words `words`.
    fn line_end(&self, report: &mut Report, line: &[u8], words: &[&[u8]]) {
        if !line.ends_with(b"\r") {
            return;
        }
        let shown = self.path.display();
        let file = quoted(self.path);
        let hint = format!("save the file with Unix line ends: sed -i 's/\\r$//' {file}");
        // The kernel passes everything after the first program as one argument, CR included, and
        // wsgate and `env -S` ignore white space at its end.
        let is_of_a_name = match words {
            [program, rest @ ..] if base_name(program) == b"env" => {
                rest.first().is_none_or(|option| !option.starts_with(b"-"))
            }
            _ => words.len() < 2,
        };
        if is_of_a_name {
            report.problem(format!(
                "the `#!` line of `{shown}` ends with CR LF, and the kernel looks for a program \
                 whose name ends with CR\nhint: {hint}"
            ));
        } else {
            report.line(
                "note",
                format!("the `#!` line of `{shown}` ends with CR LF; wsgate ignores CR\n{hint}"),
            );
        }
    }

    /// Reports on a line that starts its program through `env`.
    fn through_env(&self, report: &mut Report, words: &[&[u8]]) {
        let shown = self.path.display();
        let file = quoted(self.path);
        if words.len() > 2 && !words[1].starts_with(b"-") {
            report.problem(format!(
                "the `#!` line of `{shown}` passes arguments to `env`, and the kernel makes one \
                 name of all of them\n\
                 hint: write `env -S` instead of `env`: sed -i '1s|env |env -S |' {file}"
            ));
        }
        let mut path = WEB_SERVER_PATH.to_owned();
        let mut named = None;
        for (at, word) in words.iter().enumerate().skip(1) {
            if let Some(value) = word.strip_prefix(b"PATH=") {
                path = String::from_utf8_lossy(value).into_owned();
            } else if !word.starts_with(b"-") && !word.contains(&b'=') {
                named = Some((at, Path::new(OsStr::from_bytes(word))));
                break;
            }
        }
        let Some((at, program)) = named else {
            report.problem(format!(
                "the `#!` line of `{shown}` names no program after `env`\nhint: write the path of \
                 wsgate: {}",
                self.mended().replaced()
            ));
            return;
        };
        let name = program.display();
        if !is_wsgate(program) {
            self.other_program(report, &name.to_string());
            return;
        }
        let is_found = program.is_absolute() && is_executable(program)
            || path.split(':').any(|directory| is_executable(&Path::new(directory).join(program)));
        if !is_found {
            report.problem(format!(
                "`env` on the `#!` line of `{shown}` does not find `{name}` with the PATH of a web \
                 server, `{path}`\n\
                 hint: write the path of wsgate: {}",
                self.mended().after_env(words, at)
            ));
        }
        if access(self.path, Access::EXEC_OK).is_err() {
            report.problem(format!("`{shown}` is not executable\nhint: chmod +x {file}"));
        }
    }

    /// Reports that the line starts `program`, which is not wsgate.
    fn other_program(&self, report: &mut Report, program: &str) {
        let text = format!(
            "the `#!` line of `{}` starts `{program}`, not wsgate: a web server that runs the file \
             gets no response of the application\n\
             hint: {}",
            self.path.display(),
            self.mended().replaced()
        );
        if is_executable(self.path) && self.is_for_web_server {
            report.problem(text);
        } else {
            report.warning(text);
        }
    }

    /// Why the kernel cannot run `program`, and what to do. Nothing if it can.
    fn unusable(&self, program: &Path) -> Option<(String, String)> {
        let name = program.as_os_str().as_bytes();
        let install =
            format!("write the path of wsgate: {}", self.mended().with_other_program(name));
        if !program.is_absolute() {
            return Some((
                "is not a path from `/`: the kernel looks for it in the working directory"
                    .to_owned(),
                install,
            ));
        }
        let found = match fs::metadata(program) {
            Ok(found) => found,
            // Such as the link that `wsgate init` has made, to a virtualenv that was moved.
            Err(_) if program.is_symlink() => {
                return Some((
                    "is a link to something that does not exist".to_owned(),
                    format!("let it lead to this wsgate: {}", replaced_link(program, &self.wsgate)),
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Some(("does not exist".to_owned(), install));
            }
            Err(error) => return Some((format!("cannot be used: {error}"), install)),
        };
        if found.is_dir() {
            return Some(("is a directory".to_owned(), install));
        }
        if !is_executable(program) {
            return Some((
                "is not executable".to_owned(),
                format!("chmod a+x {}", quoted(program)),
            ));
        }
        let damage = damage(program)?;
        Some((damage, "install that program again, or w".to_owned() + &install[1..]))
    }
}

/// Why the file of a program cannot be run, by its content.
fn damage(program: &Path) -> Option<String> {
    let file = File::open(program).ok()?;
    let length = file.metadata().ok()?.len();
    if length == 0 {
        return Some("is empty".to_owned());
    }
    let elf = Elf::read(&file).ok()??;
    if let Some(least) = elf.least_length.filter(|&least| length < least) {
        return Some(format!("is damaged: it has {length} of at least {least} bytes"));
    }
    let own = Elf::read(&File::open("/proc/self/exe").ok()?).ok()??;
    (own.machine != elf.machine)
        .then(|| format!("is for {}, and this machine is not", elf.machine_name()))
}

/// Has `program` a name of wsgate?
fn is_wsgate(program: &Path) -> bool {
    base_name(program.as_os_str().as_bytes()).starts_with(b"wsgate")
}

/// Has the file any permission to be executed? Permissions of one user are judged elsewhere.
fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Are both paths of files, and of different ones?
fn is_other_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    matches!((identity(one), identity(other)), (Some(one), Some(other)) if one != other)
}
