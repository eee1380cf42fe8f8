//! What gateway and engine say to people: log messages with their codes, error pages, request ids.
//! Knows neither Python nor any transport.

pub mod error_log;
pub mod error_page;
pub mod escape;
pub mod message;
pub mod process_exit;
pub mod request_id;
