//! The documented differences: the table of `docs/modes.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{modes::ways::MODES, support::web_servers::source};

/// A row: facts, and the modes in which they differ.
struct TableRow {
    /// The name of a fact, or what names of facts begin with.
    fact: String,
    is_group: bool,
    modes: BTreeSet<&'static str>,
}

pub(super) struct Table(Vec<TableRow>);

impl Table {
    /// Reads the rows whose first cell is code and whose second names modes.
    pub(super) fn read() -> Self {
        let page = fs::read_to_string(source("docs/modes.md")).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [fact, modes, _, reason] = cells[..] else {
                panic!("a row has four cells: {line}")
            };
            assert!(!reason.is_empty(), "a difference has a reason: {line}");
            let fact = fact.trim_matches('`');
            let group = fact.strip_suffix('*');
            TableRow {
                fact: group.unwrap_or(fact).to_owned(),
                is_group: group.is_some(),
                modes: named(modes),
            }
        });
        Self(rows.collect())
    }

    /// The differences between the table and the observed facts.
    pub(super) fn faults(
        &self,
        differences: &BTreeMap<&str, BTreeMap<String, String>>,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        for (&mode, found) in differences {
            for (fact, values) in found {
                if !self.0.iter().any(|row| row.has(fact) && row.modes.contains(mode)) {
                    faults.push(format!("not documented: {mode}: `{fact}` is {values}"));
                }
            }
        }
        for row in &self.0 {
            for &mode in &row.modes {
                if !differences[mode].keys().any(|fact| row.has(fact)) {
                    faults.push(format!("documented, and not so: {mode}: `{}`", row.fact));
                }
            }
        }
        faults
    }
}

impl TableRow {
    fn has(&self, fact: &str) -> bool {
        if self.is_group { fact.starts_with(&self.fact) } else { fact == self.fact }
    }
}

/// The modes in a cell: names with commas between them, or `all`, or `all but` some.
fn named(cell: &str) -> BTreeSet<&'static str> {
    let listed = |names: &str| -> BTreeSet<&'static str> {
        let known = |name: &str| MODES.iter().map(|(known, _)| *known).find(|&known| known == name);
        names
            .split(", ")
            .map(|name| known(name).unwrap_or_else(|| panic!("`{name}` is no mode")))
            .collect()
    };
    let all = || MODES.iter().map(|(name, _)| *name);
    match cell.strip_prefix("all but ") {
        Some(names) => all().filter(|name| !listed(names).contains(name)).collect(),
        None if cell == "all" => all().collect(),
        None => listed(cell),
    }
}
