//! Curves of the last minutes, as small images without axes.

use std::fmt::Write as _;

use maud::{Markup, html};

/// Width of a curve in its own units.
const WIDTH: usize = 120;

/// Height of a curve in its own units.
const HEIGHT: u64 = 30;

/// A curve with its name and numbers in words. `format` writes a value for a person.
pub(super) fn curve(name: &str, values: &[Option<u64>], format: impl Fn(u64) -> String) -> Markup {
    let most = values.iter().flatten().copied().max().unwrap_or(0);
    let last = values.last().copied().flatten().map_or("unknown".to_owned(), &format);
    let text = format!("{name}: {last}, at most {}", format(most));
    let view = format!("0 -1 {WIDTH} {}", HEIGHT + 2);
    html! {
        li {
            span { (text) }
            svg viewBox=(view) preserveAspectRatio="none" role="img" aria-label=(text) {
                path d=(path(values, most)) {}
            }
        }
    }
}

/// The line, from the left edge on; the newest value is at the right edge. A gap interrupts it.
fn path(values: &[Option<u64>], most: u64) -> String {
    let mut path = String::with_capacity(values.len() * 6);
    let first = WIDTH.saturating_sub(values.len());
    let mut is_drawing = false;
    let mut level = None;
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let x = first + index;
        let y = HEIGHT - value.saturating_mul(HEIGHT).checked_div(most).unwrap_or(0).min(HEIGHT);
        // Writing to a string cannot fail.
        let _ = match (is_drawing, level == Some(y)) {
            (false, _) => write!(path, "M{x} {y}h1"),
            (true, true) => write!(path, "H{x}"),
            (true, false) => write!(path, "L{x} {y}"),
        };
        (is_drawing, level) = (true, Some(y));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_the_right_edge_and_a_gap_interrupts_it() {
        assert_eq!(path(&[Some(0), Some(10), Some(10)], 10), "M117 30h1L118 0H119");
        assert_eq!(path(&[Some(5), None, Some(10)], 10), "M117 15h1M119 0h1");
        assert_eq!(path(&[], 0), "");
        assert_eq!(path(&[Some(0)], 0), "M119 30h1");
    }
}
