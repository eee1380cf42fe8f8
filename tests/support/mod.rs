//! The harness: web servers, pools, processes and clients that tests start, and waits that end.

pub(crate) mod artefacts;
pub(crate) mod assertions;
pub(crate) mod child_process;
pub(crate) mod fastcgi_client;
pub(crate) mod install_dir;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod waiting;
pub(crate) mod web_servers;
