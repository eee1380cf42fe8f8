//! Escapes text from outside for logs and terminals: every character is visible, and none has an
//! effect.
//!
//! Control characters move the cursor and end lines, bidirectional ones change the order in which a
//! line is displayed, and characters without width hide a difference. All are written as escapes of
//! Rust: `\n`, `\u{1b}`, `\u{202e}`.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// Is `character` invisible, or does it change how the characters around it are displayed? Spaces
/// and tabs are visible.
pub fn is_hidden(character: char) -> bool {
    match character {
        '\t' | ' '..='~' => false,
        // Soft hyphen, combining grapheme joiner, Arabic letter mark, Hangul fillers, Mongolian
        // vowel separators.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
        // Without width; marks, embeddings and overrides of direction; separators of lines and
        // paragraphs; invisible operators; isolates of direction.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Hangul filler, byte order mark, interlinear annotations, tags.
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

/// Displays text with its hidden characters as escapes.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(position) = rest.find(is_hidden) {
            let (before, from) = rest.split_at(position);
            f.write_str(before)?;
            let mut characters = from.chars();
            for character in characters.by_ref().take(1) {
                write!(f, "{}", character.escape_default())?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// Converts `bytes` to text; bytes that are not UTF-8 become `\xff`.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Converts `bytes` to text on one line; bytes that are not UTF-8 and hidden characters become
/// escapes.
pub fn visible(bytes: &[u8]) -> String {
    Escaped(&text(bytes)).to_string()
}

/// Converts lines of `bytes` to text, and keeps the line ends; bytes that are not UTF-8 and hidden
/// characters become escapes.
pub fn lines(bytes: &[u8]) -> String {
    let text = text(bytes);
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        // Writing to a string cannot fail.
        let _ = write!(shown, "{}{end}", Escaped(line));
    }
    shown
}

/// Returns JSON with the same meaning, whose hidden characters are escapes of JSON. Outside of
/// strings, `text` has no hidden characters but spaces and line ends.
pub fn json(text: String) -> String {
    let is_hidden = |character: char| character != '\n' && is_hidden(character);
    if !text.contains(is_hidden) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_characters_stay_as_they_are() {
        let text = "a\tb é 日本語 🙂 \\n ~ שלום";
        assert_eq!(Escaped(text).to_string(), text);
        assert_eq!(lines(text.as_bytes()), text);
        assert_eq!(json(text.replace('\t', " ")), text.replace('\t', " "));
    }

    #[test]
    fn hidden_characters_become_escapes() {
        let hidden = "\n\r\u{0}\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{200b}\u{200d}\u{200e}\u{2028}\
                      \u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}";
        for character in hidden.chars() {
            let shown = Escaped(&format!("a{character}b")).to_string();
            assert_eq!(shown, format!("a{}b", character.escape_default()));
        }
    }

    #[test]
    fn bytes_that_are_not_text_become_escapes() {
        assert_eq!(text(b"/a\xffb\xc3"), "/a\\xffb\\xc3");
        assert_eq!(visible(b"/\x1b[2J\r\n\xff"), "/\\u{1b}[2J\\r\\n\\xff");
        assert_eq!(
            lines(b"one\x1b[31m\r\ntwo\xff\n\nthree"),
            "one\\u{1b}[31m\\r\ntwo\\xff\n\nthree"
        );
    }

    #[test]
    fn escaped_json_has_the_same_meaning() {
        let shown = json("{\"a\u{202e}\": [\"\u{9b}\u{e0041}\u{2028}\", \"\\n é\"]}\n".to_owned());
        assert_eq!(shown, "{\"a\\u202e\": [\"\\u009b\\udb40\\udc41\\u2028\", \"\\n é\"]}\n");
    }
}
