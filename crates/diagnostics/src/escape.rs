//! Text from outside as a log or a terminal may show it: each character is seen, and none does
//! anything.
//!
//! Control characters move cursors and end lines, the bidirectional ones show a line in another
//! order than the one it is stored in, and those without width hide a difference. All of them are
//! written as Rust writes them: `\n`, `\u{1b}`, `\u{202e}`.

use std::{
    borrow::Cow,
    fmt::{
        Write as _, {self},
    },
};

/// Is `character` unseen, or does it change how the characters around it are shown? A space is
/// seen, and a tab is counted as one.
pub fn is_hidden(character: char) -> bool {
    match character {
        '\t' | ' '..='~' => false,
        // Soft hyphen, combining grapheme joiner, Arabic letter mark, Hangul fillers, Mongolian
        // vowel separators.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
        // Without width; marks, embeddings and overrides of direction; separators of lines and
        // paragraphs; operators that are not seen; isolates of direction.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Hangul filler, byte order mark, interlinear annotations, tags.
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

/// Text whose hidden characters are written as escapes.
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

/// `bytes` as text: those that are no UTF-8 are written as `\xff`.
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

/// Lines from outside, each of which stays one; what is no UTF-8 and what is hidden is written as
/// escapes.
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

/// A text of JSON with the same meaning, whose hidden characters are written as JSON writes them.
/// Outside of its strings it has none but spaces and line ends.
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
    fn what_is_seen_stays_as_it_is() {
        let text = "a\tb é 日本語 🙂 \\n ~ שלום";
        assert_eq!(Escaped(text).to_string(), text);
        assert_eq!(lines(text.as_bytes()), text);
        assert_eq!(json(text.replace('\t', " ")), text.replace('\t', " "));
    }

    #[test]
    fn what_is_hidden_is_an_escape() {
        let hidden = "\n\r\u{0}\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{200b}\u{200d}\u{200e}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\
                      \u{2069}\u{feff}\u{e0041}";
        for character in hidden.chars() {
            let shown = Escaped(&format!("a{character}b")).to_string();
            assert_eq!(shown, format!("a{}b", character.escape_default()));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_seen() {
        assert_eq!(text(b"/a\xffb\xc3"), "/a\\xffb\\xc3");
        assert_eq!(
            lines(b"one\x1b[31m\r\ntwo\xff\n\nthree"),
            "one\\u{1b}[31m\\r\ntwo\\xff\n\nthree"
        );
    }

    #[test]
    fn json_means_the_same() {
        let shown = json("{\"a\u{202e}\": [\"\u{9b}\u{e0041}\u{2028}\", \"\\n é\"]}\n".to_owned());
        assert_eq!(shown, "{\"a\\u202e\": [\"\\u009b\\udb40\\udc41\\u2028\", \"\\n é\"]}\n");
    }
}
