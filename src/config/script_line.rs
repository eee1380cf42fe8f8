//! The `#!` line of a script, and the options on it.
//!
//! They are read from the file, never from the arguments of the process. The kernel hands over
//! everything behind the interpreter as one argument, `env -S` splits it, a web server may append
//! words of the query string (RFC 3875 4.4): only the file says what its author wrote.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{
        BufRead as _, Read as _, {self},
    },
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, FromArgMatches as _, error::ErrorKind};
use diagnostics::message::{Code, LogMessage};
use rustix::fs::{Access, Mode as FileMode, OFlags, access, open};
use wire::app::{App, Source};

use crate::{
    cli::effects,
    config::{
        options::{Changes, Mode, Options, ScriptLine},
        settings,
    },
};

/// Longest line that the kernel reads as a `#!` line, and more than any needs.
const LONGEST: u64 = 4096;

/// The name under which we stand on such a line.
const OUR_NAME: &[u8] = b"wsgate";

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A `#!` line that starts us, with these words behind our name.
    Ours(Vec<OsString>),
    /// A `#!` line that starts another program, or a program.
    Anothers,
    /// None of these: a file that is no program by itself.
    NoProgram,
}

impl Beginning {
    /// Reads it.
    ///
    /// # Errors
    /// If the file cannot be read, or its `#!` line has an open quote.
    pub(crate) fn of(script: &Path) -> io::Result<Self> {
        let line = first_line(script)?;
        if line.starts_with(b"\x7fELF") {
            return Ok(Self::Anothers);
        }
        let Some(line) = line.strip_prefix(b"#!") else {
            return Ok(Self::NoProgram);
        };
        // An editor of another system may have ended the line with CR LF.
        let words = shlex::bytes::split(line.trim_ascii()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a quote is not closed on its `#!` line")
        })?;
        Ok(match behind_our_name(&words) {
            Some(words) => {
                Self::Ours(words.iter().map(|word| OsString::from_vec(word.clone())).collect())
            }
            None => Self::Anothers,
        })
    }
}

/// The words behind our name on the `#!` line of `script`; none if it has no such line of ours.
///
/// # Errors
/// The log message, if it cannot be read.
pub(crate) fn words_of(script: &Path) -> Result<Vec<OsString>, LogMessage> {
    match Beginning::of(script) {
        Ok(Beginning::Ours(words)) => Ok(words),
        Ok(Beginning::Anothers | Beginning::NoProgram) => Ok(Vec::new()),
        Err(error) => Err(LogMessage::error(
            Code::UnreadableScript,
            format!("`{}` cannot be read: {error}", script.display()),
        )
        .hint("the user that the request runs as must be able to read the script: chmod a+r")),
    }
}

/// The options on the `#!` line of `script`.
///
/// # Errors
/// The log message, if it cannot be read or has words that are no options.
pub(crate) fn options_of(script: &Path) -> Result<Options, LogMessage> {
    let words = words_of(script)?;
    let parsed = (|| {
        let mut known = effects::taking_negatives(ScriptLine::command());
        let found = known
            .try_get_matches_from_mut(std::iter::once(OsString::from("wsgate")).chain(words))?;
        let line = ScriptLine::from_arg_matches(&found)?;
        match effects::refused_on_line(&known, &found, &line.options) {
            Some(refused) => Err(known.error(ErrorKind::ArgumentConflict, refused)),
            None => Ok(line),
        }
    })();
    match parsed {
        Ok(line) => Ok(Options { changes: line.changes, slow: line.slow, ..line.options }),
        Err(error) => Err(LogMessage::error(
            Code::BadScriptOptions,
            format!("the options on the `#!` line of `{}` are wrong", script.display()),
        )
        .detail(error.render().to_string())
        .hint("`wsgate cgi --help` lists the options that may stand there")),
    }
}

/// `options`, with those of the application's own `#!` line where they say nothing.
///
/// # Errors
/// The log message, if that line has words that are no options.
pub(crate) fn complete(options: Options, app: &App, base: &Path) -> Result<Options, LogMessage> {
    let Source::File(path) = &app.source else {
        return Ok(options);
    };
    let script = base.join(OsStr::from_bytes(path));
    if !script.is_file() {
        // Settings say so in full.
        return Ok(options);
    }
    let line = options_of(&script)?;
    let home = script.parent().unwrap_or(base);
    let of_line = |named: Option<PathBuf>| named.map(|named| home.join(named));
    let (venv, python) = if options.venv.is_some() || options.python.is_some() {
        (options.venv, options.python)
    } else {
        (of_line(line.venv), line.python.map(|named| settings::at(home, &named)))
    };
    Ok(Options {
        venv,
        python,
        chdir: options.chdir.or_else(|| of_line(line.chdir)),
        path: line.path.iter().map(|named| home.join(named)).chain(options.path).collect(),
        env: line.env.into_iter().chain(options.env).collect(),
        debug: options.debug || line.debug,
        timeout: options.timeout.or(line.timeout),
        mode: if options.mode == Mode::Cold { line.mode } else { options.mode },
        warm: options.warm,
        warm_up: options.warm_up.or(line.warm_up),
        script_name: options.script_name.or(line.script_name),
        changes: Changes {
            reload_on: line.changes.reload_on.iter().map(|named| home.join(named)).collect(),
            reload: line.changes.reload,
        },
        limits: options.limits.or(line.limits),
        connections: options.connections.or(line.connections),
        slow: line.slow,
    })
}

/// What keeps a web server from running `script` by its `#!` line. The kernel reports these to the
/// web server alone, in words that help nobody.
pub(crate) fn problems(script: &Path) -> Vec<String> {
    let shown = script.display();
    let mut problems = Vec::new();
    let line = first_line(script).unwrap_or_default();
    let Some(words) = line.strip_prefix(b"#!") else {
        // No script of its own: another program names it.
        return problems;
    };
    if words.ends_with(b"\r\n") {
        problems.push(format!(
            "the `#!` line of `{shown}` ends with CR LF, and the kernel looks for a program whose \
                name ends with CR\n\
             hint: save the file with Unix line ends: sed -i 's/\\r$//' {shown}"
        ));
    }
    let program = words.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let program = Path::new(OsStr::from_bytes(program));
    let words: Vec<&[u8]> =
        words.trim_ascii().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    if base_name(program.as_os_str().as_bytes()) == b"env"
        && words.len() > 2
        && !words[1].starts_with(b"-")
    {
        problems.push(format!(
            "the `#!` line of `{shown}` gives `env` more than a name, and `env` takes all of it \
                for one name\n\
             hint: write `env -S` in place of `env`"
        ));
    }
    if !program.is_file() {
        problems.push(format!(
            "the `#!` line of `{shown}` names `{}`, which is not there\nhint: write the path that \
                `command -v wsgate` prints",
            program.display()
        ));
    }
    if access(script, Access::EXEC_OK).is_err() {
        problems.push(format!("`{shown}` is not executable\nhint: chmod +x {shown}"));
    }
    problems
}

/// The first line of `script`, with its end.
///
/// # Errors
/// If it cannot be read, or is no regular file.
fn first_line(script: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for somebody to write to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(open(script, flags, FileMode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut line = Vec::new();
    io::BufReader::new(file.take(LONGEST)).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The words behind our name, on a line that may name us by way of `env`.
fn behind_our_name(words: &[Vec<u8>]) -> Option<&[Vec<u8>]> {
    let (program, mut rest) = words.split_first()?;
    let mut program = base_name(program);
    if program == b"env" {
        // Its own options, and variables that it sets.
        while let Some((word, behind)) = rest.split_first() {
            rest = behind;
            if !word.starts_with(b"-") && !word.contains(&b'=') {
                program = base_name(word);
                break;
            }
        }
    }
    program.starts_with(OUR_NAME).then_some(rest)
}

fn base_name(path: &[u8]) -> &[u8] {
    Path::new(OsStr::from_bytes(path)).file_name().map_or(&[], OsStr::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(content: &[u8]) -> Beginning {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Beginning::of(file.path()).unwrap()
    }

    fn ours(words: &[&str]) -> Beginning {
        Beginning::Ours(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn words_behind_our_name_are_options_in_every_spelling() {
        assert_eq!(beginning(b"#!/usr/bin/wsgate\nx"), ours(&[]));
        assert_eq!(
            beginning(b"#!/usr/bin/wsgate --debug --venv '/a b'\n"),
            ours(&["--debug", "--venv", "/a b"])
        );
        assert_eq!(beginning(b"#! /usr/bin/env -S wsgate --debug\n"), ours(&["--debug"]));
        assert_eq!(beginning(b"#!/usr/bin/env wsgate\n"), ours(&[]));
        assert_eq!(beginning(b"#!/usr/bin/env -S A=1 /x/wsgate --debug\n"), ours(&["--debug"]));
        assert_eq!(beginning(b"#!/opt/wsgate-0.1\n"), ours(&[]));
    }

    #[test]
    fn a_line_that_ends_as_on_windows_has_the_same_options() {
        assert_eq!(beginning(b"#!/usr/bin/wsgate --debug\r\n"), ours(&["--debug"]));
    }

    #[test]
    fn other_programs_and_plain_files_are_told_apart() {
        assert_eq!(beginning(b"#!/bin/sh\nexec wsgate\n"), Beginning::Anothers);
        assert_eq!(beginning(b"\x7fELF\x02"), Beginning::Anothers);
        assert_eq!(beginning(b"def application"), Beginning::NoProgram);
        assert_eq!(beginning(b""), Beginning::NoProgram);
        assert_eq!(beginning(b"#!\n"), Beginning::Anothers);
    }

    #[test]
    fn a_word_that_is_no_option_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"#!/usr/bin/wsgate --colour\n").unwrap();
        let entry = options_of(file.path()).unwrap_err();
        assert_eq!(entry.code(), Code::BadScriptOptions);
        assert!(entry.for_client().contains("--colour"), "{}", entry.for_client());
    }
}
