//! The table of `wsgate top`: one row for each thread of each worker. Pure: no terminal here.

use std::{cmp::Reverse, fmt::Write as _};

use clap::ValueEnum;
use control::pool_status::PoolStatus;
use diagnostics::escape::Escaped;

/// Narrower than this, the table has no columns of requests, processor time and memory.
const FULL_WIDTH: usize = 78;

/// Narrower than this, the table has no column of states.
const STATE_WIDTH: usize = 44;

/// Widest name of a pool, in columns.
const MAX_NAME_WIDTH: usize = 20;

/// The column that rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortKey {
    /// Time in the current request; idle threads come last
    Time,
    /// Number of requests
    Requests,
    /// Processor time of the process
    Cpu,
    /// Resident memory
    Memory,
    /// Process id
    Pid,
}

/// A thread of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pool: String,
    /// Name of the pool's user.
    user: String,
    pid: i32,
    /// Number of the thread in its process.
    thread: u32,
    state: &'static str,
    busy: bool,
    milliseconds: u64,
    requests: u64,
    cpu_milliseconds: u64,
    memory: u64,
    request: String,
}

/// What the table says about the pools.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) pools: Vec<PoolStatus>,
    /// Why pools do not answer.
    pub(super) failures: Vec<String>,
}

impl Row {
    /// The pool as `USER/NAME`, and the process id.
    pub(super) fn process(&self) -> (String, i32) {
        (format!("{}/{}", self.user, self.pool), self.pid)
    }

    /// The process, and the number of the thread in it.
    pub(super) fn thread(&self) -> ((String, i32), u32) {
        (self.process(), self.thread)
    }

    fn columns(&self, width: usize, name_width: usize) -> String {
        let (time, cpu) = (seconds(self.milliseconds), seconds(self.cpu_milliseconds));
        let memory = format!("{} MB", self.memory >> 20);
        let (state, requests) = (self.state, self.requests.to_string());
        columns(
            width,
            name_width,
            [
                &self.pool,
                &self.pid.to_string(),
                state,
                &time,
                &requests,
                &cpu,
                &memory,
                &self.request,
            ],
        )
    }
}

impl Snapshot {
    /// The rows, sorted by `sort`.
    pub(super) fn rows(&self, sort: SortKey) -> Vec<Row> {
        let rows = self.pools.iter().flat_map(|pool| {
            pool.workers.iter().map(|thread| Row {
                pool: pool.name.clone(),
                user: pool.user.clone(),
                pid: thread.pid,
                thread: thread.thread,
                state: thread.state(),
                busy: thread.busy,
                milliseconds: thread.milliseconds,
                requests: thread.requests,
                cpu_milliseconds: thread.cpu_milliseconds,
                memory: thread.rss,
                request: thread.request.as_ref().map_or_else(String::new, |request| {
                    format!("{} {}", request.method, request.target)
                }),
            })
        });
        let mut rows: Vec<Row> = rows.collect();
        // Rows with equal keys keep the order of the pools.
        rows.sort_by_key(|row| match sort {
            SortKey::Time => Reverse((u64::from(row.busy), row.milliseconds)),
            SortKey::Requests => Reverse((row.requests, 0)),
            SortKey::Cpu => Reverse((row.cpu_milliseconds, 0)),
            SortKey::Memory => Reverse((row.memory, 0)),
            SortKey::Pid => Reverse((u64::MAX - u64::from(row.pid.unsigned_abs()), 0)),
        });
        rows
    }

    /// The lines above the rows.
    fn summary(&self) -> Vec<String> {
        let threads = || self.pools.iter().flat_map(|pool| &pool.workers);
        let (busy, all) = (threads().filter(|thread| thread.busy).count(), threads().count());
        let mut first = match self.pools.len() {
            0 => "no pools are running".to_owned(),
            1 => "1 pool".to_owned(),
            count => format!("{count} pools"),
        };
        if !self.pools.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(first, ", {busy} of {all} threads busy");
        }
        let failures = self.failures.iter().map(|failure| Escaped(failure).to_string());
        std::iter::once(first).chain(failures).collect()
    }

    /// The table for a terminal of `width` columns and `height` lines, or for a file without these
    /// limits. The row with the number `selected` is marked, and is always visible.
    pub(super) fn lines(
        &self,
        rows: &[Row],
        selected: Option<usize>,
        (width, height): (usize, usize),
    ) -> Vec<String> {
        let mut lines = self.summary();
        lines.truncate((height / 3).max(1));
        let name_width = rows.iter().map(|row| row.pool.chars().count()).max().unwrap_or(0);
        let name_width = name_width.clamp(4, MAX_NAME_WIDTH);
        let titles = ["pool", "pid", "state", "for", "requests", "cpu", "memory", "request"];
        lines.push(columns(width, name_width, titles));
        let room = height.saturating_sub(lines.len());
        let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(room));
        for (number, row) in rows.iter().enumerate().skip(first).take(room) {
            let line = row.columns(width, name_width);
            lines.push(if selected == Some(number) { marked(&cut(&line, width)) } else { line });
        }
        lines.iter().map(|line| cut(line, width)).collect()
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

fn columns(width: usize, name_width: usize, cells: [&str; 8]) -> String {
    let [pool, pid, state, time, requests, cpu, memory, request] = cells;
    let mut line = format!("{:<name_width$} {pid:>7}", cut(&Escaped(pool).to_string(), name_width));
    // Writing to a string cannot fail.
    if width >= STATE_WIDTH {
        let _ = write!(line, " {state:<7}");
    }
    let _ = write!(line, " {time:>9}");
    if width >= FULL_WIDTH {
        let _ = write!(line, " {requests:>9} {cpu:>9} {memory:>8}");
    }
    let _ = write!(line, " {}", Escaped(request));
    line.truncate(line.trim_end().len());
    line
}

/// The first `width` characters of `line`. Sequences of [`marked`] have no width.
fn cut(line: &str, width: usize) -> String {
    if line.starts_with(MARK) { line.to_owned() } else { line.chars().take(width).collect() }
}

/// Begins and ends reverse video.
const MARK: &str = "\u{1b}[7m";
const MARK_END: &str = "\u{1b}[0m";

fn marked(line: &str) -> String {
    format!("{MARK}{line}{MARK_END}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let thread = |pid: i32, busy: bool, milliseconds: u64, target: &str| {
            serde_json::json!({"pid": pid, "busy": busy, "requests": pid,
                "milliseconds": milliseconds, "rss": 50_000_000, "cpu_milliseconds": 100 - pid,
                "request": {"id": "a", "method": "GET", "target": target}})
        };
        let workers = [
            thread(11, false, 900_000, "/idle"),
            thread(12, true, 1_500, "/short"),
            thread(13, true, 65_000, "/\u{1b}[2J\u{202e}long"),
        ];
        let pool = serde_json::json!({"name": "app", "workers": workers});
        Snapshot { pools: vec![serde_json::from_value(pool).unwrap()], failures: Vec::new() }
    }

    fn pids(sort: SortKey) -> Vec<i32> {
        snapshot().rows(sort).iter().map(|row| row.pid).collect()
    }

    #[test]
    fn rows_are_sorted_by_the_time_in_the_request_unless_asked_otherwise() {
        assert_eq!(pids(SortKey::Time), [13, 12, 11]);
        assert_eq!(pids(SortKey::Requests), [13, 12, 11]);
        assert_eq!(pids(SortKey::Pid), [11, 12, 13]);
        assert_eq!(pids(SortKey::Memory), [11, 12, 13]);
        assert_eq!(pids(SortKey::Cpu), [11, 12, 13]);
    }

    #[test]
    fn hostile_requests_are_escaped_and_no_line_is_wider_than_the_terminal() {
        let snapshot = snapshot();
        let rows = snapshot.rows(SortKey::Time);
        for width in [1, 10, 40, 60, 80, 500] {
            let lines = snapshot.lines(&rows, None, (width, 24));
            assert_eq!(lines.len(), 5, "{lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            assert!(!lines.concat().contains(['\u{1b}', '\u{202e}']), "{lines:?}");
        }
        let lines = snapshot.lines(&rows, None, (500, 24));
        assert_eq!(lines[0], "1 pool, 2 of 3 threads busy");
        let row = "app       13 busy       65.0 s        13     0.0 s    47 MB";
        assert_eq!(lines[2], format!("{row} GET /\\u{{1b}}[2J\\u{{202e}}long"));
    }

    #[test]
    fn the_selected_row_is_visible_and_marked_in_a_low_terminal() {
        let snapshot = snapshot();
        let rows = snapshot.rows(SortKey::Time);
        let lines = snapshot.lines(&rows, Some(2), (80, 4));
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[3].starts_with(MARK) && lines[3].ends_with(MARK_END), "{lines:?}");
        assert!(lines[3].contains("/idle") && lines[2].contains("/short"), "{lines:?}");
        assert_eq!(snapshot.lines(&rows, Some(0), (80, 1)).len(), 2);
    }

    #[test]
    fn pools_that_do_not_answer_are_named() {
        let failures = vec!["the pool `x\u{7}` does not answer".to_owned()];
        let lines = Snapshot { pools: Vec::new(), failures }.lines(&[], None, (80, 24));
        assert_eq!(lines[..2], ["no pools are running", "the pool `x\\u{7}` does not answer"]);
    }
}
