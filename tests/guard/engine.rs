//! Engines that are not there, or are none.

use std::{fs, os::unix::net::UnixListener, path::Path};

use crate::{
    guard::{page, page_of},
    pool::PoolSetup,
    support::{
        artefacts,
        assertions::{complete_response, only_log_message},
        child_process,
        install_dir::InstallDir,
        probe::{Probe, python},
    },
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

#[test]
fn an_engine_that_is_missing_at_the_path_of_the_variable_is_named() {
    let response = Probe::new(HELLO).variable("WSGATE_ENGINE", "/absent/engine.so").run();
    assert!(page(&response, 500, "W0203").contains("/absent/engine.so"), "{}", response.log);
    let response = Probe::new(HELLO).variable("WSGATE_ENGINE", "/").run();
    page(&response, 500, "W0203");
}

#[test]
fn a_missing_engine_is_named_with_every_path_that_was_searched() {
    let dir = InstallDir::new();
    fs::remove_file(dir.path("bin/libwsgate_engine.so")).unwrap();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let ended = child_process::run(&mut dir.request(&script), "");
    let message = page_of(&ended, 500, "W0203");
    assert!(
        message.contains("bin/libwsgate_engine.so")
            && message.contains("lib/wsgate/libwsgate_engine.so"),
        "{message}"
    );
}

#[test]
fn an_engine_is_found_where_make_install_puts_it() {
    let dir = InstallDir::new();
    fs::create_dir_all(dir.path("lib/wsgate")).unwrap();
    fs::rename(dir.path("bin/libwsgate_engine.so"), dir.path("lib/wsgate/libwsgate_engine.so"))
        .unwrap();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let ended = child_process::run(&mut dir.request(&script), "");
    assert_eq!(complete_response(&ended.stdout).body, b"hello", "{}", ended.stderr);
}

#[test]
fn a_file_that_is_no_engine_is_named_with_pythons_message() {
    let dir = InstallDir::new();
    // A library that is none of Python's: the C library of this process.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps
        .split_whitespace()
        .find(|word| word.contains("/libc.so") || word.contains("/libc-"))
        .unwrap();
    let files = [
        (dir.file("text.so", "no library"), "ImportError"),
        (dir.file("empty.so", ""), "ImportError"),
        (dir.executable("header.so", b"\x7fELF\x02\x01\x01"), "ImportError"),
        (library.into(), "PyInit__wsgate"),
    ];
    for (file, reason) in files {
        let response = Probe::new(HELLO).variable("WSGATE_ENGINE", file.to_str().unwrap()).run();
        let message = page(&response, 500, "W0206");
        assert!(message.contains(file.to_str().unwrap()) && message.contains(reason), "{message}");
    }
}

#[test]
fn an_engine_that_cannot_be_read_is_named() {
    let dir = InstallDir::new();
    let engine = dir.path("bin/libwsgate_engine.so");
    let copy = dir.path("bin/closed.so");
    dir.install(&engine, "bin/closed.so", 0o600);
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let mut command = crate::guard::files::as_nobody(&dir, &script);
    let ended = child_process::run(command.env("WSGATE_ENGINE", &copy), "");
    let is_root = rustix::process::getuid().is_root();
    if is_root {
        assert!(page_of(&ended, 500, "W0206").contains("closed.so"), "{}", ended.stderr);
    }
}

#[test]
fn an_engine_of_another_build_is_refused_before_anything_is_exchanged() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let build = dir.build();
    let (engine, other) = dir.of_another_build("bin/libwsgate_engine.so");
    let engine = dir.executable("bin/other.so", engine);
    let ended = child_process::run(dir.request(&script).env("WSGATE_ENGINE", &engine), "");
    let message = page_of(&ended, 500, "W0206");
    assert!(
        message.contains(&format!(
            "the gateway is of build `{build}`, this engine of build `{other}`"
        )),
        "{message}"
    );
}

/// The hash of a version's name, as the dynamic loader compares it (System V ABI).
fn hash_of(name: &[u8]) -> u32 {
    name.iter().fold(0_u32, |hash, &byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        (hash ^ ((hash & 0xf000_0000) >> 24)) & 0x0fff_ffff
    })
}

fn replace_all(content: &mut [u8], old: &[u8], new: &[u8]) {
    let found = content.windows(old.len()).enumerate().filter(|(_, window)| *window == old);
    let positions: Vec<usize> = found.map(|(at, _)| at).collect();
    assert!(!positions.is_empty(), "{old:?} is not in the engine");
    positions.into_iter().for_each(|at| content[at..at + new.len()].copy_from_slice(new));
}

/// An engine that needs a C library which nobody has.
fn of_a_newer_system() -> Vec<u8> {
    let mut content = fs::read(artefacts::engine()).unwrap();
    // Needed by every engine: `__cxa_finalize` and the like.
    let (old, new) = (b"GLIBC_2.2.5\0", b"GLIBC_9.9.9\0");
    replace_all(&mut content, old, new);
    let [old, new] =
        [&old[..], &new[..]].map(|name| hash_of(&name[..name.len() - 1]).to_le_bytes());
    replace_all(&mut content, &old, &new);
    content
}

const AGAIN: &str = "install wsgate again";

/// Engines that cannot be loaded, the code of each, and what the log says of each.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str, &'static [&'static str])> {
    let whole = fs::read(artefacts::engine()).unwrap();
    let mut engines: Vec<(_, _, _, &[&str])> = vec![
        ("empty.so", Vec::new(), "W0206", &["the file is empty", AGAIN]),
        ("text.so", b"no library".to_vec(), "W0206", &["is not a shared library", AGAIN]),
    ];
    if cfg!(all(target_arch = "x86_64", target_endian = "little")) {
        let mut other = whole.clone();
        // `e_machine`: AArch64.
        other[18..20].copy_from_slice(&[183, 0]);
        engines.push(("other.so", other, "W0206", &["it is for AArch64", AGAIN]));
        engines.push((
            "newer.so",
            of_a_newer_system(),
            "W0207",
            &[
                "GLIBC_9.9.9' not found",
                "it needs glibc 9.9.9, this system has 2.",
                "which need glibc 2.17 only",
            ],
        ));
        for (name, length) in [("header.so", 40), ("begun.so", 5000), ("half.so", whole.len() / 10)]
        {
            let part = whole[..length].to_vec();
            engines.push((name, part, "W0206", &["the file is damaged: it has", AGAIN]));
        }
    }
    engines
}

#[track_caller]
fn names(log: &str, engine: &Path, code: &str, args: &[&str]) {
    let message = only_log_message(log, code);
    assert!(message.contains(engine.to_str().unwrap()), "{log}");
    args.iter().for_each(|word| assert!(log.contains(word), "no `{word}`: {log}"));
    assert!(!log.contains("/proc/self/fd") && !log.contains("SIGBUS"), "{log}");
}

#[test]
fn an_engine_that_cannot_be_loaded_is_named_with_its_cause_in_every_mode() {
    let dir = InstallDir::new();
    for (name, content, code, args) in broken() {
        let engine = dir.executable(name, content);
        let variable = engine.to_str().unwrap();
        for mode in ["cold", "warm"] {
            let probe =
                Probe::new(HELLO).options(&["--mode", mode]).variable("WSGATE_ENGINE", variable);
            let response =
                probe.variable("WSGATE_RUNTIME_DIR", dir.path("run").to_str().unwrap()).run();
            page(&response, 500, code);
            names(&response.log, &engine, code, args);
        }
        let setup = || PoolSetup::new(HELLO).variable("WSGATE_ENGINE", variable);
        let ended = setup().launch().end();
        assert_ne!(ended.code(), Some(0), "{name}");
        names(&ended.stderr, &engine, code, args);
        let alone = setup();
        let listener = UnixListener::bind(alone.path("app.sock")).unwrap();
        let ended = alone.start_on(listener).end();
        assert_ne!(ended.code(), Some(0), "{name}");
        assert!(
            ended.stderr.contains(&format!("error[{code}]")) && ended.stderr.contains(variable),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(args[0]), "{}", ended.stderr);
        let script = dir.file("app.wsgi", HELLO);
        let mut check = std::process::Command::new(dir.wsgate());
        check.arg("check").arg("--python").arg(python()).arg(&script).env("WSGATE_ENGINE", &engine);
        let ended = child_process::run(&mut check, "");
        assert_eq!(ended.code(), Some(1), "{name}");
        names(&ended.stderr, &engine, code, args);
    }
}
