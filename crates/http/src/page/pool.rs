//! One pool on the page: its numbers, curves and workers. Also the longest current requests.

use control::{
    pool_status::{PoolStatus, WorkerStatus},
    sockets::PoolSocket,
};
use maud::{Markup, html};

use crate::{
    history::resident_bytes,
    metrics::{mode_name, state_name},
    page::{curve::curve, mebibytes, seconds, shown, time},
    pools::{PoolRecord, PoolRecords, SAMPLE_INTERVAL},
};

/// Maximum number of rows in the table of a pool's workers.
const MAX_ROWS: usize = 64;

/// Maximum number of rows in the table of long requests.
const MAX_LONG_REQUESTS: usize = 20;

/// A request is long from this time on.
const LONG_MILLISECONDS: u64 = 1000;

/// The requests that have been running longest.
pub(super) fn long_requests(records: &PoolRecords) -> Markup {
    let mut found: Vec<(&PoolSocket, &WorkerStatus)> = records
        .iter()
        .filter_map(|(socket, record)| Some((socket, record.status()?)))
        .flat_map(|(socket, status)| status.workers.iter().map(move |worker| (socket, worker)))
        .filter(|(_, worker)| worker.busy && worker.milliseconds >= LONG_MILLISECONDS)
        .collect();
    found.sort_by_key(|(_, worker)| std::cmp::Reverse(worker.milliseconds));
    found.truncate(MAX_LONG_REQUESTS);
    html! {
        @if !found.is_empty() {
            section aria-labelledby="long" {
                h2 id="long" { "Longest current requests" }
                div.scroll id="long-table" tabindex="0" role="region" aria-labelledby="long" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Pool" }
                                th scope="col" { "Pid" }
                                th.number scope="col" { "Running for" }
                                th scope="col" { "Request" }
                            }
                        }
                        tbody {
                            @for (socket, worker) in found {
                                tr {
                                    td { (socket.name()) }
                                    td { (stacks_link(socket, worker)) }
                                    td.number { (seconds(worker.milliseconds)) }
                                    td.request { (request(worker)) }
                                }
                            }
                        }
                    }
                }
                p { "The link at a pid leads to the Python stacks of that worker." }
            }
        }
    }
}

/// The process ID of a worker, as a link to its stacks. The name of a pool needs no escapes in it.
fn stacks_link(socket: &PoolSocket, worker: &WorkerStatus) -> Markup {
    let address = format!("stacks?pool={}&pid={}", socket.name(), worker.pid);
    html! {
        a id={ "stacks-" (socket.name()) "-" (worker.pid) "-" (worker.thread) } href=(address) {
            (worker.pid)
        }
    }
}

/// The section of a pool.
pub(super) fn pool(number: usize, socket: &PoolSocket, record: &PoolRecord) -> Markup {
    let title = format!("pool-{number}");
    html! {
        section aria-labelledby=(title) {
            @match record.status() {
                Some(status) => {
                    h2 id=(title) {
                        (socket.name()) " "
                        span class={ "state " (state_name(status)) } { (state_name(status)) }
                    }
                    p.app { (shown(&status.app)) }
                    (problems(status))
                    (facts(status))
                    (curves(record))
                    (workers(number, status))
                }
                None => {
                    h2 id=(title) { (socket.name()) " " span class="state silent" { "no answer" } }
                    p.app { (shown(&socket.path().to_string_lossy())) }
                    p.problem { (record.failure().unwrap_or("waiting for its first answer")) }
                }
            }
        }
    }
}

fn problems(status: &PoolStatus) -> Markup {
    html! {
        @if let Some(stopped) = status.stopped_sentence() { p.problem { (stopped) } }
        @if let Some(failed) = &status.failed_load {
            p.problem {
                "Loading new code failed " (time(failed.seconds)) " ago: " (shown(&failed.reason))
            }
        }
    }
}

fn facts(status: &PoolStatus) -> Markup {
    let total = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
    let crashes = total(&mut status.counters.crashed.values().copied());
    let responses = &status.responses;
    let mut facts = vec![
        ("User", shown(&status.user)),
        ("Mode", mode_name(status.mode).to_owned()),
        ("Supervisor", format!("pid {}", status.pid)),
        ("Running for", time(status.age)),
        ("Workers", format!("{} to {}", status.min, status.max)),
        ("Threads", format!("{} busy, {} idle", status.busy, status.idle)),
        ("Busy at most", format!("{}; all {} times", status.peak_busy, status.max_reached)),
        ("Requests", status.requests.to_string()),
        ("Responses 4xx, 5xx", format!("{}, {}", responses.client_errors, responses.server_errors)),
        ("Slow, timed out", format!("{}, {}", status.counters.slow, status.counters.timed_out)),
        ("Refused with 503", status.counters.refused.to_string()),
        ("Aborted by clients", status.aborted.to_string()),
        ("Crashes", crashes.to_string()),
        ("Memory", mebibytes(resident_bytes(status))),
    ];
    for listener in status.listeners.iter().take(8) {
        let queue = listener.accept_queue.map_or("unknown".to_owned(), |count| count.to_string());
        let text = format!("{queue} waiting, at most {}", listener.peak_accept_queue);
        facts.push(("Listens at", format!("{}, {text}", shown(&listener.address))));
    }
    if let Some(reload) = &status.last_reload {
        let outcome = match (reload.succeeded, &reload.reason) {
            (true, _) => "succeeded".to_owned(),
            (false, reason) => format!("failed: {}", shown(reason.as_deref().unwrap_or_default())),
        };
        facts.push(("Last reload", outcome));
    }
    html! {
        dl.facts {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

fn curves(record: &PoolRecord) -> Markup {
    let history = record.history();
    let per_second = |count: u64| {
        let tenths = count.saturating_mul(10) / SAMPLE_INTERVAL.as_secs();
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    let plain = |value: u64| value.to_string();
    html! {
        ul.curves aria-label="The last ten minutes" {
            (curve("Requests per second", &history.new_requests(), per_second))
            (curve("Busy threads", &history.values(|sample| sample.busy), plain))
            (curve("Waiting", &history.values(|sample| sample.waiting), plain))
            (curve("Memory", &history.values(|sample| sample.rss), mebibytes))
        }
    }
}

fn workers(number: usize, status: &PoolStatus) -> Markup {
    let mut shown_workers: Vec<&WorkerStatus> = status.workers.iter().collect();
    let busy_time = |worker: &WorkerStatus| if worker.busy { worker.milliseconds } else { 0 };
    shown_workers.sort_by_key(|worker| std::cmp::Reverse(busy_time(worker)));
    shown_workers.truncate(MAX_ROWS);
    let left_out = status.workers.len() - shown_workers.len();
    let label = format!("Workers of {}", status.name);
    html! {
        details id={ "workers-" (number) } {
            summary id={ "summary-" (number) } { "Workers" }
            div.scroll id={ "table-" (number) } tabindex="0" role="region" aria-label=(label) {
                table {
                    thead {
                        tr {
                            th.number scope="col" { "Worker" }
                            th.number scope="col" { "Pid" }
                            th scope="col" { "State" }
                            th.number scope="col" { "For" }
                            th.number scope="col" { "Requests" }
                            th.number scope="col" { "Memory" }
                            th.number scope="col" { "CPU" }
                            th.number scope="col" { "Age" }
                            th.number scope="col" { "Status" }
                            th scope="col" { "Request" }
                        }
                    }
                    tbody {
                        @for worker in shown_workers {
                            tr {
                                td.number { (worker.number) "." (worker.thread) }
                                td.number { (worker.pid) }
                                td { (worker.state()) }
                                td.number { (seconds(worker.milliseconds)) }
                                td.number { (worker.requests) }
                                td.number { (mebibytes(worker.rss)) }
                                td.number { (seconds(worker.cpu_milliseconds)) }
                                td.number { (time(worker.age)) }
                                td.number {
                                    @if let Some(code) = worker.last_status { (code) }
                                }
                                td.request { (request(worker)) }
                            }
                        }
                    }
                }
            }
            @if left_out > 0 { p { "And " (left_out) " more threads." } }
        }
    }
}

/// The current request of a worker, or its last one.
pub(super) fn request(worker: &WorkerStatus) -> String {
    let request = worker.request.as_ref();
    request.map(|it| shown(&format!("{} {}", it.method, it.target))).unwrap_or_default()
}
