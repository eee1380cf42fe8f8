//! Exceptions as text of limited length, whatever the exception does.
//!
//! Python's `traceback` module is tried first. If it fails, or if a file of the application hides
//! it, this module writes a simpler text. The simpler text needs no imports and no calls into the
//! application.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use diagnostics::shorten::{shorten, shorten_lines};
use pyo3::{
    prelude::*,
    types::{PyList, PySlice, PyString, PyTraceback, PyTuple},
};

use crate::{stdlib, wsgi::exceptions::Interrupted};

/// Longest piece of a traceback in bytes: a frame, or a message with its type.
const MAX_PIECE_BYTES: usize = 4_000;

/// Longest traceback in bytes.
const MAX_TRACEBACK_BYTES: usize = 30_000;

/// How many characters at the beginning and at the end of a `str` are shown.
const SHOWN_CHARACTERS: isize = 4_000;

/// How many exceptions of a chain, notes, members of a group, and frames at both ends the simpler
/// text shows.
const MAX_CHAINED: usize = 20;
const MAX_NOTES: usize = 20;
const MAX_MEMBERS: usize = 15;
const FIRST_FRAMES: usize = 20;
const LAST_FRAMES: usize = 60;

/// Longest source file, in bytes, that is searched for a line.
const MAX_SOURCE_BYTES: u64 = 4 << 20;

/// An exception as text.
pub(crate) struct ExceptionText {
    /// `Type: message`, with the first line of the message.
    pub(crate) line: String,
    /// The traceback as Python prints it.
    pub(crate) trace: String,
}

impl ExceptionText {
    /// Describes `error`. Calls its `__str__` first, which a deadline interrupts once. Must be
    /// called while the request may be interrupted, since `__str__` is code of the application.
    pub(crate) fn of(py: Python<'_>, error: &PyErr) -> Self {
        let message = message(error.value(py));
        let line = match message.text.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{}: {line}", type_name(py, error)),
            None => type_name(py, error),
        };
        let python = if message.is_interrupted { None } else { by_python(py, error).ok() };
        let pieces = python.unwrap_or_else(|| plainly(py, error, message));
        let trace =
            pieces.iter().map(|piece| shorten_lines(piece, MAX_PIECE_BYTES)).collect::<String>();
        Self { line, trace: shorten_lines(&trace, MAX_TRACEBACK_BYTES).into_owned() }
    }
}

/// The traceback as Python prints it.
pub(crate) fn format_exception(py: Python<'_>, error: &PyErr) -> String {
    ExceptionText::of(py, error).trace
}

/// A `str` without its middle if it is long. Lone surrogates, which UTF-8 lacks, are escaped.
pub(crate) fn text_of(text: &Bound<'_, PyString>) -> PyResult<String> {
    let py = text.py();
    // Methods of a subclass are code of the application.
    let class = py.get_type::<PyString>();
    let encoded = |text: &Bound<'_, PyAny>| -> PyResult<String> {
        let bytes = class.call_method1("encode", (text, "utf-8", "backslashreplace"))?;
        Ok(String::from_utf8_lossy(bytes.extract::<&[u8]>()?).into_owned())
    };
    let length: isize = class.call_method1("__len__", (text,))?.extract()?;
    if length <= 2 * SHOWN_CHARACTERS {
        return encoded(text);
    }
    let part =
        |start, end| class.call_method1("__getitem__", (text, PySlice::new(py, start, end, 1)));
    let (begin, end) = (
        encoded(&part(0, SHOWN_CHARACTERS)?)?,
        encoded(&part(length - SHOWN_CHARACTERS, length)?)?,
    );
    Ok(format!("{begin} … ({} characters) … {end}", length - 2 * SHOWN_CHARACTERS))
}

/// The message of an exception.
struct ExceptionMessage {
    text: String,
    /// The deadline of the request interrupted `__str__`.
    is_interrupted: bool,
}

fn message(value: &Bound<'_, PyAny>) -> ExceptionMessage {
    match value.str().and_then(|text| text_of(&text)) {
        Ok(text) => ExceptionMessage { text, is_interrupted: false },
        // The text names the type even if `__str__` raises.
        Err(error) => ExceptionMessage {
            text: "<exception str() failed>".to_owned(),
            is_interrupted: error.is_instance_of::<Interrupted>(value.py()),
        },
    }
}

fn type_name(py: Python<'_>, error: &PyErr) -> String {
    error
        .get_type(py)
        .qualname()
        .and_then(|name| text_of(&name))
        .map_or_else(|_| "exception".to_owned(), |name| shorten(&name, 200).into_owned())
}

/// The pieces of a traceback by Python's own module.
fn by_python(py: Python<'_>, error: &PyErr) -> PyResult<Vec<String>> {
    let lines = stdlib::import(py, "traceback")?.call_method1(
        "format_exception",
        (error.get_type(py), error.value(py), from_application(error.traceback(py))?),
    )?;
    let lines = lines.cast_into::<PyList>()?;
    lines.iter().map(|line| text_of(line.cast::<PyString>()?)).collect()
}

/// The traceback without the frames of the import system that stand before the application's own.
fn from_application(
    traceback: Option<Bound<'_, PyTraceback>>,
) -> PyResult<Option<Bound<'_, PyAny>>> {
    let mut rest = traceback.map(Bound::into_any);
    while let Some(step) = &rest {
        let file = step.getattr("tb_frame")?.getattr("f_code")?.getattr("co_filename")?;
        if !file.cast::<PyString>()?.to_string_lossy().starts_with("<frozen importlib") {
            break;
        }
        let next = step.getattr("tb_next")?;
        rest = (!next.is_none()).then_some(next);
    }
    Ok(rest)
}

/// The pieces of a traceback without Python's module: frames, causes, notes and members of groups.
/// `message` is the message of `error`.
fn plainly(py: Python<'_>, error: &PyErr, message: ExceptionMessage) -> Vec<String> {
    let mut chain = vec![(error.value(py).clone().into_any(), "")];
    while let Some(((last, _), room)) = chain.last().zip(MAX_CHAINED.checked_sub(chain.len())) {
        let attribute = |name: &str| last.getattr(name).ok().filter(|value| !value.is_none());
        let hides_context = attribute("__suppress_context__")
            .is_some_and(|hides| hides.is_truthy().unwrap_or(true));
        let next = match (attribute("__cause__"), attribute("__context__")) {
            (Some(cause), _) => (
                cause,
                "\nThe above exception was the direct cause of the following exception:\n\n",
            ),
            (None, Some(context)) if !hides_context => (
                context,
                "\nDuring handling of the above exception, another exception occurred:\n\n",
            ),
            _ => break,
        };
        if room == 0 || chain.iter().any(|(known, _)| known.is(&next.0)) {
            break;
        }
        chain.push(next);
    }
    let mut pieces = Vec::new();
    for (value, link) in chain.iter().skip(1).rev() {
        let frames = value
            .getattr("__traceback__")
            .ok()
            .and_then(|frames| frames.cast_into::<PyTraceback>().ok());
        describe_plainly(value, frames, None, &mut pieces);
        pieces.push((*link).to_owned());
    }
    describe_plainly(error.value(py), error.traceback(py), Some(message.text), &mut pieces);
    pieces
}

fn describe_plainly(
    value: &Bound<'_, PyAny>,
    frames: Option<Bound<'_, PyTraceback>>,
    text: Option<String>,
    pieces: &mut Vec<String>,
) {
    let mut steps = Vec::new();
    let mut left_out = 0;
    let mut rest = from_application(frames).ok().flatten();
    while let Some(step) = rest {
        rest = step.getattr("tb_next").ok().filter(|next| !next.is_none());
        steps.push(step);
        if steps.len() > FIRST_FRAMES + LAST_FRAMES {
            steps.remove(FIRST_FRAMES);
            left_out += 1;
        }
    }
    if !steps.is_empty() {
        pieces.push("Traceback (most recent call last):\n".to_owned());
    }
    for (position, step) in steps.iter().enumerate() {
        if position == FIRST_FRAMES && left_out > 0 {
            pieces.push(format!("  ({left_out} frames are left out)\n"));
        }
        pieces.push(frame(step).unwrap_or_else(|_| "  (a frame that cannot be read)\n".to_owned()));
    }
    let class = value.get_type();
    let name = class
        .fully_qualified_name()
        .and_then(|name| text_of(&name))
        .unwrap_or_else(|_| "exception".to_owned());
    let text = text.unwrap_or_else(|| message(value).text);
    pieces.push(if text.is_empty() { format!("{name}\n") } else { format!("{name}: {text}\n") });
    let list = |name: &str| value.getattr(name).ok().filter(|value| !value.is_none());
    if let Some(notes) = list("__notes__").and_then(|notes| notes.cast_into::<PyList>().ok()) {
        for note in notes.iter().take(MAX_NOTES) {
            pieces.push(format!("{}\n", message(&note).text));
        }
    }
    if let Some(members) =
        list("exceptions").and_then(|members| members.cast_into::<PyTuple>().ok())
    {
        for member in members.iter().take(MAX_MEMBERS) {
            let name = member.get_type().name().and_then(|name| text_of(&name)).unwrap_or_default();
            pieces.push(format!("  + {name}: {}\n", message(&member).text.replace('\n', "\n    ")));
        }
    }
}

fn frame(step: &Bound<'_, PyAny>) -> PyResult<String> {
    let code = step.getattr("tb_frame")?.getattr("f_code")?;
    let line: Option<usize> = step.getattr("tb_lineno")?.extract()?;
    let file = text_of(code.getattr("co_filename")?.cast::<PyString>()?)?;
    let function = text_of(code.getattr("co_name")?.cast::<PyString>()?)?;
    let number = line.map_or_else(|| "?".to_owned(), |line| line.to_string());
    let mut text = format!("  File \"{file}\", line {number}, in {function}\n");
    if let Some(source) = line.and_then(|line| source_line(&file, line)) {
        text.push_str(&format!("    {source}\n"));
    }
    Ok(text)
}

/// Line `number` of a source file, from 1.
fn source_line(file: &str, number: usize) -> Option<String> {
    // The name may not be a file, and the file may be a pipe without an end.
    let source = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(file)
        .ok()?;
    if !source.metadata().ok()?.is_file() {
        return None;
    }
    let mut lines = BufReader::new(source.take(MAX_SOURCE_BYTES)).split(b'\n');
    let line = lines.nth(number.checked_sub(1)?)?.ok()?;
    let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
    (!line.is_empty()).then_some(line)
}
