//! A type has a name of its own, and its methods stand together.

use std::collections::{BTreeMap, BTreeSet};

use crate::source_tree::{
    Violation, assert_no_violation, rust_code::without_comments_and_literals, source_files,
};

/// A type may have its methods in so many files.
const MAX_FILES_OF_METHODS: usize = 2;

/// Types whose methods stand in more files.
const SPREAD_TYPES: &[&str] = &[];

/// Names that several types of a crate have.
const SHARED_NAMES: &[&str] = &[];

/// The crate that a file belongs to: `src`, `crates/wire/src`, `tests`.
fn crate_of(path: &str) -> &str {
    for root in ["src/", "tests/", "benches/"] {
        if let Some(at) = path.find(root) {
            return &path[..at + root.len() - 1];
        }
    }
    path
}

/// Files of Rust by crate and by a name that a line of code declares.
fn declarations(name_in: impl Fn(&str) -> Option<&str>) -> BTreeMap<(String, String), Vec<String>> {
    let mut declarations: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for file in source_files().iter().filter(|file| file.is_rust()) {
        let code = without_comments_and_literals(&file.text);
        for (index, line) in code.lines().enumerate() {
            if let Some(name) = name_in(line.trim()) {
                let key = (crate_of(&file.path).to_owned(), name.to_owned());
                declarations.entry(key).or_default().push(format!("{}:{}", file.path, index + 1));
            }
        }
    }
    declarations
}

/// The identifier at the beginning of a piece of code.
fn identifier(code: &str) -> &str {
    let end = code.find(|it: char| !(it.is_alphanumeric() || it == '_')).unwrap_or(code.len());
    &code[..end]
}

/// The type that `impl<T> path::Type<T> {` gives methods to; none for the impl of a trait.
fn type_with_methods(line: &str) -> Option<&str> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(at, character)| {
            match character {
                '<' => depth += 1,
                '>' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(at)
        })?;
        rest = &rest[end + 1..];
    }
    let path = rest.strip_prefix(' ')?.trim_start();
    let path = &path[..path.find(['<', ' ']).unwrap_or(path.len())];
    let is_of_a_trait = rest.contains(" for ");
    (!is_of_a_trait).then(|| identifier(path.rsplit("::").next().unwrap()))
}

fn declared_type(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim_start(),
        Some(rest) => rest.trim_start(),
        None => line,
    };
    ["struct ", "enum ", "union ", "trait "]
        .iter()
        .find_map(|keyword| line.strip_prefix(keyword))
        .map(identifier)
}

#[test]
fn the_methods_of_a_type_stand_in_two_files_at_most() {
    let mut violations = Vec::new();
    for ((root, name), places) in declarations(type_with_methods) {
        let files: BTreeSet<&str> =
            places.iter().filter_map(|place| Some(place.rsplit_once(':')?.0)).collect();
        if files.len() > MAX_FILES_OF_METHODS {
            violations
                .push(Violation { subject: format!("{root}: {name}"), place: places.join(" ") });
        }
    }
    assert_no_violation("types with methods in many files", &violations, SPREAD_TYPES);
}

#[test]
fn no_two_types_of_a_crate_have_the_same_name() {
    let violations: Vec<Violation> = declarations(declared_type)
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|((root, name), places)| Violation {
            subject: format!("{root}: {name}"),
            place: places.join(" "),
        })
        .collect();
    assert_no_violation("types of one name", &violations, SHARED_NAMES);
}

#[test]
fn impls_of_traits_are_not_counted() {
    assert_eq!(
        type_with_methods("impl<'a, T: Iterator<Item = u8>> wire::Frame<'a, T> {"),
        Some("Frame")
    );
    assert_eq!(type_with_methods("impl Drop for Frame {"), None);
    assert_eq!(declared_type("pub(crate) struct Frame<'a> {"), Some("Frame"));
}
