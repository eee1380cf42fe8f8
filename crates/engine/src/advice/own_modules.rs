//! Looks for a missing module among the application's own files.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::advice::Start;

/// How many directories above the application are searched.
const MAX_LEVELS: usize = 4;

/// How many entries of a directory are looked at.
const MAX_ENTRIES: usize = 500;

/// The directory outside `sys.path` that has the module `name`: above the application, or one level
/// below such a directory. For an application that is named by its module, directories beside its
/// own do not count: a module of that name there is probably another application.
pub(super) fn directory_of(start: &Start, name: &str) -> Option<PathBuf> {
    let owners = owners(start);
    let is_searched = |directory: &PathBuf| start.directories.contains(directory);
    let mut bases: Vec<PathBuf> = Vec::new();
    for directory in &start.directories {
        // `/srv` and `/home` belong to others, too.
        let above = directory.ancestors().take(MAX_LEVELS);
        let own = above.filter(|base| base.components().count() > 2);
        bases.extend(own.map(Path::to_owned));
    }
    let parents = bases.iter().filter(|base| start.script().is_some() || is_searched(base));
    let below = parents.flat_map(|base| directories_in(base)).collect::<Vec<_>>();
    bases.into_iter().chain(below).filter(|directory| !is_searched(directory)).find(|directory| {
        module_files(directory, name).into_iter().any(|file| is_trusted(&file, &owners))
            && is_trusted(directory, &owners)
    })
}

/// The directory `src` or `lib`, beside or above the application, that has the package `name`. The
/// package may have no `__init__.py`.
pub(super) fn source_directory_of(start: &Start, name: &str) -> Option<PathBuf> {
    let owners = owners(start);
    let levels = if start.script().is_some() { 2 } else { 1 };
    let bases = start.directories.iter().flat_map(|directory| directory.ancestors().take(levels));
    let mut sources = bases.flat_map(|base| [base.join("src"), base.join("lib")]);
    sources.find(|source| {
        let package = source.join(name);
        !start.directories.contains(source)
            && has_code(&package)
            && is_trusted(source, &owners)
            && is_trusted(&package, &owners)
    })
}

/// Has `directory` a module or a package?
fn has_code(directory: &Path) -> bool {
    entries(directory).iter().any(|path| {
        path.extension().is_some_and(|extension| extension == "py")
            || path.join("__init__.py").is_file()
    })
}

/// The files that may be the module `name` in `directory`.
fn module_files(directory: &Path, name: &str) -> [PathBuf; 2] {
    [directory.join(format!("{name}.py")), directory.join(name).join("__init__.py")]
}

/// A file or package in the application's directories whose name is almost `name`. With
/// `only_spelling`, names differ in case, `-` and `_` at most.
pub(super) fn almost(start: &Start, name: &str, only_spelling: bool) -> Option<PathBuf> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    // A short name is almost any other.
    let most = match name.len() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    let is_almost = |other: &str| {
        other != name
            && (plain(other) == plain(name)
                || !only_spelling && strsim::osa_distance(&plain(other), &plain(name)) <= most)
    };
    start.directories.iter().flat_map(|directory| entries(directory)).find(|path| {
        let module = match path.extension().and_then(|extension| extension.to_str()) {
            Some("py") => path.file_stem(),
            None if path.join("__init__.py").is_file() => path.file_name(),
            _ => None,
        };
        module.and_then(|module| module.to_str()).is_some_and(is_almost)
    })
}

/// The users whose files are as trusted as the application.
fn owners(start: &Start) -> Vec<u32> {
    let script = start.script().map(Path::to_owned);
    let paths = script.iter().chain(&start.directories);
    let mut owners: Vec<u32> =
        paths.filter_map(|path| Some(fs::metadata(path).ok()?.uid())).collect();
    owners.extend([0, geteuid().as_raw()]);
    owners
}

/// May the advice name `path`? Any user may create a module in `/tmp`.
fn is_trusted(path: &Path, owners: &[u32]) -> bool {
    fs::metadata(path).is_ok_and(|found| owners.contains(&found.uid()) && found.mode() & 0o002 == 0)
}

/// The directories in `base` that may have modules of the application.
fn directories_in(base: &Path) -> Vec<PathBuf> {
    let is_own = |path: &PathBuf| {
        path.file_name().is_some_and(|name| !name.as_bytes().starts_with(b"."))
            && path.is_dir()
            && !path.join("pyvenv.cfg").exists()
            && !path.join("__init__.py").exists()
    };
    entries(base).into_iter().filter(is_own).collect()
}

/// The first entries of `directory`, sorted by name.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> =
        entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}
