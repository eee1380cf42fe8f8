//! The counts of an attack, as a row of `docs/reliability.md`.

use std::{collections::BTreeSet, env, fs, path::Path};

use crate::{attack::is_long, support::web_servers::source};

/// All attacks, as they are called in the document.
pub(super) const ROWS: [&str; 36] = [
    "FastCGI fuzzing, 1 thread",
    "FastCGI fuzzing, 8 threads",
    "Slow clients, pool, 1 thread",
    "Slow clients, pool, 8 threads",
    "Slow clients, lone worker",
    "Slow clients, cold",
    "Slow clients, warm",
    "Slow clients, resident",
    "Signals to the CGI gateway",
    "Signals to a cold python",
    "Signals to a warm supervisor",
    "Signals to a warm template",
    "Signals to a warm process",
    "Signals to a resident process",
    "Signals to a pool's supervisor",
    "Signals to a pool's template",
    "Signals to a pool's workers",
    "Signals to a lone worker",
    "Reloads by SIGHUP",
    "Reloads by `wsgate reload`",
    "Operations of every kind",
    "Descriptors, 1 thread",
    "Descriptors, 8 threads",
    "Processes, 1 thread",
    "Processes, 8 threads",
    "Memory, 1 thread",
    "Memory, 8 threads",
    "Disk, 1 thread",
    "Disk, 8 threads",
    "Two warm applications in a small control group",
    "Hostile applications, cold",
    "Hostile applications, warm",
    "Hostile applications, resident",
    "Hostile applications, pool",
    "Hostile applications, pool with `--preload no`",
    "Hostile applications, lone worker",
];

/// The counts of an attack.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The action, with the number of times.
    pub(super) tried: String,
    /// Requests of others that were answered with their own response.
    pub(super) answered: u64,
    /// Requests of others that were not.
    pub(super) lost: u64,
    /// A description of the attack.
    pub(super) how: String,
}

impl Counts {
    /// Prints them, and in the long form writes them where `make test-attack` collects them.
    #[expect(
        clippy::print_stdout,
        reason = "the harness shows it beside a failure, and `--nocapture` always"
    )]
    #[track_caller]
    pub(super) fn report(&self, row: &str) {
        let number = ROWS
            .iter()
            .position(|known| *known == row)
            .unwrap_or_else(|| panic!("`{row}` is no row"));
        let Self { tried, answered, lost, how } = self;
        let how = if *lost == 0 { "nothing" } else { how.as_str() };
        let line = format!("| {row} | {tried} | {answered} | {lost} | {how} |\n");
        println!("{line}");
        if let Some(directory) = env::var_os("WSGATE_TEST_ATTACK_ROWS").filter(|_| is_long()) {
            let path = Path::new(&directory).join(format!("{number:02}"));
            fs::write(&path, line).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

#[test]
fn the_document_has_a_row_for_each_attack_and_no_other() {
    let document = fs::read_to_string(source("docs/reliability.md")).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .skip_while(|cells: &Vec<&str>| cells[0] != "attack")
        .skip(1)
        .collect();
    let listed: BTreeSet<&str> = rows.iter().map(|cells| cells[0]).collect();
    assert_eq!(listed, ROWS.into_iter().collect::<BTreeSet<_>>());
    assert_eq!(rows.len(), ROWS.len());
    for cells in rows {
        assert_eq!(cells.len(), 5, "{cells:?}");
        let number =
            |cell: &str| cell.parse::<u64>().unwrap_or_else(|_| panic!("{cell:?} in {cells:?}"));
        assert!(number(cells[2]) > 0, "{cells:?}");
        assert_eq!(number(cells[3]) == 0, cells[4] == "nothing", "{cells:?}");
    }
}
