//! What a pool lacks the right for, in its configuration file: the message names the value and the
//! next step, and nothing is left.

use std::fs;

use crate::{
    pool::{
        ECHO,
        privileges::{self, ANOTHER, as_user},
    },
    support::{
        artefacts,
        assertions::codes,
        child_process::{ExitedProcess, piped, run},
        pool::PoolSetup,
        probe::python,
    },
};

/// The end of a pool that `user` starts with a file that has these `lines`.
fn started_by(user: u32, setup: &PoolSetup, lines: &str) -> ExitedProcess {
    let file = setup.path("shop.toml");
    let app = setup.path("app.wsgi");
    fs::write(&file, format!("app = {app:?}\npython = {:?}\n{lines}\n", python())).unwrap();
    let mut command = as_user(user, artefacts::gateway());
    command.args(["fastcgi", "--config"]).arg(&file).env_clear().env("PATH", "/usr/bin:/bin");
    command.env("WSGATE_RUNTIME_DIR", setup.path("open"));
    run(piped(&mut command), "")
}

#[track_caller]
fn assert_refused(ended: &ExitedProcess, code: &str, texts: &[&str]) {
    assert_eq!((ended.code(), codes(&ended.stderr)), (Some(78), vec![code]), "{}", ended.stderr);
    for text in texts {
        assert!(ended.stderr.contains(text), "`{text}`: {}", ended.stderr);
    }
}

#[test]
fn a_port_that_only_root_may_use_is_an_error_with_the_ways_out() {
    let Some(setup) = privileges::setup(ECHO) else { return };
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    // Containers may open all ports to everybody.
    if first.trim().parse::<u16>().unwrap() <= 1 {
        return;
    }
    privileges::theirs(&setup.path("open"), ANOTHER);
    let ended = started_by(ANOTHER, &setup, "listen = [\"127.0.0.1:1\"]");
    let hints = ["listen at a higher port", "as root with --user", "ListenStream="];
    assert_refused(&ended, "W0720", &[&["cannot listen at `127.0.0.1:1`: "], &hints[..]].concat());
}

#[test]
fn a_log_or_socket_in_a_directory_of_another_user_is_an_error_that_names_user_and_directory() {
    let Some(setup) = privileges::setup(ECHO) else { return };
    privileges::theirs(&setup.path("open"), ANOTHER);
    let directory = setup.path("theirs");
    let hint = format!("let user {ANOTHER} write in the directory `{}`", directory.display());
    for (key, code) in [("access-log", "W0105"), ("error-log", "W0105")] {
        let listen = format!("listen = [\"unix:{}\"]", setup.path("open/app.sock").display());
        let lines = format!("{listen}\n{key} = \"{}\"", directory.join("a.log").display());
        let ended = started_by(ANOTHER, &setup, &lines);
        assert_refused(&ended, code, &["a.log`: Permission denied", &hint]);
        let missing = setup.path("open/missing");
        let lines = format!("{listen}\n{key} = \"{}\"", missing.join("a.log").display());
        let create = format!("create the directory `{}`, and let user", missing.display());
        assert_refused(&started_by(ANOTHER, &setup, &lines), code, &[&create]);
    }
    let listen = format!("listen = [\"unix:{}\"]", directory.join("app.sock").display());
    assert_refused(&started_by(ANOTHER, &setup, &listen), "W0720", &["Permission denied", &hint]);
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "nothing is left");
    assert!(!setup.path("open/app.sock").exists());
}

#[test]
fn an_unknown_user_or_group_is_an_error_that_names_it() {
    let Some(setup) = privileges::setup(ECHO) else { return };
    privileges::theirs(&setup.path("open"), 0);
    let listen = format!("listen = [\"unix:{}\"]", setup.path("open/app.sock").display());
    for (lines, said) in [
        ("user = \"no-such-user\"", "there is no user `no-such-user`"),
        ("user = \"nobody\"\ngroup = \"no-such-group\"", "there is no group `no-such-group`"),
        (
            "user = \"nobody\"\nsupplementary-group = [\"no-such-group\"]",
            "there is no group `no-such-group`",
        ),
        (
            "socket-owner = \"no-such-user\"",
            "there is no user `no-such-user`, which --socket-owner",
        ),
    ] {
        let ended = started_by(0, &setup, &format!("{listen}\n{lines}"));
        assert_refused(&ended, "W0722", &[said, "getent passwd"]);
        assert!(!setup.path("open/app.sock").exists());
    }
}
