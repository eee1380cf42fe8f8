//! The traces of an application after all its processes have exited: exit handlers and files.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    modes::{Facts, Report},
    support::probe::python,
};

/// Reads the files that the application writes to.
const READ: &str = "
import csv, dbm.dumb, gzip, json, os, sys
os.chdir(sys.argv[1])
def lines(name, opened=open):
    try:
        with opened('kept-' + name, 'rt') as file:
            return sum(line == 'line\\n' for line in file)
    except Exception:
        return 'damaged'
found = {name: lines(name) for name in ('text', 'binary', 'table.csv', 'of-request')}
found.update({name: lines(name, gzip.open) for name in ('zipped.gz', 'of-request.gz')})
found['shelf'] = len(dbm.dumb.open('kept-shelf').keys())
for kind in ('file', 'directory', 'of-request'):
    found['temporary ' + kind] = sum(name.startswith('kept-' + kind + '-') for name in \
    os.listdir('.'))
print(json.dumps(found))
";

/// The events that are recorded when a process exits.
const EVENTS: [&str; 9] = [
    "atexit of the import",
    "finalizer of the import",
    "multiprocessing's of the import",
    "threading's of the import",
    "deleted global of the import",
    "atexit of a request",
    "finalizer of a request",
    "multiprocessing's of a request",
    "deleted object of a request",
];

/// Facts about the end, in the `directory` where the script stands.
pub(super) fn facts(directory: &Path, reports: &[Report; 2]) -> Facts {
    let record = fs::read_to_string(directory.join("record")).unwrap_or_default();
    let loads = if reports[0].loaded_by == reports[1].loaded_by { 1 } else { 2 };
    let mut facts = Facts::new();
    for event in EVENTS {
        let expected = if event.ends_with("request") { 2 } else { loads };
        let how_often = match times(event, &record, reports) {
            (count, 0) if count == expected => "once".to_owned(),
            (0, 0) => "never".to_owned(),
            (count, others) => {
                format!("{count} times for {expected}, and {others} times in children")
            }
        };
        facts.insert(format!("at the end: {event}"), how_often.into());
    }
    let read = Command::new(python()).args(["-c", READ]).arg(directory).output().unwrap();
    let found: Facts =
        serde_json::from_slice(&read.stdout).unwrap_or_else(|error| panic!("{error}: {read:?}"));
    facts.extend(found.into_iter().map(|(name, value)| (format!("after the end: {name}"), value)));
    facts
}

/// How often `event` was recorded by processes that loaded the application or served it, and by
/// children of these.
fn times(event: &str, record: &str, reports: &[Report; 2]) -> (u32, u32) {
    let pids = |pid: fn(&Report) -> i32| reports.iter().map(move |report| i64::from(pid(report)));
    let (mut own, mut others) = (0, 0);
    for line in record.lines() {
        let args: Vec<Value> = serde_json::from_str(line).unwrap();
        let (recorded, pid) = (args[0].as_str().unwrap(), args[1].as_i64().unwrap());
        // Of the import: by whom it was loaded. Beside the pool, the request that started it has
        // loaded it, too.
        let is_foreign =
            event.ends_with("import") && !pids(|of| of.loaded_by).any(|known| args[2] == known);
        if recorded != event || is_foreign {
            continue;
        }
        if pids(|of| of.pid).chain(pids(|of| of.loaded_by)).any(|known| known == pid) {
            own += 1;
        } else if !event.starts_with("threading") {
            // Children of multiprocessing end as programs do for threading, if they come so far.
            others += 1;
        }
    }
    (own, others)
}
