//! The harness: web servers, pools, processes and clients that tests start, and waits that end.

pub(crate) mod artefacts;
pub(crate) mod assertions;
pub(crate) mod browser;
pub(crate) mod child_process;
pub(crate) mod control_group;
pub(crate) mod control_socket;
pub(crate) mod fastcgi_client;
mod fastcgi_request;
pub(crate) mod install_dir;
pub(crate) mod noise;
pub(crate) mod own_user;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod random;
pub(crate) mod user_change;
pub(crate) mod waiting;
pub(crate) mod web_servers;
pub(crate) mod wheel;
