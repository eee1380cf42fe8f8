//! Everything that gateway and engine say to people: log messages with their codes, error pages,
//! request ids. A leaf: knows neither Python, nor a transport, nor `wire`.

pub mod code;
pub mod error_log;
pub mod error_page;
pub mod escape;
pub mod limit_hints;
pub mod log_record;
pub mod log_style;
pub mod message;
pub mod process_exit;
pub mod request_id;
pub mod shorten;
pub mod timestamp;
