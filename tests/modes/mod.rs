//! A mode changes speed, not results: one application that reports all it can see and do, in every
//! mode, beside the same program under `wsgiref.handlers.CGIHandler` and as a plain program.
//! Differences stand in `docs/modes.md`, or fail.

mod end;
mod table;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
};

use serde_json::Value;

use crate::modes::ways::Way;

/// Facts by name.
type Facts = BTreeMap<String, Value>;

/// What the application reported for one request.
struct Report {
    seen: Facts,
    draws: Facts,
    pid: i32,
    loaded_by: i32,
    requests: u64,
}

impl Report {
    #[track_caller]
    fn read(json: &[u8], root: &str) -> Option<Self> {
        let text = String::from_utf8_lossy(json).replace(root, "ROOT");
        let mut report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if report["again"] == true {
            return None;
        }
        let mut facts = |name: &str| {
            report[name].as_object_mut().map(std::mem::take).into_iter().flatten().collect()
        };
        let (seen, draws) = (facts("seen"), facts("draws"));
        let number = |name: &str| report[name].as_i64().unwrap();
        let pid = |name: &str| i32::try_from(number(name)).unwrap();
        let requests = number("requests").cast_unsigned();
        Some(Self { seen, draws, pid: pid("pid"), loaded_by: pid("loaded by"), requests })
    }
}

/// All that is known of one way to run the application.
struct Observed {
    /// A first and a second request.
    reports: [Report; 2],
    /// The traces after all processes have exited.
    end: Facts,
}

impl Observed {
    /// The facts that the two requests share, and the traces at the end.
    fn of_both(&self) -> Facts {
        let [first, second] = &self.reports;
        let mut facts = self.end.clone();
        for (name, value) in &first.draws {
            let word = if *value == second.draws[name] { "the same" } else { "different" };
            facts.insert(format!("two requests draw: {name}"), word.into());
        }
        facts
    }

    /// Facts of these that differ from what the reference has, with both values.
    fn differences(&self, reference: &Self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let pairs = self.reports.iter().zip(&reference.reports);
        let of_both = (self.of_both(), reference.of_both());
        for (here, there) in
            pairs.map(|(here, there)| (&here.seen, &there.seen)).chain([(&of_both.0, &of_both.1)])
        {
            let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
            for name in names.into_iter().filter(|&name| here.get(name) != there.get(name)) {
                found
                    .entry(name.clone())
                    .or_insert_with(|| difference(here.get(name), there.get(name)));
            }
        }
        found
    }
}

#[test]
fn no_signal_is_blocked_in_any_mode_though_the_web_server_has_blocked_one() {
    for mode in ["cold", "warm", "resident"] {
        for report in crate::modes::ways::with_a_signal_blocked(mode) {
            assert_eq!(report.seen["signals: blocked"], Value::Array(Vec::new()), "{mode}");
            assert_eq!(report.seen["signals of a program: SigBlk"], "0000000000000000", "{mode}");
        }
    }
}

/// Two values that differ, for a person who reads the log of a failed test.
fn difference(here: Option<&Value>, there: Option<&Value>) -> String {
    if let (Some(Value::Array(here)), Some(Value::Array(there))) = (here, there) {
        let beyond = |one: &[Value], other: &[Value]| -> Value {
            one.iter().filter(|value| !other.contains(value)).cloned().collect()
        };
        return format!("with {}, without {}", beyond(here, there), beyond(there, here));
    }
    let value = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    format!("{}, not {}", value(here), value(there))
}

#[test]
fn every_difference_between_modes_is_documented_and_every_documented_one_exists() {
    let reference = crate::modes::ways::Reference.observe();
    let plain = crate::modes::ways::Plain.observe();
    let differences: BTreeMap<&str, BTreeMap<String, String>> = thread::scope(|scope| {
        let running: Vec<_> = crate::modes::ways::MODES
            .iter()
            .map(|(name, mode)| (*name, scope.spawn(|| mode.observe())))
            .collect();
        let observed = running.into_iter().map(|(name, running)| (name, running.join().unwrap()));
        observed.map(|(name, observed)| (name, observed.differences(&reference))).collect()
    });
    let mut of_plain = plain.differences(&reference);
    // A program that serves no request has no variables to report. An argument says so.
    let of_requests = ["environ", "URLs: ", "callers", "process: cmdline", "sys: orig_argv"];
    of_plain.retain(|name, _| !of_requests.iter().any(|group| name.starts_with(group)));
    let mut faults = crate::modes::table::Table::read().faults(&differences);
    faults.extend(
        of_plain
            .into_iter()
            .map(|(name, values)| format!("no plain program: `{name}` is {values}")),
    );
    assert!(faults.is_empty(), "docs/modes.md and what is so differ:\n{}", faults.join("\n"));
}
