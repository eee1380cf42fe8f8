//! Messages between gateway and engine, and the memory that they share. Knows neither Python nor
//! any transport.

// Only mapping memory needs it, in two places.
#![deny(unsafe_code)]

pub mod app;
pub mod check;
pub mod connection_queue;
pub mod jitter;
pub mod launch;
pub mod lingering_close;
#[expect(unsafe_code, reason = "memory that is mapped from a file")]
pub mod mappable;
pub mod mount;
pub mod overdue_requests;
pub mod percent;
pub mod pool_logs;
pub mod report;
pub mod running_clock;
#[expect(unsafe_code, reason = "memory that other processes change")]
pub mod scoreboard;
pub mod snapshot;
pub mod template;
pub mod warm_request;

/// Name of this build: the version and a digest of this crate. Gateway and engine work together
/// only if theirs are equal, since everything they exchange is laid out by this crate.
///
/// The name stands in the program once and as a whole, where a look at the file finds it: an
/// optimiser that knew it would write it as pieces of instructions.
#[must_use]
pub fn build() -> &'static str {
    std::hint::black_box(env!("WSGATE_BUILD"))
}
