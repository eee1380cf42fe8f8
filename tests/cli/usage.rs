//! Usage errors name the value and the next step.

use std::process::Command;

use crate::{
    cli::wsgate,
    support::{artefacts, child_process, install_dir::InstallDir},
};

/// Asserts that `args` are a usage error whose message contains each of `words`.
#[track_caller]
fn assert_usage_error(args: &[&str], words: &[&str]) {
    let ended = wsgate(args);
    assert_eq!((ended.code(), ended.text().as_str()), (Some(2), ""), "{args:?}: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{args:?}: no {word}: {}", ended.stderr);
    }
}

#[test]
fn a_misspelt_command_names_the_nearest_command() {
    for (misspelt, command) in [
        ("stats", "status"),
        ("stat", "status"),
        ("chek", "check"),
        ("fast-cgi", "fastcgi"),
        ("fcgi", "cgi"),
        ("relaod", "reload"),
        ("reload-all", "reload"),
        ("calll", "call"),
        ("hepl", "help"),
    ] {
        assert_usage_error(&[misspelt], &[misspelt, &format!("`wsgate {command}`")]);
    }
    assert_usage_error(&["version"], &["`wsgate --version`"]);
    assert_usage_error(&["stats", "shop"], &["`wsgate status`"]);
}

#[test]
fn an_unknown_command_before_a_file_is_named() {
    let dir = InstallDir::new();
    dir.file("app.wsgi", "");
    let mut command = Command::new(artefacts::gateway());
    command.args(["publish", "app.wsgi"]).current_dir(dir.path(""));
    let ended = child_process::run(&mut command, "");
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    let said =
        "error: `publish` is neither a command nor a file: `wsgate --help` lists the commands";
    assert!(ended.stderr.starts_with(said), "{}", ended.stderr);
}

#[test]
fn a_file_or_module_whose_name_is_near_a_command_is_served() {
    let dir = InstallDir::new();
    let app = "def application(environ, start_response):\n\
        \x20   start_response('200 OK', [('Content-Type', 'text/plain')])\n\
        \x20   return [b'served']\n";
    dir.file("stats", app);
    dir.file("checks.py", app);
    for args in [&["stats"][..], &["checks"], &["call", "stats"], &["stats", "/path"]] {
        let mut command = Command::new(artefacts::gateway());
        command.args(args).current_dir(dir.path("")).stdin(std::process::Stdio::null());
        let ended = child_process::run(&mut command, "");
        assert_eq!((ended.code(), &*ended.text()), (Some(0), "served"), "{}", ended.stderr);
    }
}

#[test]
fn the_tip_about_an_unknown_option_is_the_nearest_option() {
    for (args, tip) in [
        (&["--versoin"][..], "'--version'"),
        (&["--hlep"], "'--help'"),
        (&["call", "--verbos", "a"], "'--verbose'"),
        (&["fastcgi", "--wrokers", "2", "a"], "'--workers'"),
        (&["fastcgi", "--thread", "2", "a"], "'--threads'"),
    ] {
        assert_usage_error(args, &["similar", tip]);
    }
    let far = wsgate(&["call", "--frobnicate", "a"]);
    assert!(far.code() == Some(2) && !far.stderr.contains("similar"), "{}", far.stderr);
}

#[test]
fn venv_and_python_together_are_refused() {
    let both = ["--venv", "/a", "--python", "/b", "app.wsgi"];
    for command in ["cgi", "fastcgi", "call", "check"] {
        assert_usage_error(&[&[command], &both[..]].concat(), &["--venv", "--python"]);
        let swapped = [command, "--python", "/b", "--venv", "/a", "app.wsgi"];
        assert_usage_error(&swapped, &["--venv", "--python"]);
    }
    let dir = InstallDir::new();
    let script = dir.file("app.wsgi", "#!/usr/bin/wsgate --venv /a --python /b\n");
    let ended = wsgate(&["call", script.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    for word in ["W0103", "--venv", "--python"] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
}

#[test]
fn a_wrong_value_names_the_option_what_is_accepted_and_an_example() {
    for (args, words) in [
        (&["call", "--timeout", "abc", "a"][..], &["'abc'", "--timeout", "such as `30`"][..]),
        (&["fastcgi", "--workers", "5000", "a"], &["'5000'", "from 1 to 1024"]),
        (&["fastcgi", "--max-rss", "3T", "a"], &["'3T'", "K, M or G", "such as `200M`"]),
        (&["fastcgi", "--listen", "h:80000", "a"], &["from 0 to 65535", "`h:9000`"]),
        (&["fastcgi", "--listen", "9000", "a"], &["`127.0.0.1:9000`"]),
        (&["fastcgi", "--listen", "/run/x", "a"], &["`unix:/run/x`"]),
        (&["call", "--via", "/run/x"], &["`unix:/run/x`"]),
        (&["call", "--via", "http://h/"], &["`unix:/run/app.sock`", "`127.0.0.1:9000`"]),
        (&["fastcgi", "--socket-mode", "999", "a"], &["octal", "`660`"]),
    ] {
        assert_usage_error(args, words);
    }
}
