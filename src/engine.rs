//! Where the engine is: the extension module that python loads.

use std::{
    env,
    path::{Path, PathBuf},
};

use link::entry::{Code, Entry};

/// File name of the engine, as cargo builds it and `make install` puts it in place.
const FILE: &str = "libwsgate_engine.so";

/// The engine: where `WSGATE_ENGINE` says, beside this program, or in `../lib/wsgate/`.
///
/// # Errors
/// The log entry, if there is none.
pub(crate) fn find() -> Result<PathBuf, Entry> {
    if let Some(path) = env::var_os("WSGATE_ENGINE").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(missing(&[path]).hint("correct the variable WSGATE_ENGINE, or take it away"))
        };
    }
    let program = env::current_exe().map_err(|error| {
        Entry::error(Code::NoEngine, format!("the program's own path is unknown: {error}"))
            .hint("mount /proc, or name the engine by the variable WSGATE_ENGINE")
    })?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = [beside.join(FILE), beside.join("../lib/wsgate").join(FILE)];
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        missing(&places).hint("install it with `make install`, or name it by the variable WSGATE_ENGINE")
    })
}

/// The entry for an engine that `python` cannot load, with its `reason`.
pub(crate) fn unfit(engine: &Path, python: &Path, reason: &str) -> Entry {
    Entry::error(
        Code::UnfitEngine,
        format!("the engine `{}` does not work in `{}`: {reason}", engine.display(), python.display()),
    )
    .hint("it needs CPython 3.9 or later and the gateway of the same build; install both with `make install`")
}

fn missing(places: &[PathBuf]) -> Entry {
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    Entry::error(Code::NoEngine, format!("the engine was not found as {}", places.join(" or ")))
}
