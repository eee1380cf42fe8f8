//! The rules of the source tree: words, widths, sizes, rooms, types, options, pages.
//!
//! Every test reads the files of the tree. A rule that the tree does not keep yet names its
//! exceptions. A list of exceptions only shrinks: an exception that is no longer needed fails the
//! test, too.

mod imports;
mod language;
mod options;
mod pages;
mod rust_code;
mod sizes;
mod types;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::support::web_servers::source;

/// A text file of the tree.
pub(crate) struct SourceFile {
    /// Path below the root of the tree.
    pub(crate) path: String,
    text: String,
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All text files of the tree that people write, in the order of their paths.
pub(crate) fn source_files() -> Vec<SourceFile> {
    let root = source("");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            Some(SourceFile { path, text })
        })
        .collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_generated = matches!(name.as_str(), "target" | "seeds" | "__pycache__")
            || name.ends_with(".lock")
            || name.ends_with(".svg");
        if name.starts_with('.') || is_generated {
            continue;
        }
        if path.is_dir() {
            collect(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

/// A place that breaks a rule.
struct Violation {
    /// What an exception names: a file, a word in a directory, a type.
    subject: String,
    /// `file:line` and what stands there.
    place: String,
}

/// Asserts that each violation has an exception, and that each exception has a violation.
#[track_caller]
fn assert_no_violation(rule: &str, violations: &[Violation], exceptions: &[&str]) {
    let excused: BTreeSet<&str> = exceptions.iter().copied().collect();
    let found: BTreeSet<&str> =
        violations.iter().map(|violation| violation.subject.as_str()).collect();
    let unexcused: Vec<String> = violations
        .iter()
        .filter(|violation| !excused.contains(violation.subject.as_str()))
        .map(|violation| format!("{} ({})", violation.place, violation.subject))
        .collect();
    assert!(unexcused.is_empty(), "{rule}:\n{}", unexcused.join("\n"));
    let unneeded: Vec<&&str> = excused.difference(&found).collect();
    assert!(unneeded.is_empty(), "{rule}: exceptions that are no longer needed: {unneeded:?}");
}

/// The part of the tree that a file belongs to: `docs`, `src`, `crates/engine`.
fn area(path: &str) -> &str {
    let parts = if path.starts_with("crates/") { 2 } else { 1 };
    path.match_indices('/').nth(parts - 1).map_or(path, |(end, _)| &path[..end])
}
