//! Shell commands that mend the first line of a script, and the line that its author meant.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{check::quoted, config::script_line::base_name, system::users};

/// The longest path of a program that the `#!` lines of all kernels hold, in bytes.
const MAX_PROGRAM_BYTES: usize = 127 - "#! ".len();

/// The link below the home directory for a wsgate that no `#!` line can name.
const LINK: &str = "wsgate-apps/wsgate";

/// Commands that write a wsgate into the first line of a script.
pub(super) struct MendedLine<'a> {
    script: &'a Path,
    /// The path for the `#!` line.
    program: PathBuf,
    /// The command that comes first.
    first: String,
}

impl<'a> MendedLine<'a> {
    /// The commands for the script at `script` and this `wsgate`.
    pub(super) fn new(script: &'a Path, wsgate: &Path) -> Self {
        let link = || {
            let owner = fs::metadata(script).ok()?.uid();
            Some(users::home(owner)?.join(LINK)).filter(|link| can_stand_on_a_line(link))
        };
        match Some(wsgate).filter(|wsgate| !can_stand_on_a_line(wsgate)).and_then(|_| link()) {
            None => Self { script, program: wsgate.to_owned(), first: String::new() },
            Some(link) => {
                let directory = link.parent().unwrap_or(Path::new("/"));
                let first = format!(
                    "mkdir -p {} && {} && ",
                    quoted(directory),
                    replaced_link(&link, wsgate)
                );
                Self { script, program: link, first }
            }
        }
    }

    /// Writes the line before the file, which has none.
    pub(super) fn prepended(&self, is_empty: bool) -> String {
        let Self { first, program, script } = self;
        let line = quoted(Path::new(&format!("#!{}", program.display())));
        let file = quoted(script);
        if is_empty {
            // `sed` finds no line to write before.
            return format!("{first}printf '%s\\n' {line} >{file}");
        }
        let program = program.to_string_lossy().replace('\\', "\\\\");
        format!("{first}sed -i '1i #!{}' {file}", program.replace('\'', r"'\''"))
    }

    /// Replaces the whole line.
    pub(super) fn replaced(&self) -> String {
        self.sed(".*", "#!")
    }

    /// Replaces `old`, the program of the line.
    pub(super) fn with_other_program(&self, old: &[u8]) -> String {
        self.sed(&format!("^#![[:space:]]*{}", escaped(old)), "#!")
    }

    /// Replaces the program `words[at]` that `env`, the first of `words`, starts. What else `env`
    /// has to do stays on the line.
    pub(super) fn after_env(&self, words: &[&[u8]], at: usize) -> String {
        let space = "[[:space:]]*";
        let (env, program) = (escaped(words[0]), escaped(words[at]));
        // Another command in the report may have added `-S`.
        let mut pattern = format!("{space}{env}{space}\\(-S{space}\\)*");
        let others: Vec<&[u8]> = words[1..at].iter().copied().filter(|&it| it != b"-S").collect();
        for word in &others {
            pattern += &format!("{}{space}", escaped(word));
        }
        if others.is_empty() {
            self.sed(&format!("^#!{pattern}{program}"), "#!")
        } else {
            self.sed(&format!("^\\(#!{pattern}\\){program}"), "\\1")
        }
    }

    /// Replaces `pattern`, a regular expression of sed, by `before` and the program.
    pub(super) fn sed(&self, pattern: &str, before: &str) -> String {
        let program = self.program.to_string_lossy();
        let program = program.replace('\\', "\\\\").replace('&', "\\&").replace('|', "\\|");
        let command = format!("1s|{pattern}|{before}{program}|");
        format!("{}sed -i '{}' {}", self.first, command.replace('\'', r"'\''"), quoted(self.script))
    }
}

/// `text` as a regular expression of sed between `|` and `|`.
fn escaped(text: &[u8]) -> String {
    let mut pattern = String::new();
    for character in String::from_utf8_lossy(text).chars() {
        if "\\.*[]^$|".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// The command that lets the link at `link` lead to `target`.
pub(super) fn replaced_link(link: &Path, target: &Path) -> String {
    format!("ln -sfn {} {}", quoted(target), quoted(link))
}

/// The path of the program at the beginning of `line`, which stands behind `#!`, if that path has a
/// space: the kernel takes what stands before the space for the program.
pub(super) fn program_with_space(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let mut start = 0;
    let mut words = Vec::new();
    for word in line.split(u8::is_ascii_whitespace) {
        words.push((start, word));
        start += word.len() + 1;
    }
    let is_path = |word: &[u8]| !word.starts_with(b"-") && word.contains(&b'/');
    let end = words
        .iter()
        .skip(1)
        .take_while(|(_, word)| !word.starts_with(b"-") && !word.starts_with(b"/"))
        .find(|(_, word)| is_path(word) && base_name(word).starts_with(b"wsgate"))
        .map(|(start, word)| start + word.len())?;
    let program = &line[..end];
    let first = Path::new(OsStr::from_bytes(words.first()?.1));
    (first.is_absolute() && !first.is_file()).then_some(program)
}

/// The `#!` line at the start of `text`, as its author meant it: without what stands before it, and
/// with `#!` as the two characters. `None` if the kernel finds the line as it is, or there is none.
pub(super) fn meant(text: &[u8]) -> Option<Vec<u8>> {
    let unmarked = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let line = unmarked.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let cut = before_cr(line);
    let rest = if let Some(rest) = cut.unwrap_or(line).strip_prefix(b"#!") {
        if program_with_space(rest).is_none() && unmarked.len() == text.len() && cut.is_none() {
            return None;
        }
        rest
    } else {
        let line = cut.unwrap_or(line);
        misspelt(line)?;
        let marks = line.iter().take_while(|byte| b"#! ".contains(byte)).count();
        &line[marks..]
    };
    let arguments = program_with_space(rest).map(|program| &rest.trim_ascii()[program.len()..]);
    Some(match arguments {
        Some(arguments) => [b"#!/wsgate", arguments].concat(),
        None => [b"#!", rest].concat(),
    })
}

/// The first line in `line`, if its lines end with CR alone.
pub(super) fn before_cr(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|&byte| byte == b'\r')?;
    (!line[end..].trim_ascii().is_empty()).then_some(&line[..end])
}

/// The `sed` command for a first line that almost begins with `#!`.
pub(super) fn misspelt(start: &[u8]) -> Option<&'static str> {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if line.starts_with(b"!#") {
        return Some("1s/^!#/#!/");
    }
    let rest = line.strip_prefix(b"#")?.trim_ascii();
    if rest.starts_with(b"!") {
        return Some("1s/^# *!/#!/");
    }
    let program = rest.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    (rest.starts_with(b"/") && base_name(program).starts_with(b"wsgate")).then_some("1s|^# */|#!/|")
}

fn can_stand_on_a_line(program: &Path) -> bool {
    let bytes = program.as_os_str().as_bytes();
    bytes.len() <= MAX_PROGRAM_BYTES && !bytes.iter().any(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_first_line_is_no_comment() {
        for line in [
            "# !/usr/bin/wsgate",
            "#  ! /x",
            "!#/usr/bin/wsgate",
            "#/usr/bin/wsgate",
            "# /x/wsgate -v",
        ] {
            assert!(misspelt(line.as_bytes()).is_some(), "{line}");
        }
        for line in ["# /usr/bin/python is needed", "# A comment!", "import os", ""] {
            assert!(misspelt(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn the_line_that_was_meant_has_the_options_of_the_author() {
        for (text, line) in [
            ("\u{feff}#!/w/wsgate --debug\nx", "#!/w/wsgate --debug"),
            ("\n  #!/w/wsgate --debug\n", "#!/w/wsgate --debug"),
            ("# !/w/wsgate --debug\n", "#!/w/wsgate --debug"),
            ("!#/w/wsgate\n", "#!/w/wsgate"),
            ("#!/w/wsgate --debug\rimport x\r", "#!/w/wsgate --debug"),
            ("# !/w/wsgate --debug\rimport x\r", "#!/w/wsgate --debug"),
            ("#!/my venv/bin/wsgate --path /a/wsgate-apps\n", "#!/wsgate --path /a/wsgate-apps"),
        ] {
            assert_eq!(meant(text.as_bytes()).as_deref(), Some(line.as_bytes()), "{text}");
        }
        for text in
            ["#!/w/wsgate --path /a b/wsgate\n", "#!/usr/bin/env -S /x/wsgate\n", "import x\n"]
        {
            assert_eq!(meant(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_path_that_sed_would_change_is_escaped() {
        let line = MendedLine::new(Path::new("/s/app.wsgi"), Path::new("/a&b|c/wsgate"));
        assert_eq!(line.replaced(), r"sed -i '1s|.*|#!/a\&b\|c/wsgate|' /s/app.wsgi");
        let other = line.with_other_program(b"/x.y/wsgate");
        assert!(other.contains(r"'1s|^#![[:space:]]*/x\.y/wsgate|#!"), "{other}");
    }
}
