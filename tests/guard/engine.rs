//! Engines that are not there, or are none.

use std::fs;

use super::{page, page_of};
use crate::{place::Place, probe::Probe, running, verdict::whole};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

#[test]
fn an_engine_that_is_not_where_the_variable_says_is_named() {
    let reply = Probe::new(HELLO).variable("WSGATE_ENGINE", "/absent/engine.so").run();
    assert!(page(&reply, 500, "W0203").contains("/absent/engine.so"), "{}", reply.log);
    let reply = Probe::new(HELLO).variable("WSGATE_ENGINE", "/").run();
    page(&reply, 500, "W0203");
}

#[test]
fn an_engine_that_is_nowhere_is_named_with_every_place_that_was_searched() {
    let place = Place::new();
    fs::remove_file(place.path("bin/libwsgate_engine.so")).unwrap();
    let script = place.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let ended = running::run(&mut place.request(&script), "");
    let entry = page_of(&ended, 500, "W0203");
    assert!(entry.contains("bin/libwsgate_engine.so") && entry.contains("lib/wsgate/libwsgate_engine.so"), "{entry}");
}

#[test]
fn an_engine_is_found_where_make_install_puts_it() {
    let place = Place::new();
    fs::create_dir_all(place.path("lib/wsgate")).unwrap();
    fs::rename(place.path("bin/libwsgate_engine.so"), place.path("lib/wsgate/libwsgate_engine.so")).unwrap();
    let script = place.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let ended = running::run(&mut place.request(&script), "");
    assert_eq!(whole(&ended.stdout).body, b"hello", "{}", ended.stderr);
}

#[test]
fn a_file_that_is_no_engine_is_named_with_what_python_says() {
    let place = Place::new();
    // A library that is none of Python's: the C library of this process.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.split_whitespace().find(|word| word.contains("/libc.so") || word.contains("/libc-")).unwrap();
    let files = [
        (place.file("text.so", "no library"), "ImportError"),
        (place.file("empty.so", ""), "ImportError"),
        (place.executable("header.so", b"\x7fELF\x02\x01\x01"), "ImportError"),
        (library.into(), "PyInit__wsgate"),
    ];
    for (file, reason) in files {
        let reply = Probe::new(HELLO).variable("WSGATE_ENGINE", file.to_str().unwrap()).run();
        let entry = page(&reply, 500, "W0206");
        assert!(entry.contains(file.to_str().unwrap()) && entry.contains(reason), "{entry}");
    }
}

#[test]
fn an_engine_that_cannot_be_read_is_named() {
    let place = Place::new();
    let engine = place.path("bin/libwsgate_engine.so");
    let copy = place.path("bin/closed.so");
    place.install(&engine, "bin/closed.so", 0o600);
    let script = place.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let mut command = super::files::as_nobody(&place, &script);
    let ended = running::run(command.env("WSGATE_ENGINE", &copy), "");
    let is_root = rustix::process::getuid().is_root();
    if is_root {
        assert!(page_of(&ended, 500, "W0206").contains("closed.so"), "{}", ended.stderr);
    }
}

#[test]
fn an_engine_of_another_build_is_refused_before_anything_is_exchanged() {
    let place = Place::new();
    let script = place.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let build = place.build();
    let (engine, other) = place.of_another_build("bin/libwsgate_engine.so");
    let engine = place.executable("bin/other.so", engine);
    let ended = running::run(place.request(&script).env("WSGATE_ENGINE", &engine), "");
    let entry = page_of(&ended, 500, "W0206");
    assert!(entry.contains(&format!("the gateway is of build `{build}`, this engine of build `{other}`")), "{entry}");
}
