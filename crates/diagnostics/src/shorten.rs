//! Shortens texts from outside for the log: an exception may carry a whole upload.

use std::borrow::Cow;

/// Shortens `text` to its beginning and its end, with not much more than `max` bytes together.
pub fn shorten(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let (begin, end) = ends(text, max * 3 / 4, max / 4);
    Cow::Owned(format!(
        "{begin} … ({} bytes are left out) … {end}",
        text.len() - begin.len() - end.len()
    ))
}

/// Shortens `text` to whole lines of its beginning and, for the most part, of its end, where a
/// traceback names the place of the error.
pub fn shorten_lines(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let (begin, end) = ends(text, max / 3, max * 2 / 3);
    // A line that is longer than `max` is cut, but not lost.
    let begin = begin.rfind('\n').map_or(begin, |at| &begin[..=at]);
    let end = end.find('\n').filter(|&at| at + 1 < end.len()).map_or(end, |at| &end[at + 1..]);
    let left_out = text.len() - begin.len() - end.len();
    let gap = if begin.ends_with('\n') { "" } else { "\n" };
    Cow::Owned(format!("{begin}{gap}… ({left_out} bytes are left out)\n{end}"))
}

/// Splits the beginning and the end off `text`: at most `first` and `last` bytes, which do not
/// overlap.
fn ends(text: &str, first: usize, last: usize) -> (&str, &str) {
    let first =
        (0..=first.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let from = text.len().saturating_sub(last).max(first);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    (&text[..first], &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_text_keeps_its_ends() {
        assert_eq!(shorten("é€", 5), "é€");
        assert_eq!(shorten("abcdefghijkl", 8), "abcdef … (4 bytes are left out) … kl");
        let lines: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let short = shorten_lines(&lines, 300);
        assert!(
            short.starts_with("line 0\nline 1\n") && short.ends_with("line 998\nline 999\n"),
            "{short}"
        );
        assert!(
            short.len() < 360
                && short.lines().all(|line| lines.contains(line) || line.contains("left out")),
            "{short}"
        );
        for text in [
            "x".repeat(1000),
            format!("{}\n", "é".repeat(1000)),
            format!("a\n{}\nb", "x".repeat(1000)),
        ] {
            let short = shorten_lines(&text, 100);
            assert!((100..160).contains(&short.len()) || short.starts_with("a\n"), "{short}");
        }
    }
}
