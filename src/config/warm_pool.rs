//! The description that a gateway passes to the warm pool that it starts, and the marks that the
//! pool leaves in its lock file for later gateways.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use wire::app::App;

use crate::config::options::{ScriptOptions, os_paths};

/// The content of the lock file of a pool that could not start.
pub(crate) const FAILED: &[u8] = b"failed\n";

/// The content of the lock file if the import of the application opened a resource that only one
/// process may have.
pub(crate) const ONE_PROCESS: &[u8] = b"one process\n";

/// The description of a warm pool, as the JSON argument of `wsgate warm-pool`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct WarmPoolSpec {
    /// The application.
    pub(crate) app: App,
    /// How the application is run.
    pub(crate) options: ScriptOptions,
    /// The directory that relative paths are relative to.
    base: OsString,
    /// The path of the socket on which the pool takes requests.
    socket: OsString,
    /// Files whose change stops the pool.
    #[serde(with = "os_paths")]
    pub(crate) stops_on: Vec<PathBuf>,
}

impl WarmPoolSpec {
    /// The description of a pool that listens on `socket`; relative paths are relative to `base`.
    pub(crate) fn new(
        app: App,
        options: ScriptOptions,
        (base, socket): (&Path, &Path),
        stops_on: Vec<PathBuf>,
    ) -> Self {
        Self { app, options, base: base.into(), socket: socket.into(), stops_on }
    }

    /// The description in `json`.
    ///
    /// # Errors
    /// If `json` is not a description.
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// The directory that relative paths are relative to.
    pub(crate) fn base(&self) -> &Path {
        Path::new(&self.base)
    }

    /// The path of the socket on which the pool takes requests.
    pub(crate) fn socket(&self) -> &Path {
        Path::new(&self.socket)
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_description_comes_back_as_it_was_passed_on() {
        let odd = OsStr::from_bytes(b"/srv/caf\xe9");
        let options = ScriptOptions::parse_from([
            OsStr::new("wsgate"),
            OsStr::new("--mode=resident"),
            OsStr::new("--venv"),
            odd,
            OsStr::new("--path=a"),
            OsStr::new("--path=b"),
            OsStr::new("--env=A=b=c"),
            OsStr::new("--timeout=7"),
            OsStr::new("--max-rss=2M"),
            OsStr::new("--queue=9"),
        ]);
        let app = App::in_file("/srv/app.wsgi");
        let stops_on = vec![PathBuf::from("/srv/x"), PathBuf::from(odd)];
        let spec = WarmPoolSpec::new(
            app,
            options,
            (Path::new(odd), Path::new("/run/s")),
            stops_on.clone(),
        );
        let json = serde_json::to_string(&spec).unwrap();
        let passed = WarmPoolSpec::parse(&json).unwrap();
        assert_eq!(serde_json::to_string(&passed).unwrap(), json);
        assert_eq!((passed.base(), passed.socket()), (Path::new(odd), Path::new("/run/s")));
        assert_eq!(passed.stops_on, stops_on);
        let app = &passed.options.app;
        assert_eq!((app.venv.as_deref(), app.path.len()), (Some(Path::new(odd)), 2));
        assert_eq!(app.env, [("A".into(), "b=c".into())]);
        assert_eq!(passed.options.limits.max_rss, Some(2 << 20));
        // The pool is the same for all queue timeouts of requests.
        assert_eq!(passed.options.warm.queue, 1);
    }
}
