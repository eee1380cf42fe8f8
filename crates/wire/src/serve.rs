//! What the gateway passes to `wsgate-http` for `wsgate serve`.

use serde::{Deserialize, Serialize};

use crate::{
    launch::LogSettings,
    message::{Kind, Message},
};

/// The settings of a development server. Its listening socket comes with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeLaunch {
    /// The application, as people write it.
    pub app: String,
    /// `HOST:PORT` of the listening socket, with a numeric host.
    pub address: String,
    /// The host of `--host`.
    pub host: String,
    /// The port that was taken, if the socket has another one for that reason.
    pub taken_port: Option<u16>,
    /// The program that runs a pool.
    pub program: Vec<u8>,
    /// Arguments of a pool with the application, except for its socket and its name.
    pub arguments: Vec<Vec<u8>>,
    /// Directories with the code and templates of the application, and single files.
    pub watched: Vec<Vec<u8>>,
    /// Whether pages in a browser reload themselves.
    pub live: bool,
    /// The directory of CGI programs, which are served in place of an application.
    pub cgi: Option<Vec<u8>>,
    /// URL paths of static files, each with their directory.
    pub static_files: Vec<(String, Vec<u8>)>,
    /// Whether a browser is started.
    pub open: bool,
    /// How the log is written.
    pub log: LogSettings,
}

impl Message for ServeLaunch {
    const KIND: Kind = Kind::ServeLaunch;
}
