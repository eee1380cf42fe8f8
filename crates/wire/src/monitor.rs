//! What the gateway passes to `wsgate-http` for `wsgate monitor`.

use serde::{Deserialize, Serialize};

use crate::{
    launch::LogSettings,
    message::{Kind, Message},
};

/// The settings of a monitor. The listening sockets come with the message, in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorLaunch {
    /// The listening sockets.
    pub listeners: Vec<MonitorListener>,
    /// The token that clients must send.
    pub token: Option<String>,
    /// How the log is written.
    pub log: LogSettings,
}

/// A listening socket of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorListener {
    /// The address as people write it.
    pub address: String,
    /// Path and inode of the socket's file, if the gateway created it.
    pub file: Option<(Vec<u8>, u64)>,
}

impl Message for MonitorLaunch {
    const KIND: Kind = Kind::MonitorLaunch;
}
