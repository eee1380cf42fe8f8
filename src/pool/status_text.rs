//! The status of a pool as text, for people.

use std::fmt::Write as _;

use control::pool_status::{LastReload, PoolMode, PoolStatus, WorkerStatus};
use diagnostics::{escape::Escaped, shorten::shorten};

/// Maximum length of the reason of a failed upgrade in bytes.
const MAX_REASON_BYTES: usize = 200;

/// The status as text, at `now` in seconds since 1970. Cuts the rows of workers after `width`
/// columns. Escapes everything that another user's pool could use against a terminal.
pub(super) fn of_pool(status: &PoolStatus, now: u64, width: usize) -> String {
    let aborted = match status.aborted {
        0 => String::new(),
        number => format!(", {number} requests aborted by their clients"),
    };
    let addresses: Vec<&str> =
        status.listeners.iter().map(|listener| listener.address.as_str()).collect();
    let mut text = format!(
        "{} {} pid {} at {}: {}, preload {}{aborted}{}\n",
        Escaped(&status.name),
        Escaped(&status.app),
        status.pid,
        Escaped(&addresses.join(", ")),
        summary(status),
        Escaped(&status.preload),
        state(status)
    );
    for line in loads(status, now).into_iter().chain(status.stopped_sentence()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text.push_str(&totals(status));
    // An idle process of a warm pool has served no request.
    let is_shown = |worker: &&WorkerStatus| {
        status.mode != PoolMode::Warm || worker.busy || worker.leaving || worker.stopped
    };
    let mut shown = status.workers.iter().filter(is_shown).peekable();
    if shown.peek().is_none() {
        return text;
    }
    let titles = ["pid", "state", "for", "requests", "cpu", "memory", "age", "last", "request"];
    for row in std::iter::once(row(titles)).chain(shown.map(worker)) {
        text.extend(row.chars().take(width));
        text.push('\n');
    }
    text
}

/// What has become of attempts to load code.
fn loads(status: &PoolStatus, now: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failed) = &status.failed_load {
        let serving = if status.generation == 0 {
            "no code is loaded, and requests get 503"
        } else {
            "the old code goes on serving"
        };
        lines.push(format!(
            "loading new code failed {} ago; {serving}: {}",
            age(failed.seconds),
            Escaped(&failed.reason)
        ));
    }
    match &status.last_reload {
        Some(LastReload { time, succeeded: true, .. }) => {
            lines.push(format!("last reload succeeded {} ago", age(now.saturating_sub(*time))));
        }
        // The line before says this, too.
        Some(_) if status.failed_load.is_some() => {}
        Some(LastReload { time, reason, .. }) => lines.push(format!(
            "last reload failed {} ago: {}",
            age(now.saturating_sub(*time)),
            Escaped(reason.as_deref().unwrap_or_default())
        )),
        None => {}
    }
    if let Some(failed) = &status.failed_upgrade {
        lines.push(format!(
            "the upgrade {} ago failed; the pool goes on with its own build: {}",
            age(failed.seconds),
            // The error log has the whole reason.
            shorten(&Escaped(&failed.reason).to_string(), MAX_REASON_BYTES)
        ));
    }
    lines
}

/// The row of a thread of a worker.
fn worker(worker: &WorkerStatus) -> String {
    let request = worker.request.as_ref().map_or_else(String::new, |request| {
        format!("{} {} {}", request.method, request.target, request.id)
    });
    row([
        &worker.pid.to_string(),
        worker.state(),
        &time(worker.milliseconds),
        &worker.requests.to_string(),
        &time(worker.cpu_milliseconds),
        &format!("{} MB", worker.rss >> 20),
        &age(worker.age),
        &worker.last_status.map_or_else(String::new, |status| status.to_string()),
        &Escaped(&request).to_string(),
    ])
}

/// A row of the table. At 80 columns there is room for a short request; its id is the last word.
fn row([pid, state, time, requests, cpu, memory, age, last, request]: [&str; 9]) -> String {
    let mut row = format!(
        "  {pid:>7} {state:<7} {time:>7} {requests:>8} {cpu:>8} {memory:>7} {age:>7} {last:>4} \
         {request}"
    );
    row.truncate(row.trim_end().len());
    row
}

/// A time with tenths of a second, if it is short.
fn time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    if seconds < 1000 { format!("{seconds}.{} s", milliseconds % 1000 / 100) } else { age(seconds) }
}

/// Suffix of the first line: the state of the pool.
fn state(status: &PoolStatus) -> &'static str {
    match status {
        PoolStatus { stopping: true, .. } => ", stopping",
        PoolStatus { upgrading: true, .. } => ", upgrading",
        PoolStatus { reloading: true, .. } => ", reloading",
        PoolStatus { loading: true, .. } => ", loading",
        PoolStatus { resting: true, .. } => ", no Python process; the next connection starts one",
        _ => "",
    }
}

/// Summary of the workers.
fn summary(status: &PoolStatus) -> String {
    let busy = status.workers.iter().filter(|worker| worker.busy).count();
    let idle = status.workers.iter().filter(|worker| !worker.busy && !worker.leaving).count();
    let mode = match status.mode {
        PoolMode::Fastcgi if status.min == status.max => {
            let workers = if status.max == 1 { "worker" } else { "workers" };
            return format!("{} {workers}, {busy} of {} busy", status.max, status.workers.len());
        }
        PoolMode::Fastcgi => {
            let (min, max) = (status.min, status.max);
            return format!("{min} to {max} workers, {busy} of {} busy", status.workers.len());
        }
        PoolMode::Warm => "warm",
        PoolMode::Resident => "resident",
    };
    let (count, age) = (status.requests, age(status.age));
    let requests = if count == 1 { "request" } else { "requests" };
    format!("{mode}, {busy} busy, {idle} idle, {} at most, {count} {requests} in {age}", status.max)
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A line with the totals of the pool, and its user.
fn totals(status: &PoolStatus) -> String {
    let counters = &status.counters;
    let replaced = &counters.replaced;
    let queued: u64 = status.queued
        + status
            .listeners
            .iter()
            .filter_map(|listener| listener.accept_queue)
            .map(u64::from)
            .sum::<u64>();
    let crashes: Vec<String> = counters
        .crashed
        .iter()
        .map(|(cause, count)| format!("{count} crashed ({})", Escaped(cause)))
        .collect();
    let counts = [
        (status.requests, "requests"),
        (status.responses.client_errors, "4xx"),
        (status.responses.server_errors, "5xx"),
        (status.peak_busy, "busy at most"),
        (status.max_reached, "times all busy"),
        (queued, "waiting"),
        (counters.slow, "slow"),
        (counters.timed_out, "timed out"),
        (counters.refused, "refused"),
        (
            replaced.max_requests + replaced.max_age + replaced.max_rss,
            "workers replaced at a limit",
        ),
    ];
    let shown = counts.into_iter().filter(|(count, _)| *count > 0);
    let shown = shown.map(|(count, what)| format!("{count} {what}")).chain(crashes);
    let parts: Vec<String> = [format!("up {}", age(status.age))].into_iter().chain(shown).collect();
    format!("  user {}, {}\n", Escaped(&status.user), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn get(id: &str, target: &str) -> serde_json::Value {
        serde_json::json!({"id": id, "method": "GET", "target": target})
    }

    /// The example of `docs/operate.md`.
    fn example() -> PoolStatus {
        let status = serde_json::json!({
            "name": "app", "app": "/srv/app/app.wsgi", "pid": 811, "user": "site",
            "listeners": [{"address": "unix:/run/app.sock", "accept_queue": 1}],
            "min": 2, "max": 2, "preload": "yes", "generation": 1, "age": 10_900,
            "requests": 247, "responses": {"5xx": 2}, "peak_busy": 2,
            "last_reload": {"time": NOW - 7_300, "succeeded": true},
            "workers": [
                {"pid": 812, "busy": true, "milliseconds": 234, "requests": 129,
                    "cpu_milliseconds": 3_920, "rss": 43_000_000, "age": 7_299,
                    "last_status": 200, "request": get("3f2a9c0d11e84b57", "/report")},
                {"pid": 813, "milliseconds": 1_234_000, "requests": 118,
                    "cpu_milliseconds": 3_120, "rss": 42_000_000, "age": 110,
                    "last_status": 500, "request": get("5c0e77b2a91f4d03", "/")},
            ],
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn the_documentation_has_the_text_of_an_example() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate.md");
        let page = std::fs::read_to_string(page).unwrap();
        let text = of_pool(&example(), NOW, usize::MAX);
        let shown: String = text.lines().map(|line| format!("    {line}\n")).collect();
        assert!(page.contains(&shown), "{shown}");
    }

    #[test]
    fn a_terminal_of_80_columns_has_all_columns_and_the_beginning_of_the_request() {
        let mut status = example();
        status.workers[0].request.as_mut().unwrap().target = "/\u{1b}[2J".repeat(50);
        let text = of_pool(&status, NOW, 80);
        let rows: Vec<&str> = text.lines().skip(3).collect();
        assert!(rows.iter().all(|row| row.chars().count() <= 80), "{text}");
        assert!(rows[0].ends_with(" last request"), "{text}");
        assert!(rows[1].ends_with(" 200 GET /\\u{1b}[2J/"), "{text}");
        assert!(rows[2].contains(" 500 GET / 5c0e"), "{text}");
    }

    #[test]
    fn the_last_reload_is_shown_once_with_its_outcome_and_reason() {
        let mut status = example();
        let lines = |status: &PoolStatus| loads(status, NOW);
        assert_eq!(lines(&status), ["last reload succeeded 2 h ago"]);
        let reason = Some("W0302: no module\u{7}".to_owned());
        status.last_reload = Some(LastReload { time: NOW - 60, succeeded: false, reason });
        assert_eq!(lines(&status), ["last reload failed 60 s ago: W0302: no module\\u{7}"]);
        status.failed_load = Some(control::pool_status::FailedLoad {
            seconds: 60,
            reason: "W0302: no module".to_owned(),
        });
        let failed =
            "loading new code failed 60 s ago; the old code goes on serving: W0302: no module";
        assert_eq!(lines(&status), [failed]);
        // The clock of another machine, or of a hostile pool.
        status.last_reload = Some(LastReload { time: NOW + 60, succeeded: true, reason: None });
        assert_eq!(lines(&status), [failed, "last reload succeeded 0 s ago"]);
        status.last_reload = None;
        status.failed_load = None;
        assert!(lines(&status).is_empty());
    }
}
