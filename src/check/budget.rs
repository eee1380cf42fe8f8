//! Reports how many processes and how much memory the application needs, and what the limits leave
//! for it: starts a warm pool for a moment, and measures its processes.

use std::{
    fs::{
        File, {self},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, getpid, kill_process},
};
use wire::app::App;

use crate::{
    check::report::Report,
    config::{
        options::{Mode, ScriptOptions},
        settings::INTERACTIVE_TIMEOUT_SECS,
        warm_pool::WarmPoolSpec,
        worker_budget::{
            MAX_DEFAULT_WARM_WORKERS, MIN_WORKER_BYTES, POOL_PROCESSES, Part, PoolUse,
            WARM_REQUEST_PROCESSES, WorkerNeed, processors, within,
        },
    },
    system::{
        limits::{Limit, Limits},
        processes::{ProcessMemory, children_of},
        runtime_directory,
    },
};

/// Pause between two measurements.
const PAUSE: Duration = Duration::from_millis(50);

/// Time that the pool has for its exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The application that is measured.
pub(super) struct Measured<'a> {
    pub(super) app: &'a App,
    pub(super) options: &'a ScriptOptions,
    pub(super) base: &'a Path,
    /// May processes be forked from one that has loaded the application, or load it at a time?
    pub(super) is_fit: bool,
}

/// The processes of a warm pool without requests, and their memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PoolSize {
    processes: u64,
    /// Memory of all processes, what they share counted once.
    bytes: u64,
    /// Memory of a python that has loaded the application.
    python: u64,
    /// Memory that one more worker adds.
    worker: u64,
}

/// Reports the budget. Without a limit, only a warm mode needs a measurement.
pub(super) fn report(report: &mut Report, measured: &Measured<'_>) {
    let limits = Limits::now();
    let mode = measured.options.mode.mode;
    let is_limited = limits.processes.is_some() || limits.memory.is_some();
    let size = if measured.is_fit && (is_limited || mode != Mode::Cold) {
        PoolSize::measure(measured)
    } else {
        None
    };
    let mut lines: Vec<String> = Vec::new();
    if let Some(size) = size {
        let of = of_limits(&limits);
        if mode == Mode::Cold {
            let request = format!("2 processes, {} MB{of}: each request", megabytes(size.python));
            lines.push(request);
        }
        lines.push(format!(
            "{} processes, {} MB{of}: a warm pool without requests",
            size.processes,
            megabytes(size.bytes)
        ));
        lines.push(size.growth(&limits, measured.options));
        lines.push(size.fastcgi(&limits));
    }
    lines.extend(limits.processes.iter().map(|limit| {
        format!("{}: {} of {} processes and threads are in use", limit.name, limit.used, limit.max)
    }));
    lines.extend(limits.memory.iter().map(|limit| {
        format!("{}: {} of {} MB are in use", limit.name, limit.used >> 20, limit.max >> 20)
    }));
    lines.extend(limits.address_space.map(|bytes| {
        format!(
            "RLIMIT_AS: each process may map {} MB, which is more than it uses of memory",
            bytes >> 20
        )
    }));
    if lines.is_empty() {
        lines.push("no limit of processes or memory is set".to_owned());
    }
    report.line("budget", lines.join("\n"));
}

/// The limits, as they follow a number of processes and of megabytes.
fn of_limits(limits: &Limits) -> String {
    match (&limits.processes, &limits.memory) {
        (Some(processes), Some(memory)) => {
            format!(", of your {} and {} MB", processes.max, memory.max >> 20)
        }
        (Some(Limit { max, .. }), None) => format!(", of your {max} processes"),
        (None, Some(Limit { max, .. })) => format!(", of your {} MB", max >> 20),
        (None, None) => String::new(),
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl PoolSize {
    /// The sentence about requests at the same time.
    fn growth(&self, limits: &Limits, options: &ScriptOptions) -> String {
        let need = WorkerNeed { processes: WARM_REQUEST_PROCESSES, bytes: self.worker };
        let most = options.warm.max_processes.unwrap_or_else(|| {
            let budget = within(limits, Part::Half, PoolUse::default(), need);
            budget.map_or(u32::MAX, |budget| budget.workers).min(MAX_DEFAULT_WARM_WORKERS)
        });
        format!(
            "each concurrent request needs {} processes and {} MB, up to {most} request{}",
            need.processes,
            megabytes(self.worker),
            if most == 1 { "" } else { "s" }
        )
    }

    /// The sentence about a FastCGI pool.
    fn fastcgi(&self, limits: &Limits) -> String {
        let need = WorkerNeed { processes: 1, bytes: self.worker };
        let budget = within(limits, Part::Half, PoolUse::default(), need);
        let workers = budget.map_or(u32::MAX, |budget| budget.workers).min(processors());
        let spare = self.processes.saturating_sub(POOL_PROCESSES) * self.worker;
        let bytes = self.bytes.saturating_sub(spare) + u64::from(workers) * self.worker;
        format!(
            "{} processes, {} MB: `wsgate fastcgi` with {workers} worker{}",
            POOL_PROCESSES + u64::from(workers),
            megabytes(bytes),
            if workers == 1 { "" } else { "s" }
        )
    }

    /// Measures a pool that is started for that. `None` if the pool does not start in time.
    fn measure(measured: &Measured<'_>) -> Option<Self> {
        let pool = TemporaryPool::start(measured)?;
        let deadline = Instant::now() + Duration::from_secs(INTERACTIVE_TIMEOUT_SECS);
        let mut last = None;
        while Instant::now() < deadline {
            let size = Self::of(pool.pid()?);
            if let (Some(size), Some(last)) = (size, last)
                && size.is_as_large_as(last)
            {
                return Some(size);
            }
            last = size;
            thread::sleep(PAUSE);
        }
        None
    }

    /// Has the pool stopped growing since it had the size `last`? Shares of memory depend on other
    /// processes, too.
    fn is_as_large_as(&self, last: Self) -> bool {
        self.processes == last.processes && self.bytes.abs_diff(last.bytes) < 1 << 20
    }

    /// The size of the pool with this supervisor, if it has workers.
    fn of(supervisor: i32) -> Option<Self> {
        let [template] = children_of(supervisor)[..] else { return None };
        let template_memory = ProcessMemory::of(template)?;
        let workers: Vec<ProcessMemory> =
            children_of(template).into_iter().filter_map(ProcessMemory::of).collect();
        let count = u64::try_from(workers.len()).ok()?;
        let private: u64 = workers.iter().map(|worker| worker.private).sum();
        let shares: u64 = workers.iter().map(|worker| worker.share).sum();
        Some(Self {
            processes: POOL_PROCESSES + count,
            bytes: ProcessMemory::of(supervisor)?.share + template_memory.share + shares,
            python: template_memory.resident,
            worker: private.checked_div(count)?.max(MIN_WORKER_BYTES),
        })
    }
}

/// A warm pool that takes no requests, and is stopped in the end.
struct TemporaryPool {
    child: Child,
    files: [std::path::PathBuf; 2],
}

impl TemporaryPool {
    fn start(measured: &Measured<'_>) -> Option<Self> {
        let directory = runtime_directory::open().ok()?;
        let name = format!("check-{}", getpid().as_raw_nonzero());
        let files = ["sock", "lock"].map(|suffix| directory.join(format!("{name}.{suffix}")));
        let [socket, lock_file] = &files;
        let mut options = measured.options.clone();
        // The pool stops by itself if this process is killed.
        options.warm.warm_idle = INTERACTIVE_TIMEOUT_SECS;
        let spec = WarmPoolSpec::new(
            measured.app.clone(),
            options,
            (measured.base, socket.as_path()),
            Vec::new(),
        );
        let spec = serde_json::to_string(&spec).ok()?;
        let lock =
            File::options().read(true).write(true).create(true).truncate(true).open(lock_file);
        let lock = lock.ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let child = Command::new("/proc/self/exe")
            .args(["warm-pool", &name, &spec])
            .current_dir("/")
            .stdin(lock)
            .stdout(Stdio::null())
            // The check has reported everything that this pool could.
            .stderr(Stdio::null())
            .spawn();
        Some(Self { child: child.ok()?, files })
    }

    /// The supervisor, if it runs.
    fn pid(&self) -> Option<i32> {
        i32::try_from(self.child.id()).ok()
    }
}

impl Drop for TemporaryPool {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + EXIT_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                // Its processes exit with it.
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(PAUSE / 5);
        }
        for file in &self.files {
            // The pool removes its files, unless it was killed.
            let _ = fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_follow_the_numbers_of_the_pool() {
        let processes = Some(Limit { name: "RLIMIT_NPROC", max: 100, used: 12 });
        let memory = Some(Limit { name: "memory.max", max: 512 << 20, used: 0 });
        for (limits, expected) in [
            (Limits::default(), ""),
            (
                Limits { processes: processes.clone(), ..Limits::default() },
                ", of your 100 processes",
            ),
            (Limits { memory: memory.clone(), ..Limits::default() }, ", of your 512 MB"),
            (Limits { processes, memory, address_space: None }, ", of your 100 and 512 MB"),
        ] {
            assert_eq!(of_limits(&limits), expected);
        }
    }
}
