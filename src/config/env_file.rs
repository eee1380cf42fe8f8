//! The file of `--env-file`: environment variables, one `NAME=VALUE` a line.
//!
//! The format is that of systemd's `EnvironmentFile=` without continued lines: empty lines and
//! lines that begin with `#` or `;` are skipped, and a value may stand in single or double quotes.
//! Nothing is substituted, so a value is what is written.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use diagnostics::message::{Code, LogMessage};

/// Maximum length of the file in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Permission of all users to write a file.
const WRITABLE_BY_ALL: u32 = 0o002;

/// Variables that web servers and service managers set for a process, and that mean something to
/// wsgate. An application would see them in no request, or wsgate would misunderstand them.
const RESERVED: [&str; 9] = [
    "GATEWAY_INTERFACE",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "REQUEST_METHOD",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WSGATE_UPGRADE",
];

/// Prefix of the variables of request headers.
const HEADER_PREFIX: &str = "HTTP_";

/// Reads the variables in the file `path`.
///
/// # Errors
/// The log message that names the file, and the line that is wrong.
pub(super) fn read(path: &Path) -> Result<Vec<(OsString, OsString)>, LogMessage> {
    let text = text_of(path)?;
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let assigned = assignment(line).map_err(|sentence| {
            let sentence = format!("`{}`, line {number}: {sentence}", path.display());
            LogMessage::new(Code::BadSetting, sentence).hint(
                "each line of --env-file is NAME=VALUE, a comment that begins with `#`, or empty",
            )
        })?;
        variables.extend(assigned);
    }
    Ok(variables)
}

fn text_of(path: &Path) -> Result<String, LogMessage> {
    let unreadable = |reason: &str, hint: &str| {
        let sentence = format!("cannot read the file `{}` of --env-file: {reason}", path.display());
        LogMessage::new(Code::BadSetting, sentence).hint(hint)
    };
    let rights = "let the user of the application read it: chgrp GROUP FILE; chmod 640 FILE";
    let file = File::open(path).map_err(|error| {
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        unreadable(&error.to_string(), if is_missing { "check the path" } else { rights })
    })?;
    let found = file.metadata().map_err(|error| unreadable(&error.to_string(), rights))?;
    if !found.is_file() {
        return Err(unreadable("it is not a regular file", "name a text file"));
    }
    if found.mode() & WRITABLE_BY_ALL != 0 {
        let reason = "all users of this machine may write it";
        return Err(unreadable(reason, "remove that permission: chmod o-w FILE"));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(&error.to_string(), "save the file as UTF-8 text"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable(
            &format!("it is longer than {MAX_BYTES} bytes"),
            "name a text file",
        ));
    }
    // Some editors of another system mark UTF-8 that way.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The variable that `line` sets, if it sets one.
///
/// # Errors
/// What is wrong with the line. A value is never repeated, since it may be secret.
fn assignment(line: &str) -> Result<Option<(OsString, OsString)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    // Shells read such files, too.
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=').ok_or("the line has no `=`")?;
    let name = name.trim_end();
    check_name(name)?;
    let value =
        unquoted(value.trim_start()).map_err(|what| format!("the value of `{name}` {what}"))?;
    Ok(Some((OsStr::new(name).to_owned(), value.into())))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let shown = name.escape_debug();
    if name.is_empty()
        || name.starts_with(|first: char| first.is_ascii_digit())
        || !name.chars().all(is_word)
    {
        return Err(format!("`{shown}` is not the name of a variable: letters, digits and `_`"));
    }
    if RESERVED.contains(&name) || name.starts_with(HEADER_PREFIX) {
        return Err(format!("`{shown}` belongs to web servers and service managers"));
    }
    Ok(())
}

/// `value` without the quotes around it.
fn unquoted(value: &str) -> Result<String, &'static str> {
    if value.contains('\0') {
        return Err("has a NUL character");
    }
    let Some(quote) = value.chars().next().filter(|first| matches!(first, '\'' | '"')) else {
        return Ok(value.to_owned());
    };
    let mut text = String::new();
    let mut rest = value[1..].chars();
    loop {
        match rest.next().ok_or("has no closing quote")? {
            end if end == quote => break,
            '\\' if quote == '"' => match rest.next().ok_or("has no closing quote")? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                plain @ ('"' | '\\' | '$' | '`') => text.push(plain),
                other => text.extend(['\\', other]),
            },
            plain => text.push(plain),
        }
    }
    let after = rest.as_str().trim_start();
    if after.is_empty() || after.starts_with('#') {
        Ok(text)
    } else {
        Err("goes on after its closing quote")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<Option<String>, String> {
        Ok(assignment(line)?.map(|(_, value)| value.into_string().unwrap()))
    }

    #[test]
    fn a_value_is_what_is_written_without_its_quotes() {
        for (line, expected) in [
            ("A=", ""),
            ("A=b=c d", "b=c d"),
            ("  export A = b \t", "b"),
            ("A=it's $HOME # no comment", "it's $HOME # no comment"),
            ("A='b \\n\"c\" '  # comment", "b \\n\"c\" "),
            ("A=\"b\\n\\\"c\\\" \\\\ \\$d \\x\"", "b\n\"c\" \\ $d \\x"),
            ("A=é", "é"),
        ] {
            assert_eq!(value(line), Ok(Some(expected.to_owned())), "{line}");
        }
        for line in ["", "  ", "# A=b", " ;A=b"] {
            assert_eq!(value(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_refused_without_their_values() {
        for (line, sentence) in [
            ("A", "the line has no `=`"),
            ("=secret", "`` is not the name of a variable"),
            ("1A=secret", "`1A` is not the name"),
            ("A B=secret", "`A B` is not the name"),
            ("LISTEN_FDS=3", "`LISTEN_FDS` belongs to web servers"),
            ("HTTP_PROXY=secret", "`HTTP_PROXY` belongs to web servers"),
            ("A='secret", "the value of `A` has no closing quote"),
            ("A=\"secret\\", "the value of `A` has no closing quote"),
            ("A='b' secret", "the value of `A` goes on after its closing quote"),
            ("A=sec\0ret", "the value of `A` has a NUL character"),
        ] {
            let refused = value(line).unwrap_err();
            assert!(refused.contains(sentence) && !refused.contains("secret"), "{line}: {refused}");
        }
    }
}
