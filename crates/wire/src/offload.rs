//! Files that the web server sends in place of the application, which names them in a header.

use serde::{Deserialize, Serialize};

/// How the web server is asked for a file, and for which files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offload {
    /// The header that names the file.
    pub header: OffloadHeader,
    /// The absolute path of the directory with the files, as bytes.
    pub directory: Vec<u8>,
}

/// The header that names a file for the web server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffloadHeader {
    /// `X-Accel-Redirect` has a URL path of nginx or Caddy.
    AccelRedirect {
        /// The URL path of the directory, with a slash at the end.
        location: String,
    },
    /// `X-Sendfile` has the path of the file, for Apache or lighttpd.
    Sendfile,
}

impl OffloadHeader {
    /// The name of the header.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AccelRedirect { .. } => "X-Accel-Redirect",
            Self::Sendfile => "X-Sendfile",
        }
    }
}
