//! Lines end at 100 columns, and files of Rust at 400 lines.

use crate::source_tree::{SourceFile, Violation, assert_no_violation, source_files};

const MAX_COLUMNS: usize = 100;
const MAX_LINES: usize = 400;

/// A line with a word of so many columns cannot be broken well: a URL, a test vector.
const LONG_WORD_COLUMNS: usize = 60;

/// Files that have longer lines.
const WIDE_FILES: &[&str] = &[
    "docs/benchmarks.md",
    "docs/decisions/030-strings-are-kept-by-position.md",
    "tests/attack/hostile.py",
    "tests/attack/mod.rs",
    "tests/attack/signals.rs",
    "tests/attack/target.rs",
    "tests/messages/exceptions.rs",
    "tests/messages/hidden_modules.rs",
    "tests/modes/observer.py",
    "tests/old_kernel/linux_4_18.py",
    "tests/packages/apps/matplotlib.wsgi",
    "tests/packages/apps/zope.wsgi",
    "tests/packages/mod.rs",
    "tests/packages/trac.rs",
    "tests/packages/zope.rs",
    "tests/pool/access_log.rs",
    "tests/pool/commands.rs",
    "tests/pool/forks.py",
    "tests/pool/separation.rs",
    "tests/run.sh",
    "tests/setup.sh",
    "tests/support/web_servers/tells_who_serves.py",
    "tests/web_servers/failures.rs",
    "tests/web_servers/lengths.rs",
    "tests/web_servers/managers.rs",
    "tests/web_servers/mod.rs",
    "tests/web_servers/surplus.rs",
    "tests/web_servers/workers.rs",
    "tests/wsgi/input_property.rs",
];

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
    let is_table_row = file.path.ends_with(".md") && line.trim_start().starts_with('|');
    let longest_word = line.split_whitespace().map(|word| word.chars().count()).max();
    is_table_row || line.contains("://") || longest_word.is_some_and(|it| it > LONG_WORD_COLUMNS)
}

#[test]
fn no_line_is_longer_than_100_columns() {
    let mut violations = Vec::new();
    for file in source_files().iter().filter(|file| has_limited_lines(file)) {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
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
