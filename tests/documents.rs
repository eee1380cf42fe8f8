//! The documents agree with the program: codes, rows, links, options.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::{
    source_tree::source_files,
    support::{artefacts, web_servers::source},
};

fn text(relative: &str) -> String {
    fs::read_to_string(source(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// All Rust source below a directory of the tree.
fn rust_below(relative: &str) -> String {
    fn collect(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    collect(&source(relative), &mut all);
    all
}

/// The codes of log messages: name, number and severity.
fn codes() -> Vec<(String, String, String)> {
    let source = text("crates/diagnostics/src/code.rs");
    let codes: Vec<_> = source
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().strip_suffix(',')?.split_once(" = ")?;
            let (number, severity) = rest.split_once(": ")?;
            let number: u16 = number.parse().ok()?;
            Some((name.to_owned(), format!("W{number:04}"), severity.to_lowercase()))
        })
        .collect();
    assert!(codes.len() > 80, "{codes:?}");
    codes
}

#[test]
fn the_table_of_errors_lists_each_code_with_its_severity_and_no_other() {
    let page = text("docs/errors.md");
    let listed: Vec<(String, String)> = page
        .lines()
        .filter(|line| line.starts_with("| W"))
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            (cells[0].trim_start_matches("| ").to_owned(), cells[1].to_owned())
        })
        .collect();
    let defined: Vec<(String, String)> =
        codes().into_iter().map(|(_, number, severity)| (number, severity)).collect();
    assert_eq!(listed, defined);
}

/// The messages that several places log, without those of unit tests.
fn of_diagnostics() -> String {
    ["message.rs", "error_log.rs"]
        .map(|file| {
            let all = text(&format!("crates/diagnostics/src/{file}"));
            all.split("#[cfg(test)]").next().unwrap().to_owned()
        })
        .concat()
}

#[test]
fn every_code_is_used() {
    let used = rust_below("src")
        + &rust_below("crates/engine/src")
        + &rust_below("crates/http/src")
        + &of_diagnostics();
    for (name, number, _) in codes() {
        assert!(used.contains(&format!("Code::{name}")), "{name} ({number}) is never used");
    }
}

/// Rows of the table: id, tests that are named, state.
fn rows() -> Vec<(String, Vec<String>, String)> {
    text("docs/conformance.md")
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let id = *cells.first()?;
            let is_row =
                id.len() == 3 && id.starts_with(['W', 'C', 'F']) && id[1..].parse::<u8>().is_ok();
            is_row.then(|| {
                let tests = cells[4]
                    .split('`')
                    .filter(|word| word.contains('_'))
                    .map(str::to_owned)
                    .collect();
                (id.to_owned(), tests, cells[5].to_owned())
            })
        })
        .collect()
}

#[test]
fn the_conformance_table_has_all_158_rows_once() {
    let ids: BTreeSet<String> = rows().into_iter().map(|(id, ..)| id).collect();
    assert_eq!((ids.len(), rows().len()), (158, 158));
}

#[test]
fn a_row_that_is_met_names_a_test_that_exists_and_carries_its_id() {
    let tests = rust_below("tests") + &rust_below("crates") + &rust_below("src");
    for (id, named, state) in rows() {
        match state.as_str() {
            "met" => {
                assert!(!named.is_empty(), "{id} names no test");
                for test in named {
                    assert!(test.starts_with(&format!("{}_", id.to_lowercase())), "{id}: {test}");
                    assert!(
                        tests.contains(&format!("fn {test}(")),
                        "{id}: there is no test {test}"
                    );
                }
            }
            "not yet" => assert!(named.is_empty(), "{id} is not met, and names {named:?}"),
            other => panic!("{id}: `{other}` is no state"),
        }
    }
}

#[test]
fn every_test_of_a_row_belongs_to_a_row_that_is_met() {
    let met: BTreeSet<String> = rows()
        .into_iter()
        .filter(|(.., state)| state != "not yet")
        .map(|(id, ..)| id.to_lowercase())
        .collect();
    for line in (rust_below("tests") + &rust_below("crates") + &rust_below("src")).lines() {
        if let Some(name) = line.trim().strip_prefix("fn ")
            && name.get(3..4) == Some("_")
            && name.starts_with(['w', 'c', 'f'])
            && name[1..3].parse::<u8>().is_ok()
        {
            assert!(met.contains(&name[..3]), "{name}");
        }
    }
}

/// The README and all pages below `docs`.
fn pages() -> Vec<String> {
    let files = source_files().into_iter().map(|file| file.path);
    files
        .filter(|path| path == "README.md" || (path.starts_with("docs/") && path.ends_with(".md")))
        .collect()
}

#[test]
fn links_and_code_of_the_documents_exist() {
    for page in pages() {
        let page = page.as_str();
        let content = text(page);
        let base = source(page);
        for link in content.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // The part behind `#` names a place on the page.
            let path = link.split('#').next().unwrap();
            if !link.starts_with("http") && !path.is_empty() {
                assert!(base.parent().unwrap().join(path).exists(), "{page} links to {link}");
            }
        }
    }
    // The first application in the README is the file in cgi-bin.
    let readme = text("README.md");
    let shown = readme.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    for line in shown.lines() {
        assert!(
            text("cgi-bin/hello.wsgi").contains(line),
            "cgi-bin/hello.wsgi has no line {line:?}"
        );
    }
}

/// A package of that name on PyPI would be a stranger's.
#[test]
fn pip_installs_wsgate_by_the_path_of_its_file() {
    let sources = rust_below("src") + &rust_below("crates");
    for content in pages().iter().map(|page| text(page)).chain([sources]) {
        for (number, line) in content.lines().enumerate() {
            let mut installed = line.split("pip install").skip(1);
            let is_name = |word: &str| word.trim_matches(['`', ',', '.', ')']) == "wsgate";
            let has_name = installed.any(|rest| rest.split_whitespace().any(is_name));
            assert!(!has_name, "line {}: {line}", number + 1);
        }
    }
}

#[test]
fn every_make_target_that_the_readme_names_exists() {
    let makefile = text("Makefile") + &text("packaging/packages.mk");
    let readme = text("README.md");
    let mut targets = BTreeSet::new();
    for command in ["`make ", "    make ", "sudo make "] {
        let named = readme.split(command).skip(1);
        targets
            .extend(named.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next()));
    }
    assert!(targets.len() > 4, "{targets:?}");
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
}

#[test]
fn every_option_that_the_readme_and_the_pages_of_pools_name_exists() {
    let mut help = String::new();
    for command in ["cgi", "fastcgi", "status", "reload", "stop", "call", "check", "init"] {
        let output = Command::new(artefacts::gateway()).args([command, "--help"]).output().unwrap();
        help.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    let pages =
        ["README", "docs/fastcgi", "docs/forking", "docs/imports", "docs/operate", "docs/warm"]
            .map(|page| text(&format!("{page}.md")))
            .concat();
    for word in pages.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
        if word.starts_with("--") && word.len() > 3 {
            assert!(help.contains(word), "{word}");
        }
    }
}

#[test]
fn the_changelog_knows_the_version() {
    assert!(text("CHANGELOG.md").contains(&format!("## {}", env!("CARGO_PKG_VERSION"))));
}
