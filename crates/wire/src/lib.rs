//! Messages between gateway and engine, file descriptors that go with them, and the memory that the
//! processes of a pool share. A leaf: knows neither Python, nor a transport, nor `diagnostics`.
//!
//! Gateway and engine exchange nothing that this crate does not lay out, so [`build`] names all
//! that they must agree on.

// Mapping memory needs unsafe code, in two modules.
#![deny(unsafe_code)]

pub mod app;
pub mod check;
pub mod clock;
pub mod connection_queue;
pub mod descriptors;
pub mod host_port;
pub mod jitter;
pub mod launch;
pub mod lingering_close;
#[expect(unsafe_code, reason = "memory that is mapped from a file")]
pub mod mappable;
pub mod message;
pub mod monitor;
pub mod mount;
pub mod offload;
pub mod overdue_requests;
pub mod path_timeouts;
pub mod percent;
pub mod pool_logs;
pub mod report;
pub mod request;
pub mod running_clock;
#[expect(unsafe_code, reason = "memory that other processes change")]
pub mod scoreboard;
pub mod serve;
pub mod snapshot;
pub mod stacks_file;
pub mod synthetic_request;
pub mod template;
pub mod trusted_proxies;

/// Name of this build: the version and a digest of this crate. Gateway and engine work together
/// only if both have the same name.
///
/// The name stands in the program once and as a whole, so that a search in the file finds it: an
/// optimiser that knew the name would write it as pieces of instructions.
#[must_use]
pub fn build() -> &'static str {
    std::hint::black_box(env!("WSGATE_BUILD"))
}
