//! Files that are installed with this program: beside it, or in `../lib/wsgate/`.

use std::{
    env, io,
    path::{Path, PathBuf},
};

/// Why an installed file was not found.
#[derive(Debug)]
pub(crate) enum NotInstalled {
    /// None of these files exists.
    At([PathBuf; 2]),
    /// The environment variable names no file.
    Variable(PathBuf),
    /// The path of this program is unknown.
    NoProgram(io::Error),
}

/// The file `name` that the environment variable `variable` names, or that is installed with this
/// program.
///
/// # Errors
/// Why there is no such file.
pub(crate) fn find(name: &str, variable: &str) -> Result<PathBuf, NotInstalled> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(NotInstalled::Variable(path)) };
    }
    let program = env::current_exe().map_err(NotInstalled::NoProgram)?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let paths = [beside.join(name), beside.join("../lib/wsgate").join(name)];
    paths.iter().find(|path| path.is_file()).cloned().ok_or(NotInstalled::At(paths))
}
