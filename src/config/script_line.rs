//! The `#!` line of a script, and the options on it.
//!
//! The options are read from the file, never from the arguments of the process. The kernel passes
//! everything after the interpreter as one argument, `env -S` splits it, and a web server may
//! append parts of the query string (RFC 3875 4.4): only the file has the text of its author.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{
        BufRead as _, Read as _, {self},
    },
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use clap::{CommandFactory as _, FromArgMatches as _, error::ErrorKind};
use diagnostics::message::{Code, LogMessage};
use rustix::fs::{Mode as FileMode, OFlags, open};
use wire::app::{App, Source};

use crate::config::{
    options::{
        Context, ScriptOptions,
        contexts::{accept_negative_numbers, first_without_effect, known_elsewhere},
    },
    unreadable_script::unreadable,
};

/// Maximum length of a `#!` line in bytes; the limit of the kernel is lower.
const MAX_LINE_BYTES: u64 = 4096;

/// The name of this program on a `#!` line.
const PROGRAM_NAME: &[u8] = b"wsgate";

/// The program that the first line of a file starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstLine {
    /// wsgate, with these arguments.
    Wsgate(Vec<OsString>),
    /// Another program, or the file is a program itself.
    OtherProgram,
    /// Nothing: the file has no `#!` line.
    NoProgram,
}

impl FirstLine {
    /// Reads the first line of `script`.
    ///
    /// # Errors
    /// If the file cannot be read, or its `#!` line has an unclosed quote.
    pub(crate) fn of(script: &Path) -> io::Result<Self> {
        Self::parse(&first_line(script)?)
    }

    /// Reads the line `line`.
    fn parse(line: &[u8]) -> io::Result<Self> {
        if line.starts_with(b"\x7fELF") {
            return Ok(Self::OtherProgram);
        }
        let Some(line) = line.strip_prefix(b"#!") else {
            return Ok(Self::NoProgram);
        };
        // An editor of another system may have ended the line with CR LF.
        let words = shlex::bytes::split(line.trim_ascii()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a quote on its `#!` line is not closed")
        })?;
        Ok(match wsgate_arguments(&words) {
            Some(arguments) => {
                Self::Wsgate(arguments.iter().cloned().map(OsString::from_vec).collect())
            }
            None => Self::OtherProgram,
        })
    }
}

/// The options on the `#!` line of `script`.
///
/// # Errors
/// The log message, if the script cannot be read or its line has a wrong option.
pub(crate) fn options_of(script: &Path) -> Result<ScriptOptions, LogMessage> {
    options_on(FirstLine::of(script), script)
}

/// The options on `line`, the first one of `script`.
fn options_on(line: io::Result<FirstLine>, script: &Path) -> Result<ScriptOptions, LogMessage> {
    let arguments = match line {
        Ok(FirstLine::Wsgate(arguments)) => arguments,
        Ok(FirstLine::OtherProgram | FirstLine::NoProgram) => Vec::new(),
        Err(error) => return Err(unreadable(script, &error)),
    };
    parse(arguments).map_err(|error| {
        LogMessage::new(
            Code::BadScriptOptions,
            format!("the options on the `#!` line of `{}` are wrong", script.display()),
        )
        .detail(error.render().to_string())
        .hint("`wsgate cgi --help` lists the options of a `#!` line")
    })
}

fn parse(arguments: Vec<OsString>) -> Result<ScriptOptions, clap::Error> {
    let mut command = accept_negative_numbers(ScriptOptions::command());
    let arguments = std::iter::once(OsString::from("wsgate")).chain(arguments);
    let matches = command.try_get_matches_from_mut(arguments).map_err(|error| {
        known_elsewhere(&error, "on a `#!` line", &mut command).unwrap_or(error)
    })?;
    let options = ScriptOptions::from_arg_matches(&matches)?;
    // The line serves CGI in its mode, and FastCGI.
    let contexts = [options.mode.mode.context(), Context::Pool, Context::LoneWorker];
    match first_without_effect(&command, &matches, &ScriptOptions::groups(), &contexts) {
        Some(message) => Err(command.error(ErrorKind::ArgumentConflict, message)),
        None => Ok(options),
    }
}

/// `options`, completed by those on the `#!` line of the application's script.
///
/// # Errors
/// The log message, if that line has a wrong option.
pub(crate) fn complete(
    options: ScriptOptions,
    app: &App,
    base: &Path,
) -> Result<ScriptOptions, LogMessage> {
    complete_as(options, app, base, |_| None)
}

/// `options`, completed as by [`complete`]. If `meant` returns another first line for the text of
/// the script, that one counts.
///
/// # Errors
/// The log message, if that line has a wrong option.
pub(crate) fn complete_as(
    options: ScriptOptions,
    app: &App,
    base: &Path,
    meant: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<ScriptOptions, LogMessage> {
    let Source::File(path) = &app.source else {
        return Ok(options);
    };
    let script = base.join(OsStr::from_bytes(path));
    if !script.is_file() {
        // `Settings::resolve` reports this in full.
        return Ok(options);
    }
    let line = match beginning(&script).ok().and_then(|text| meant(&text)) {
        Some(line) => options_on(FirstLine::parse(&line), &script)?,
        None => options_of(&script)?,
    };
    Ok(options.completed_by(line, script.parent().unwrap_or(base)))
}

/// The beginning of `script`, as far as its `#!` line may reach.
///
/// # Errors
/// If the script cannot be read, or is not a regular file.
pub(crate) fn beginning(script: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    opened(script)?.take(MAX_LINE_BYTES).read_to_end(&mut start)?;
    Ok(start)
}

/// The first line of `script`, with its line end.
///
/// # Errors
/// If the script cannot be read, or is not a regular file.
fn first_line(script: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::BufReader::new(opened(script)?.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// The opened script, which is a regular file.
fn opened(script: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a named pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(open(script, flags, FileMode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// The arguments of wsgate among the words of a `#!` line, which may start wsgate through `env`.
fn wsgate_arguments(words: &[Vec<u8>]) -> Option<&[Vec<u8>]> {
    let (program, mut rest) = words.split_first()?;
    let mut program = base_name(program);
    if program == b"env" {
        // `env` has options, and sets variables.
        while let Some((word, following)) = rest.split_first() {
            rest = following;
            if !word.starts_with(b"-") && !word.contains(&b'=') {
                program = base_name(word);
                break;
            }
        }
    }
    program.starts_with(PROGRAM_NAME).then_some(rest)
}

/// Can `name`, the name of a script, stand in the rules of a web server as it is?
pub(crate) fn is_plain_name(name: &OsStr) -> bool {
    name.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// The file name at the end of `path`.
pub(crate) fn base_name(path: &[u8]) -> &[u8] {
    Path::new(OsStr::from_bytes(path)).file_name().map_or(&[], OsStr::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_line_of(content: &[u8]) -> FirstLine {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        FirstLine::of(file.path()).unwrap()
    }

    fn wsgate(words: &[&str]) -> FirstLine {
        FirstLine::Wsgate(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn arguments_of_wsgate_are_options_in_every_spelling() {
        assert_eq!(first_line_of(b"#!/usr/bin/wsgate\nx"), wsgate(&[]));
        assert_eq!(
            first_line_of(b"#!/usr/bin/wsgate --debug --venv '/a b'\n"),
            wsgate(&["--debug", "--venv", "/a b"])
        );
        assert_eq!(first_line_of(b"#! /usr/bin/env -S wsgate --debug\n"), wsgate(&["--debug"]));
        assert_eq!(first_line_of(b"#!/usr/bin/env wsgate\n"), wsgate(&[]));
        assert_eq!(
            first_line_of(b"#!/usr/bin/env -S A=1 /x/wsgate --debug\n"),
            wsgate(&["--debug"])
        );
        assert_eq!(first_line_of(b"#!/opt/wsgate-0.1\n"), wsgate(&[]));
    }

    #[test]
    fn a_line_that_ends_as_on_windows_has_the_same_options() {
        assert_eq!(first_line_of(b"#!/usr/bin/wsgate --debug\r\n"), wsgate(&["--debug"]));
    }

    #[test]
    fn other_programs_and_plain_files_are_distinguished() {
        assert_eq!(first_line_of(b"#!/bin/sh\nexec wsgate\n"), FirstLine::OtherProgram);
        assert_eq!(first_line_of(b"\x7fELF\x02"), FirstLine::OtherProgram);
        assert_eq!(first_line_of(b"def application"), FirstLine::NoProgram);
        assert_eq!(first_line_of(b""), FirstLine::NoProgram);
        assert_eq!(first_line_of(b"#!\n"), FirstLine::OtherProgram);
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"#!/usr/bin/wsgate --colour\n").unwrap();
        let message = options_of(file.path()).unwrap_err();
        assert_eq!(message.code(), Code::BadScriptOptions);
        assert!(message.for_client().contains("--colour"), "{}", message.for_client());
    }
}
