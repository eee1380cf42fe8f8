//! What the gateway and the engine say to each other, and the words both of them use towards the
//! web server and the error log. Knows neither Python nor any transport.

// Only mapping memory needs it, in two places.
#![deny(unsafe_code)]

pub mod app;
pub mod check;
pub mod ending;
pub mod entry;
pub mod error_log;
pub mod handoff;
pub mod handover;
pub mod launch;
pub mod logs;
#[expect(unsafe_code, reason = "memory that is mapped from a file")]
pub mod mappable;
pub mod mount;
pub mod page;
pub mod percent;
pub mod pool;
pub mod report;
pub mod request_id;
pub mod running;
#[expect(unsafe_code, reason = "memory that other processes change")]
pub mod scoreboard;
pub mod snapshot;
pub mod spread;
pub mod visible;
pub mod watch;

/// Name of this build: the version and a digest of this crate. Gateway and engine work together
/// only if theirs are equal, since everything they exchange is laid out by this crate.
///
/// The name stands in the program once and as a whole, where a look at the file finds it: an
/// optimiser that knew it would write it as pieces of instructions.
#[must_use]
pub fn build() -> &'static str {
    std::hint::black_box(env!("WSGATE_BUILD"))
}
