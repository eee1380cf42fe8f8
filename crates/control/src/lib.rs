//! Finding running pools, and talking to their control sockets: what the gateway and `wsgate-http`
//! both need. A leaf: knows neither the supervisor nor Python.
//!
//! A pool's control socket is in the runtime directory of its user, and only that user and root may
//! enter that directory.

#![forbid(unsafe_code)]

pub mod all_pools;
pub mod client;
pub mod connection;
pub mod histogram;
mod other_users;
pub mod pool_error;
pub mod pool_name;
pub mod pool_status;
pub mod process_stacks;
pub mod process_state;
pub mod protocol;
pub mod runtime_directory;
pub mod sockets;
pub mod trusted_path;
pub mod user_name;
