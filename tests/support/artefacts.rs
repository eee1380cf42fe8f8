//! The gateway and the engine that are tested: those of `make build`, as they ship.
//!
//! `WSGATE_TEST_DIST` names another directory that has them, laid out as installed or as cargo
//! builds: `make try` tests `target/debug`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The sources of the artefacts.
const SOURCES: [&str; 15] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "crates/wire/src",
    "crates/control/src",
    "crates/http/src",
    "crates/control/Cargo.toml",
    "crates/http/Cargo.toml",
    "crates/diagnostics/src",
    "crates/engine/src",
    "crates/fastcgi-server/src",
    "crates/wire/Cargo.toml",
    "crates/diagnostics/Cargo.toml",
    "crates/engine/Cargo.toml",
    "crates/fastcgi-server/Cargo.toml",
];

struct Artefacts {
    gateway: PathBuf,
    engine: PathBuf,
    http: PathBuf,
}

/// The gateway, `wsgate`.
pub(crate) fn gateway() -> &'static Path {
    &artefacts().gateway
}

/// The engine, `libwsgate_engine.so`.
pub(crate) fn engine() -> &'static Path {
    &artefacts().engine
}

/// The program that speaks HTTP, `wsgate-http`.
pub(crate) fn http() -> &'static Path {
    &artefacts().http
}

fn artefacts() -> &'static Artefacts {
    static FOUND: OnceLock<Result<Artefacts, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match named() {
        Some(directory) => find(&directory),
        None => find(&target().join("dist")).and_then(of_these_sources),
    });
    match found {
        Ok(found) => found,
        Err(reason) => {
            panic!("{reason}: run `make build`, or `make try TESTS=NAME` for a debug build")
        }
    }
}

fn named() -> Option<PathBuf> {
    env::var_os("WSGATE_TEST_DIST").filter(|named| !named.is_empty()).map(PathBuf::from)
}

/// Where cargo builds to.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn find(directory: &Path) -> Result<Artefacts, String> {
    let file = |places: [&str; 2]| {
        let found = places.iter().find_map(|dir| directory.join(dir).canonicalize().ok());
        found.ok_or_else(|| format!("no {} in {}", places[0], directory.display()))
    };
    let gateway = file(["bin/wsgate", "wsgate"])?;
    let engine = file(["lib/wsgate/libwsgate_engine.so", "libwsgate_engine.so"])?;
    let http = file(["lib/wsgate/wsgate-http", "wsgate-http"])?;
    Ok(Artefacts { gateway, engine, http })
}

/// The artefacts, if no source was changed after they were built.
fn of_these_sources(found: Artefacts) -> Result<Artefacts, String> {
    let built = changed(&found.gateway).min(changed(&found.engine)).min(changed(&found.http));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match SOURCES.iter().find_map(|source| newer(&root.join(source), built)) {
        Some(source) => {
            Err(format!("{} is older than {}", found.gateway.display(), source.display()))
        }
        None => Ok(found),
    }
}

/// A file below `path` that was changed after `time`.
fn newer(path: &Path, time: SystemTime) -> Option<PathBuf> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().find_map(|entry| newer(&entry.unwrap().path(), time));
    }
    (changed(path) > time).then(|| path.to_owned())
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|about| about.modified())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_gateway_that_ships_needs_no_shared_library_where_a_static_one_is_installed() {
    if named().is_some() {
        return;
    }
    let headers = Command::new("readelf")
        .args(["--program-headers", "--wide"])
        .arg(gateway())
        .output()
        .unwrap();
    let headers = String::from_utf8_lossy(&headers.stdout).into_owned();
    assert!(headers.contains("LOAD"), "{headers}");
    let archive = Command::new("cc").arg("-print-file-name=libc.a").output().unwrap();
    assert!(!headers.contains("INTERP") || !archive.stdout.contains(&b'/'), "{headers}");
}

#[test]
fn the_artefacts_that_ship_run_on_old_systems_where_the_build_tools_are_installed() {
    if named().is_some() || !target().join("tools/tools.txt").exists() {
        return;
    }
    let linkage = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/linkage");
    let checked = Command::new(linkage).arg(target().join("dist")).arg("2.17").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn artefacts_that_are_missing_or_older_than_a_source_are_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    let missing = find(directory.path()).err().unwrap();
    assert!(missing.starts_with("no bin/wsgate in "), "{missing}");
    for file in ["wsgate", "libwsgate_engine.so", "wsgate-http"] {
        fs::write(directory.path().join(file), "").unwrap();
    }
    let found = find(directory.path()).unwrap();
    fs::File::open(&found.engine).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let stale = of_these_sources(found).err().unwrap();
    assert!(stale.contains("wsgate is older than "), "{stale}");
    assert!(of_these_sources(find(directory.path()).unwrap()).is_err());
    fs::File::open(directory.path().join("libwsgate_engine.so"))
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    assert!(of_these_sources(find(directory.path()).unwrap()).is_ok());
}
