//! The page about limits has the defaults of the program.

use std::{collections::BTreeMap, fs, process::Command};

use crate::support::{artefacts, web_servers::source};

fn page() -> String {
    fs::read_to_string(source("docs/limits.md")).unwrap()
}

/// The defaults in the help of a command, by option.
fn defaults_in_help(command: &str) -> BTreeMap<String, String> {
    let output = Command::new(artefacts::gateway()).args([command, "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut defaults = BTreeMap::new();
    let mut option = String::new();
    // A default may be on a line of its own, or on two.
    let mut text = String::new();
    for line in help.lines().chain(["--end"]) {
        let line = line.trim();
        if line.starts_with('-') {
            if let Some((_, rest)) = text.split_once("[default: ") {
                let value = rest.split(']').next().unwrap_or_default();
                defaults.insert(std::mem::take(&mut option), value.to_owned());
            }
            let mut words = line.split([' ', ',', '=']);
            option = words.find(|word| word.starts_with("--")).unwrap_or_default().to_owned();
            text.clear();
        }
        text = format!("{text} {line}").trim().to_owned();
    }
    defaults
}

#[test]
fn the_table_of_defaults_agrees_with_the_help() {
    let (cgi, fastcgi) = (defaults_in_help("cgi"), defaults_in_help("fastcgi"));
    let page = page();
    let table = page.split("## Defaults").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut checked = 0;
    for (option, rest) in rows {
        let (default, place) = rest.split_once(" | ").unwrap();
        let known = if place.starts_with("warm pools") { &cgi } else { &fastcgi };
        assert_eq!(known.get(option).map(String::as_str), Some(default), "{option}");
        checked += 1;
    }
    assert_eq!(checked, 17, "{table}");
}

#[test]
fn the_numbers_of_the_budget_are_those_of_the_program() {
    let code = fs::read_to_string(source("src/config/worker_budget.rs")).unwrap();
    let value = |name: &str| -> u64 {
        let (_, rest) = code.split_once(&format!("const {name}: ")).unwrap();
        let value = rest.split(" = ").nth(1).unwrap().split([';', ' ']).next().unwrap();
        value.parse().unwrap()
    };
    let page = page().replace('\n', " ");
    for expected in [
        format!("worker to need {} MB of memory", value("EXPECTED_WORKER_BYTES")),
        format!("least {} MB", value("MIN_WORKER_BYTES")),
        format!("`--max-processes` | {}, or fewer", value("MAX_DEFAULT_WARM_WORKERS")),
    ] {
        assert!(page.contains(&expected), "{expected}");
    }
    assert_eq!((value("POOL_PROCESSES"), value("WARM_REQUEST_PROCESSES")), (2, 2));
    assert!(page.contains("counts two processes for a pool"));
    assert!(page.contains("a request counts as two"));
}
