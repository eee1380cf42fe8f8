//! Enough of Rust's syntax to find items and paths: comments and literals are blanked out.

use std::collections::BTreeSet;

/// The source with its comments removed and its literals emptied. Lines keep their numbers.
pub(super) fn without_comments_and_literals(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let end = match (characters[at], characters.get(at + 1)) {
            ('/', Some('/')) => until(&characters, at, |rest| rest.starts_with(&['\n'])),
            ('/', Some('*')) => {
                until(&characters, at + 2, |rest| rest.starts_with(&['*', '/'])) + 2
            }
            ('"', _) => end_of_string(&characters, at + 1),
            ('r', Some('"' | '#')) if starts_raw_string(&characters, at) => {
                end_of_raw_string(&characters, at + 1)
            }
            ('\'', _) => end_of_character(&characters, at),
            (character, _) => {
                code.push(character);
                at += 1;
                continue;
            }
        };
        let end = end.min(characters.len());
        code.push(' ');
        code.extend(characters[at..end].iter().filter(|character| **character == '\n'));
        at = end;
    }
    code
}

fn until(characters: &[char], from: usize, is_end: impl Fn(&[char]) -> bool) -> usize {
    (from..characters.len()).find(|at| is_end(&characters[*at..])).unwrap_or(characters.len())
}

fn end_of_string(characters: &[char], mut at: usize) -> usize {
    while at < characters.len() && characters[at] != '"' {
        at += if characters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn starts_raw_string(characters: &[char], at: usize) -> bool {
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    let before = at.checked_sub(1).map(|before| characters[before]);
    let is_start = before.is_none_or(|before| !is_word(&before) || matches!(before, 'b' | 'c'));
    let behind = characters[at + 1..].iter().find(|character| **character != '#');
    is_start && behind == Some(&'"')
}

fn end_of_raw_string(characters: &[char], at: usize) -> usize {
    let hashes = characters[at..].iter().take_while(|character| **character == '#').count();
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    until(characters, at + hashes + 1, |rest| rest.starts_with(&end)) + end.len()
}

/// The end of a character literal; of a lifetime, only its quote.
fn end_of_character(characters: &[char], at: usize) -> usize {
    match (characters.get(at + 1), characters.get(at + 2)) {
        (Some('\\'), _) => until(characters, at + 3, |rest| rest.starts_with(&['\''])) + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// The paths that code names behind `crate::`, groups of a `use` resolved.
pub(super) fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let is_word =
            code[..at].ends_with(|it: char| it.is_alphanumeric() || it == '_' || it == '$');
        if !is_word {
            read_paths(&code[at + "crate::".len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one path, or a group of paths in braces, and returns what follows.
fn read_paths<'a>(code: &'a str, prefix: &str, paths: &mut BTreeSet<String>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            rest = match rest.strip_prefix(',') {
                Some(behind) => behind,
                None => match read_paths(rest, prefix, paths) {
                    behind if behind.len() == rest.len() => return behind,
                    behind => behind,
                },
            };
        }
    }
    let end = code
        .find(|it: char| !(it.is_alphanumeric() || it == '_' || it == '*'))
        .unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(behind) if !behind.starts_with('<') => read_paths(behind, &path, paths),
        _ => {
            if !name.is_empty() {
                paths.insert(path);
            }
            let rest = rest.trim_start();
            rest.strip_prefix("as ").map_or(rest, |behind| {
                behind.trim_start_matches(|it: char| it.is_alphanumeric() || it == '_')
            })
        }
    }
}

#[test]
fn comments_and_literals_are_no_code() {
    let source = "let a = \"crate::no\"; // crate::no
        let b = r#\"\" crate::no\"#; /* crate::no
        */ fn c<'a>(_: &'a str) -> crate::yes::It { '\"'; crate::also }";
    let code = without_comments_and_literals(source);
    assert_eq!(code.lines().count(), source.lines().count());
    assert_eq!(crate_paths(&code), ["also", "yes::It"].map(str::to_owned).into());
}

#[test]
fn groups_of_a_use_are_resolved() {
    let code = "use crate::{a::{self, B as C}, d::*,\n    e};\npub(crate) fn f() -> crate::g<h> {}";
    let expected = ["a::B", "a::self", "d::*", "e", "g"].map(str::to_owned);
    assert_eq!(crate_paths(code), expected.into());
}
