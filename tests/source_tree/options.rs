//! Each option stands in a group of the help, and only where it acts.

use std::process::Command;

use crate::{
    source_tree::{Violation, assert_no_violation},
    support::artefacts,
};

/// Subcommands whose help has options outside a group.
const UNGROUPED: &[&str] = &[];

/// The subcommands that the help of `wsgate` lists, and those that it hides.
fn subcommands() -> Vec<String> {
    let help = help_of(&["--help"]);
    let listed = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned);
    listed.chain(["man", "completions"].map(str::to_owned)).collect()
}

fn help_of(arguments: &[&str]) -> String {
    let mut command = Command::new(artefacts::gateway());
    let output = command.args(arguments).env_clear().current_dir("/").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The long options under the heading that clap gives to options without one.
fn ungrouped(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Options:")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split([' ', ',', '=']).find(|word| word.starts_with("--")))
        .filter(|name| !["--help", "--version"].contains(name))
        .collect()
}

#[test]
fn every_option_has_a_heading() {
    let mut violations = Vec::new();
    for command in subcommands() {
        let help = help_of(&[&command, "--help"]);
        for option in ungrouped(&help) {
            violations.push(Violation {
                subject: command.clone(),
                place: format!("wsgate {command} --help: {option} has no heading"),
            });
        }
    }
    assert_no_violation("options without a heading", &violations, UNGROUPED);
}
