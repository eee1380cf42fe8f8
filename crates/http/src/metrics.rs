//! The metrics of all pools. `docs/monitoring.md` lists them, and a test compares both.

use std::collections::{BTreeMap, BTreeSet};

use control::{
    histogram::HistogramStatus,
    pool_status::{PoolMode, PoolStatus},
};
use diagnostics::{escape::Escaped, shorten::shorten};

use crate::{
    exposition::{
        Exposition, Format,
        Kind::{Counter, Gauge, Histogram},
    },
    history::resident_bytes,
    pools::{PoolRecord, PoolRecords},
};

/// Maximum length of a label's value in bytes.
const MAX_LABEL_BYTES: usize = 200;

/// Maximum number of workers of a pool that have metrics of their own.
const MAX_WORKERS: usize = 1024;

/// A pool with its labels.
struct Pool<'a> {
    name: String,
    user: String,
    record: &'a PoolRecord,
}

impl Pool<'_> {
    fn labels<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [("pool", self.name.as_str()), ("user", self.user.as_str())]
            .into_iter()
            .chain(more.iter().copied())
            .collect()
    }
}

/// The metrics of all pools.
pub(crate) fn render(records: &PoolRecords, format: Format) -> String {
    let pools = pools(records);
    let mut text = MetricsText { pools: &pools, out: Exposition::new(format) };
    text.out.family("wsgate_monitor_build_info", Gauge, "Version of the monitor.");
    text.out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.availability();
    text.state();
    text.load();
    text.requests();
    text.processes();
    text.workers();
    text.out.finish()
}

/// The pools. Two pools may have the same name and user, in different directories; the labels of
/// the second have the directory.
fn pools(records: &PoolRecords) -> Vec<Pool<'_>> {
    let mut known = BTreeSet::new();
    records
        .iter()
        .map(|(socket, record)| {
            let mut name = socket.name().to_owned();
            if !known.insert((name.clone(), socket.owner())) {
                name = format!("{name} in {}", socket.directory().display());
            }
            Pool { name, user: record.user().to_owned(), record }
        })
        .collect()
}

struct MetricsText<'a> {
    pools: &'a [Pool<'a>],
    out: Exposition,
}

impl MetricsText<'_> {
    fn availability(&mut self) {
        self.out.family("wsgate_pool_up", Gauge, "Whether the pool answered (1) or not (0).");
        for pool in self.pools {
            self.out.sample(&pool.labels(&[]), u8::from(pool.record.status().is_some()));
        }
        let help = "How often the pool stopped answering the monitor.";
        self.out.family("wsgate_scrape_failures_total", Counter, help);
        for pool in self.pools {
            self.out.sample(&pool.labels(&[]), pool.record.failures());
        }
    }

    /// One sample for each pool that answered and has a value.
    fn each<V: std::fmt::Display>(&mut self, value: impl Fn(&PoolStatus) -> Option<V>) {
        for pool in self.pools {
            if let Some(value) = pool.record.status().and_then(&value) {
                self.out.sample(&pool.labels(&[]), value);
            }
        }
    }

    /// Samples with a label `label` for each pool that answered.
    fn each_of<V: std::fmt::Display>(
        &mut self,
        label: &str,
        values: impl Fn(&PoolStatus) -> Vec<(String, V)>,
    ) {
        for pool in self.pools {
            for (key, value) in pool.record.status().map(&values).unwrap_or_default() {
                let key = label_value(&key);
                self.out.sample(&pool.labels(&[(label, &key)]), value);
            }
        }
    }

    fn state(&mut self) {
        self.out.family("wsgate_pool_info", Gauge, "Application, mode and version of the pool.");
        for pool in self.pools {
            let Some(status) = pool.record.status() else { continue };
            let [app, version, preload] =
                [&status.app, &status.version, &status.preload].map(|text| label_value(text));
            let mode = mode_name(status.mode);
            let labels =
                [("app", &*app), ("mode", mode), ("preload", &*preload), ("version", &*version)];
            self.out.sample(&pool.labels(&labels), 1);
        }
        self.out.family("wsgate_pool_start_time_seconds", Gauge, "Start of the pool, Unix time.");
        self.each(|status| Some(status.started));
        self.out.family("wsgate_pool_state", Gauge, "The state of the pool: 1 for one state.");
        self.each_of("state", |status| {
            let now = state_name(status);
            let states = ["serving", "loading", "reloading", "resting", "stopping"];
            states.map(|state| (state.to_owned(), u8::from(state == now))).to_vec()
        });
        self.out.family("wsgate_code_loads_total", Counter, "How often code was loaded.");
        self.each(|status| Some(status.generation));
        let help = "Whether the last attempt to load code failed (1).";
        self.out.family("wsgate_code_load_failed", Gauge, help);
        self.each(|status| Some(u8::from(status.failed_load.is_some())));
        let help = "Whether the last reload succeeded (1) or failed (0).";
        self.out.family("wsgate_last_reload_success", Gauge, help);
        self.each(|status| Some(u8::from(status.last_reload.as_ref()?.succeeded)));
        let help = "End of the last reload, Unix time.";
        self.out.family("wsgate_last_reload_time_seconds", Gauge, help);
        self.each(|status| Some(status.last_reload.as_ref()?.time));
    }

    fn load(&mut self) {
        self.out.family("wsgate_accept_queue", Gauge, "Connections in the accept queue.");
        self.listeners(|listener| listener.accept_queue);
        let help = "Longest accept queue that the pool has seen.";
        self.out.family("wsgate_accept_queue_peak", Gauge, help);
        self.listeners(|listener| Some(listener.peak_accept_queue));
        self.out.family("wsgate_accept_queue_limit", Gauge, "Maximum length of the accept queue.");
        self.listeners(|listener| listener.backlog);
        let help = "Accepted connections that wait for a worker.";
        self.out.family("wsgate_connection_queue", Gauge, help);
        self.each(|status| Some(status.queued));
        self.out.family("wsgate_threads", Gauge, "Threads of workers by state.");
        self.each_of("state", |status| {
            let leaving = status.workers.iter().filter(|worker| worker.leaving && !worker.busy);
            let leaving = leaving.count();
            [("busy", status.busy), ("idle", status.idle), ("leaving", leaving)]
                .map(|(state, count)| (state.to_owned(), count))
                .to_vec()
        });
        let help = "Most threads that were busy at once.";
        self.out.family("wsgate_threads_busy_peak", Gauge, help);
        self.each(|status| Some(status.peak_busy));
        self.out.family("wsgate_workers", Gauge, "Worker processes.");
        self.each(|status| {
            let pids: BTreeSet<i32> = status.workers.iter().map(|worker| worker.pid).collect();
            Some(pids.len())
        });
        let help = "Worker processes that a signal or a debugger has stopped.";
        self.out.family("wsgate_workers_stopped", Gauge, help);
        self.each(|status| Some(status.stopped_workers().len()));
        self.out.family("wsgate_workers_min", Gauge, "Minimum number of workers.");
        self.each(|status| Some(status.min));
        self.out.family("wsgate_workers_max", Gauge, "Maximum number of workers.");
        self.each(|status| Some(status.max));
        let help = "How often all threads of the maximum number of workers became busy.";
        self.out.family("wsgate_workers_max_reached_total", Counter, help);
        self.each(|status| Some(status.max_reached));
    }

    fn listeners(&mut self, value: impl Fn(&control::pool_status::ListenerStatus) -> Option<u32>) {
        self.each_of("listener", |status| {
            // A label's value stands once: a pool of another user may repeat an address.
            let values: BTreeMap<String, u32> = status
                .listeners
                .iter()
                .filter_map(|listener| Some((listener.address.clone(), value(listener)?)))
                .collect();
            values.into_iter().collect()
        });
    }

    fn requests(&mut self) {
        let help = "Requests, with those in progress.";
        self.out.family("wsgate_requests_total", Counter, help);
        self.each(|status| Some(status.requests));
        self.out.family("wsgate_responses_total", Counter, "Responses by class of their status.");
        self.each_of("class", |status| {
            let responses = &status.responses;
            [
                ("1xx", responses.informational),
                ("2xx", responses.successful),
                ("3xx", responses.redirected),
                ("4xx", responses.client_errors),
                ("5xx", responses.server_errors),
            ]
            .map(|(class, count)| (class.to_owned(), count))
            .to_vec()
        });
        let help = "Requests whose client disconnected before the end of the response.";
        self.out.family("wsgate_requests_aborted_total", Counter, help);
        self.each(|status| Some(status.aborted));
        let help = "Requests that took longer than --slow.";
        self.out.family("wsgate_requests_slow_total", Counter, help);
        self.each(|status| Some(status.counters.slow));
        let help = "Requests that reached --timeout.";
        self.out.family("wsgate_requests_timed_out_total", Counter, help);
        self.each(|status| Some(status.counters.timed_out));
        let help = "Requests that the supervisor answered with 503.";
        self.out.family("wsgate_requests_refused_total", Counter, help);
        self.each(|status| Some(status.counters.refused));
        let help = "How long requests took in a worker.";
        self.out.family("wsgate_request_duration_seconds", Histogram, help);
        self.histograms(|status| &status.duration);
        let help = "How long requests waited for a worker.";
        self.out.family("wsgate_request_waiting_seconds", Histogram, help);
        self.histograms(|status| &status.waiting);
    }

    fn histograms(&mut self, histogram: impl Fn(&PoolStatus) -> &HistogramStatus) {
        for pool in self.pools {
            if let Some(histogram) = pool.record.status().map(&histogram) {
                let sum = histogram.sum_microseconds as f64 / 1e6;
                self.out.histogram(&pool.labels(&[]), &histogram.cumulative(), sum);
            }
        }
    }

    fn processes(&mut self) {
        let help = "Python processes that crashed, by signal or exit.";
        self.out.family("wsgate_crashes_total", Counter, help);
        self.each_of("cause", |status| {
            let crashed = &status.counters.crashed;
            crashed.iter().map(|(cause, count)| (cause.clone(), *count)).take(64).collect()
        });
        let help = "Workers that were replaced or stopped, by reason.";
        self.out.family("wsgate_workers_replaced_total", Counter, help);
        self.each_of("reason", |status| {
            let replaced = &status.counters.replaced;
            [
                ("crash", replaced.crash),
                ("exit", replaced.exit),
                ("idle", replaced.idle),
                ("max-age", replaced.max_age),
                ("max-requests", replaced.max_requests),
                ("max-rss", replaced.max_rss),
                ("reload", replaced.reload),
                ("timeout", replaced.timeout),
            ]
            .map(|(reason, count)| (reason.to_owned(), count))
            .to_vec()
        });
        let help = "Resident memory of all workers; shared memory counts for each.";
        self.out.family("wsgate_memory_rss_bytes", Gauge, help);
        self.each(|status| Some(resident_bytes(status)));
        let help = "Processor time of workers that this monitor has seen.";
        self.out.family("wsgate_cpu_seconds_total", Counter, help);
        for pool in self.pools.iter().filter(|pool| pool.record.status().is_some()) {
            self.out.sample(&pool.labels(&[]), pool.record.cpu_time().as_secs_f64());
        }
    }

    fn workers(&mut self) {
        let help = "Requests that the worker has served.";
        self.out.family("wsgate_worker_requests_total", Counter, help);
        self.each_worker(|worker| worker.requests);
        let help = "Time in the current request; 0 if the worker is idle.";
        self.out.family("wsgate_worker_request_seconds", Gauge, help);
        self.each_worker(|worker| worker.milliseconds as f64 / 1e3);
        self.out.family("wsgate_worker_rss_bytes", Gauge, "Resident memory of the worker.");
        self.each_worker(|worker| worker.rss);
        self.out.family(
            "wsgate_worker_cpu_seconds_total",
            Counter,
            "Processor time of the worker.",
        );
        self.each_worker(|worker| worker.cpu_milliseconds as f64 / 1e3);
        self.out.family("wsgate_worker_age_seconds", Gauge, "Time since the worker was forked.");
        self.each_worker(|worker| worker.age);
    }

    fn each_worker<V: std::fmt::Display>(&mut self, value: impl Fn(&Worker) -> V) {
        self.each_of("worker", |status| {
            let workers = Worker::of(status).into_iter();
            workers.map(|(number, worker)| (number.to_string(), value(&worker))).collect()
        });
    }
}

/// A worker: the sums of its threads.
#[derive(Default)]
struct Worker {
    pid: i32,
    requests: u64,
    /// The longest time in a current request.
    milliseconds: u64,
    rss: u64,
    cpu_milliseconds: u64,
    age: u64,
}

impl Worker {
    /// The workers by their numbers. During a reload, an old worker and a new one have the same
    /// number, and the younger one counts.
    fn of(status: &PoolStatus) -> BTreeMap<u32, Self> {
        let mut workers: BTreeMap<u32, Self> = BTreeMap::new();
        for thread in &status.workers {
            if workers.len() == MAX_WORKERS && !workers.contains_key(&thread.number) {
                continue;
            }
            let worker = workers.entry(thread.number).or_default();
            if worker.pid != thread.pid {
                if worker.pid != 0 && worker.age <= thread.age {
                    continue;
                }
                let &control::pool_status::WorkerStatus { pid, rss, cpu_milliseconds, age, .. } =
                    thread;
                *worker = Self { pid, rss, cpu_milliseconds, age, ..Self::default() };
            }
            worker.requests = worker.requests.saturating_add(thread.requests);
            if thread.busy {
                worker.milliseconds = worker.milliseconds.max(thread.milliseconds);
            }
        }
        workers
    }
}

/// `text` as the value of a label, without hidden characters, and not too long.
fn label_value(text: &str) -> String {
    shorten(&Escaped(text).to_string(), MAX_LABEL_BYTES).into_owned()
}

/// The name of a mode in options.
pub(crate) fn mode_name(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Fastcgi => "fastcgi",
        PoolMode::Warm => "warm",
        PoolMode::Resident => "resident",
    }
}

/// The state of a pool in one word.
pub(crate) fn state_name(status: &PoolStatus) -> &'static str {
    match status {
        PoolStatus { stopping: true, .. } => "stopping",
        PoolStatus { reloading: true, .. } => "reloading",
        PoolStatus { loading: true, .. } => "loading",
        PoolStatus { resting: true, .. } => "resting",
        _ => "serving",
    }
}
