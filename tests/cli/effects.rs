//! Options that have no effect are refused, and every other one stands in the help.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Command,
};

use crate::{
    cli::{long_names, options, output, wsgate},
    support::{
        artefacts,
        child_process::{
            ExitedProcess, {self},
        },
        install_dir::InstallDir,
    },
};

/// The subcommands that run an application.
const COMMANDS: [&str; 5] = ["cgi", "fastcgi", "serve", "call", "check"];

const APP: &str = "/nonexistent/app.wsgi";

/// A value of the form that the help gives, `--listen <ADDRESS>`, that leads nowhere.
fn value(option: &str) -> Option<&'static str> {
    let form = option.split_once('<')?.1.trim_end_matches('>');
    Some(match form {
        "DIR" | "PATH" | "FILE" => "/nonexistent/x",
        "EXE" => "/nonexistent/python",
        "NAME=VALUE" if option.starts_with("--rlimit") => "core=0",
        "NAME=VALUE" => "A=b",
        "PATH=SECONDS" => "/a=1",
        "CIDR" => "10.0.0.0/8",
        "WAY" => "x-sendfile:/srv",
        "HEADER" if option.starts_with("--trust") => "Forwarded",
        "SECONDS" | "COUNT" | "NICENESS" => "1",
        "MASK" => "022",
        "MODULE:FUNCTION" => "a:b",
        "SIZE" => "1M",
        "ACTION" => "cold",
        "ADDRESS" => "unix:/nonexistent/socket",
        "MODE" if option.starts_with("--socket") => "600",
        "MODE" => "warm",
        "TEXT" => "text",
        "WHEN" => "no",
        "FORMAT" => "json",
        "PID" => "1",
        "PORT" => "8000",
        "PATH=DIR" => "/a=/nonexistent/x",
        "METHOD" => "GET",
        "HEADER" => "A: b",
        "USER:PASSWORD" => "a:b",
        "FIELD" | "COOKIES" => "a=b",
        "CALLABLE" => "app",
        "AGENT" | "URL" => "x",
        "OWNER" | "USER" | "GROUP" | "NAME" | "HOST" | "DATA" => "root",
        other => panic!("what is a {other} of {option}?"),
    })
}

fn is_refused(ended: &ExitedProcess, option: &str) -> bool {
    ended.code() == Some(2) && ended.stderr.contains(&format!("{option} has no effect"))
}

/// All options of all subcommands, each tried with each.
#[test]
fn each_option_is_refused_or_stands_in_the_help_of_its_command() {
    let of_command: Vec<Vec<String>> = COMMANDS
        .iter()
        .map(|command| {
            options(&output(&[command, "--help"])).into_iter().map(|(option, _)| option).collect()
        })
        .collect();
    let mut forms = BTreeMap::new();
    for option in of_command.iter().flatten() {
        for long in long_names(option).filter(|long| !["--help", "--version"].contains(long)) {
            forms.insert(long.to_owned(), option.clone());
        }
    }
    assert!(forms.len() > 45, "{forms:?}");
    for (command, known) in COMMANDS.iter().zip(&of_command) {
        for (long, form) in &forms {
            let is_listed = known.iter().any(|option| long_names(option).any(|name| name == long));
            let mut args = vec![*command, long];
            args.extend(value(form));
            // Of CGI there are more modes, and of a request more receivers.
            let resident = ["--mode", "resident"];
            let via = ["--via", "unix:/nonexistent/socket"];
            match (*command, long.as_str()) {
                ("cgi", "--mode") => {}
                ("cgi", _) if is_listed => args.extend(resident),
                ("call", "--script-filename") => args.extend(via),
                ("call", "--via") => {}
                _ => args.push(APP),
            }
            if *command == "cgi" {
                args.push(APP);
            }
            let ended = wsgate(&args);
            if is_listed {
                assert!(!is_refused(&ended, long), "{args:?}: {}", ended.stderr);
                assert!(
                    !ended.stderr.contains("unexpected argument"),
                    "{args:?}: {}",
                    ended.stderr
                );
            } else {
                let is_unknown =
                    ended.code() == Some(2) && ended.stderr.contains("unexpected argument");
                assert!(is_unknown || is_refused(&ended, long), "{args:?}: {}", ended.stderr);
            }
        }
    }
}

#[test]
fn an_option_of_another_mode_is_refused_with_the_modes_that_it_is_for() {
    for (args, said) in [
        (
            &["fastcgi", "--mode", "warm", APP][..],
            "has no effect in `wsgate fastcgi`; it is for CGI, `wsgate check`, `wsgate init`",
        ),
        (
            &["fastcgi", "--warm-age", "3", APP],
            "--warm-age has no effect in `wsgate fastcgi`; it is for CGI with --mode warm",
        ),
        (
            &["cgi", "--queue", "3", APP],
            "--queue has no effect in CGI with --mode cold; it is for CGI with --mode warm",
        ),
        (
            &["cgi", "--mode", "warm", "--max-age", "3", APP],
            "--max-age has no effect in CGI with --mode warm",
        ),
        (
            &["call", "--max-rss", "3M", APP],
            "--max-rss has no effect in `wsgate call`; it is for CGI with --mode resident",
        ),
        (&["call", "--mode", "warm", APP], "--mode has no effect in `wsgate call`"),
        (
            &["call", "--via", "unix:/x", "--warm-up", "/"],
            "--warm-up has no effect in `wsgate call`",
        ),
        (&[APP, "--queue", "3"], "--queue has no effect in `wsgate call`"),
        (&["check", "--max-requests", "3", APP], "--max-requests has no effect in `wsgate check`"),
        (&["check", "--debug", APP], "--debug has no effect in `wsgate check`"),
        (&["fastcgi", "--access-format", "json", APP], "--access-log"),
    ] {
        let ended = wsgate(args);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
}

const HELLO: &str = "def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'hello']
";

#[test]
fn a_worker_without_a_supervisor_refuses_what_only_pools_do() {
    let dir = InstallDir::new();
    let app = dir.file("app.wsgi", HELLO);
    let args = [
        (&["--name", "x"][..], "--name has no effect in a worker on standard input"),
        (&["--preload", "yes"], "--preload has no effect in a worker on standard input"),
        (&["--warm-up", "/"], "--warm-up has no effect in a worker on standard input"),
        (&["--after-fork", "a:b"], "--after-fork has no effect in a worker on standard input"),
        (
            &["--slow", "1", "--slow-log", "/dev/null"],
            "--slow-log has no effect in a worker on standard input",
        ),
        (&["--socket-owner", "root"], "--socket-owner has no effect without `--listen unix:PATH`"),
        (&["--socket-mode", "600", "--workers", "2"], "--socket-mode has no effect"),
    ];
    for (args, said) in args {
        let listener = UnixListener::bind(dir.path("socket")).unwrap();
        let mut command = Command::new(artefacts::gateway());
        command.arg("fastcgi").args(args).arg(&app).stdin(OwnedFd::from(listener));
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains("[W0105]"), "{args:?}: {stderr}");
        std::fs::remove_file(dir.path("socket")).unwrap();
    }
}

/// What is said about options of other commands on a first line.
const ON_A_LINE: [&str; 5] = [
    "--workers has no effect on a `#!` line; it is for `wsgate fastcgi`\n",
    "--access-log has no effect on a `#!` line; it is for `wsgate fastcgi`\n",
    "--host has no effect on a `#!` line; it is for `wsgate serve`, `wsgate call`, `wsgate call \
        --via`\n",
    "--via has no effect on a `#!` line; it is for `wsgate call --via`\n",
    "--user has no effect on a `#!` line; it is for `wsgate fastcgi`, `wsgate call`, `wsgate call \
        --via`, `wsgate check`\n",
];

/// One first line serves CGI, FastCGI and the shell, and may have options of all of them.
#[test]
fn a_first_line_may_have_options_of_every_mode_that_it_serves_in() {
    let dir = InstallDir::new();
    for (line, refused) in [
        ("--max-requests 5 --header-timeout 3 --slow 2 --reload --warm-up /", None),
        ("--mode warm --queue 3 --max-age 100", None),
        ("--queue 3", Some("--queue has no effect in CGI with --mode cold")),
        ("--mode cold --warm-idle 5", Some("--warm-idle has no effect in CGI with --mode cold")),
        // Options of other commands than `wsgate cgi`.
        ("--workers 2", Some(ON_A_LINE[0])),
        ("--workers=2 --name x", Some(ON_A_LINE[0])),
        ("--access-log /x", Some(ON_A_LINE[1])),
        ("--host x", Some(ON_A_LINE[2])),
        ("--via unix:/x", Some(ON_A_LINE[3])),
        ("--user www-data", Some(ON_A_LINE[4])),
        ("--no-such-option", Some("unexpected argument '--no-such-option' found")),
    ] {
        let app = dir.script("app.wsgi", &format!("#!WSGATE {line}"), HELLO);
        let mut command = Command::new(dir.wsgate());
        let ended = child_process::run(command.arg("call").arg(app), "");
        match refused {
            None => assert_eq!(
                (ended.code(), ended.text().as_str()),
                (Some(0), "hello"),
                "{line}: {}",
                ended.stderr
            ),
            Some(option) => {
                assert_eq!(ended.code(), Some(78), "{line}: {}", ended.stderr);
                assert!(ended.stderr.contains("[W0103]"), "{}", ended.stderr);
                assert!(ended.stderr.contains(option), "{line}: {}", ended.stderr);
                assert!(!ended.stderr.contains("a similar argument"), "{line}: {}", ended.stderr);
            }
        }
    }
}
