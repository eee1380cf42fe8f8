//! The tree speaks the words of the manuals of web servers, not a dialect of its own.

use std::collections::HashMap;

use crate::source_tree::{Violation, area, assert_no_violation, source_files};

/// Words that are wrong wherever they stand, and what to say for them.
const DENIED: [(&str, &str); 37] = [
    ("reply", "response"),
    ("replies", "responses"),
    ("replied", "answered"),
    ("visitor", "client"),
    ("visitors", "clients"),
    ("anew", "again, reopen, recreate"),
    ("told", "asked to, reported, named"),
    ("unborn", "pending"),
    ("stillborn", "failed to start"),
    ("nursery", "pending workers"),
    ("outworn", "retired"),
    ("patience", "timeout"),
    ("whoever", "the client, the user, the process that"),
    ("amid", "during"),
    ("kept connection", "keep-alive connection"),
    ("kept connections", "keep-alive connections"),
    ("makes way", "retires"),
    ("make way", "retire"),
    ("making way", "retiring"),
    ("lets go", "releases"),
    ("let go", "release"),
    ("letting go", "releasing"),
    ("has gone", "exited, closed the connection"),
    ("have gone", "exited, closed the connection"),
    ("had gone", "exited, closed the connection"),
    ("is gone", "exited, closed the connection"),
    ("are gone", "exited, closed the connection"),
    ("for want of", "without"),
    ("is to be had", "is available"),
    ("cannot be had", "is not available"),
    ("to be had", "available"),
    ("log entry", "log message"),
    ("log entries", "log messages"),
    ("loads ahead", "preloads"),
    ("nobody listens", "is not running"),
    ("is served cold", "falls back to cold CGI"),
    ("are served cold", "fall back to cold CGI"),
];

/// A word in an area that still says it.
const EXCEPTIONS: &[&str] = &[];

/// The words of a text in lower case, each with its line. `CamelCase` and `snake_case` are words
/// that are written together.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words: Vec<(String, usize)> = Vec::new();
    let mut word = String::new();
    for (index, line) in text.lines().enumerate() {
        let mut previous_is_lower = false;
        for character in line.chars().chain([' ']) {
            let starts_word = character.is_uppercase() && previous_is_lower;
            if (starts_word || !character.is_alphanumeric()) && !word.is_empty() {
                words.push((std::mem::take(&mut word), index + 1));
            }
            if character.is_alphanumeric() {
                word.extend(character.to_lowercase());
            }
            previous_is_lower = character.is_lowercase() || character.is_numeric();
        }
    }
    words
}

/// The phrases that a text says, each with its line.
fn phrases_in<'a>(text: &str, phrases: &[&'a str]) -> Vec<(&'a str, usize)> {
    let words = words(text);
    let mut by_first_word: HashMap<&str, Vec<&'a str>> = HashMap::new();
    for &phrase in phrases {
        by_first_word.entry(phrase.split(' ').next().unwrap()).or_default().push(phrase);
    }
    let mut found = Vec::new();
    for (at, (word, line)) in words.iter().enumerate() {
        for &phrase in by_first_word.get(word.as_str()).into_iter().flatten() {
            let said = words[at..].iter().map(|(word, _)| word.as_str());
            let length = phrase.split(' ').count();
            if said.take(length).eq(phrase.split(' ')) {
                found.push((phrase, *line));
            }
        }
    }
    found
}

#[test]
fn a_phrase_is_found_in_names_and_across_lines() {
    let text = "/// It lets\n/// go.\nfn lets_go() {}\nstruct LetsGo;\n// outlets going\n";
    assert_eq!(phrases_in(text, &["lets go"]), [1, 3, 4].map(|line| ("lets go", line)));
}

#[test]
fn no_text_and_no_name_has_a_word_of_the_dialect() {
    let phrases = DENIED.map(|(phrase, _)| phrase);
    let mut violations = Vec::new();
    for file in source_files() {
        // This file names the words.
        if file.path == "tests/source_tree/language.rs" {
            continue;
        }
        for (phrase, line) in phrases_in(&file.text, &phrases) {
            let better = DENIED.iter().find(|(denied, _)| *denied == phrase).unwrap().1;
            violations.push(Violation {
                subject: format!("{}: {phrase}", area(&file.path)),
                place: format!("{}:{line}: `{phrase}`, say {better}", file.path),
            });
        }
    }
    assert_no_violation("words of the dialect", &violations, EXCEPTIONS);
}
