//! Configuration of a pool.

use std::{path::PathBuf, time::Duration};

use wire::launch::Service;

use crate::{
    config::settings::Settings,
    pool::{address::Address, code_source::CodeSource, config_reader::ConfigReader},
};

/// Configuration of a pool.
pub(in crate::pool) struct PoolConfig {
    /// Name of the pool.
    pub(in crate::pool) name: String,
    /// What a reload may change.
    pub(in crate::pool) reloadable: ReloadableConfig,
    /// Reads the configuration again for a reload. A warm pool keeps its own.
    pub(in crate::pool) reader: Option<ConfigReader>,
    /// Scoreboard blocks per worker. With two, a replacement runs before its predecessor stops;
    /// with one, the pool never exceeds the maximum.
    pub(in crate::pool) blocks_per_worker: u32,
    /// The number of workers has no maximum of its own: it stays within half of what the limits
    /// of processes and memory leave.
    pub(in crate::pool) grows_within_limits: bool,
    /// The addresses of `--listen`, and those that the pool was started with, for an upgrade.
    pub(in crate::pool) listen: [Vec<Address>; 2],
    /// Limits of a warm pool, which requests start.
    pub(in crate::pool) on_demand: Option<OnDemand>,
}

/// The part of a pool's configuration that a reload may change.
#[derive(Clone, Debug)]
pub(in crate::pool) struct ReloadableConfig {
    /// The service of each worker, and the maximum number of workers.
    pub(in crate::pool) service: Service,
    /// The settings that `code` resolved to when the configuration was read.
    pub(in crate::pool) settings: Settings,
    /// Source of the application's code.
    pub(in crate::pool) code: CodeSource,
    /// Paths that trigger a reload when they change, beside the script.
    pub(in crate::pool) reload_on: Vec<PathBuf>,
    /// Minimum number of workers.
    pub(in crate::pool) min_workers: u32,
    /// How long a surplus idle worker is kept.
    pub(in crate::pool) idle: Duration,
    /// How long a worker that was asked to stop may take for its requests.
    pub(in crate::pool) drain: Duration,
    /// How long a process may take to exit after its last request.
    pub(in crate::pool) linger: Duration,
    /// Age at which a request is logged as slow.
    pub(in crate::pool) slow: Option<Duration>,
}

/// Limits of a pool that requests start, and that stops by itself.
#[derive(Clone, Debug)]
pub(in crate::pool) struct OnDemand {
    /// How long the pool keeps running without a request.
    pub(in crate::pool) idle: Duration,
    /// Maximum age of the pool.
    pub(in crate::pool) max_age: Option<Duration>,
    /// Path of the pool's lock file, which is open as standard input.
    pub(in crate::pool) lock: PathBuf,
}
