//! A reader finds every page from the README.

use std::collections::BTreeSet;

use crate::source_tree::{Violation, assert_no_violation, source_files};

/// Pages that no link leads to.
const UNLINKED_PAGES: &[&str] = &[];

/// The page that a link of another page leads to, as a path below the root of the tree.
fn target(page: &str, link: &str) -> Option<String> {
    let link = link.split(['#', ' ']).next()?;
    if link.is_empty() || link.contains("://") {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let files = source_files();
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| &file.text);
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut next = vec!["README.md".to_owned()];
    while let Some(page) = next.pop() {
        let Some(text) = text_of(&page) else { continue };
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // A link to a directory shows its README.
            let found = target(&page, link).into_iter();
            for path in found.flat_map(|path| [format!("{path}/README.md"), path]) {
                if path.ends_with(".md") && reached.insert(path.clone()) {
                    next.push(path);
                }
            }
        }
    }
    let violations: Vec<Violation> = files
        .iter()
        .filter(|file| file.path.starts_with("docs/") && file.path.ends_with(".md"))
        .filter(|file| !reached.contains(&file.path))
        .map(|file| Violation { subject: file.path.clone(), place: file.path.clone() })
        .collect();
    assert_no_violation("pages without a link", &violations, UNLINKED_PAGES);
}

#[test]
fn a_link_is_relative_to_its_page() {
    assert_eq!(target("docs/warm.md", "../apache/x.conf#y"), Some("apache/x.conf".to_owned()));
    assert_eq!(target("docs/warm.md", "errors.md"), Some("docs/errors.md".to_owned()));
    assert_eq!(target("README.md", "https://example.org/"), None);
}
