//! Lines end at 100 columns, and files of Rust at 400 lines.

use crate::source_tree::{SourceFile, Violation, assert_no_violation, source_files};

const MAX_COLUMNS: usize = 100;
const MAX_LINES: usize = 400;

/// A line with a word of so many columns cannot be broken well: a URL, a test vector.
const LONG_WORD_COLUMNS: usize = 60;

/// Files that have longer lines.
const WIDE_FILES: &[&str] = &[];

/// Files of Rust that have more lines.
const LONG_FILES: &[&str] = &[];

fn has_limited_lines(file: &SourceFile) -> bool {
    let name = file.path.rsplit('/').next().unwrap();
    let is_of_a_known_kind = name
        .rsplit_once('.')
        .is_some_and(|(_, kind)| matches!(kind, "rs" | "md" | "py" | "wsgi" | "sh"));
    is_of_a_known_kind || (!name.contains('.') && file.text.starts_with("#!"))
}

fn may_be_long(file: &SourceFile, line: &str) -> bool {
    let is_markdown = file.path.ends_with(".md");
    let is_table_row = is_markdown && line.trim_start().starts_with('|');
    let longest_word = line.split_whitespace().map(|word| word.chars().count()).max();
    is_table_row || line.contains("://") || longest_word.is_some_and(|it| it > LONG_WORD_COLUMNS)
}

#[test]
fn no_line_is_longer_than_100_columns() {
    let mut violations = Vec::new();
    for file in source_files().iter().filter(|file| has_limited_lines(file)) {
        let mut is_code = false;
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            is_code ^= file.path.ends_with(".md") && line.starts_with("```");
            // A command in a document is copied as one line.
            if is_code {
                continue;
            }
            if columns > MAX_COLUMNS && !may_be_long(file, line) {
                violations.push(Violation {
                    subject: file.path.clone(),
                    place: format!("{}:{}: {columns} columns", file.path, index + 1),
                });
            }
        }
    }
    assert_no_violation("lines above 100 columns", &violations, WIDE_FILES);
}

#[test]
fn no_file_of_rust_is_longer_than_400_lines() {
    let violations: Vec<Violation> = source_files()
        .into_iter()
        .filter(SourceFile::is_rust)
        .filter(|file| file.text.lines().count() > MAX_LINES)
        .map(|file| Violation {
            place: format!("{}: {} lines", file.path, file.text.lines().count()),
            subject: file.path,
        })
        .collect();
    assert_no_violation("files above 400 lines", &violations, LONG_FILES);
}
