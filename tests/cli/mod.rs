//! The command line's own words: help, man page, completions, complaints.

mod effects;
mod exit_codes;
mod usage;

use std::{path::Path, process::Command};

use crate::support::{
    artefacts,
    child_process::{
        ExitedProcess, {self},
    },
};

/// The subcommands in `--help`, in its order.
const LISTED: [&str; 12] = [
    "cgi", "fastcgi", "serve", "status", "reload", "stop", "stacks", "top", "monitor", "call",
    "check", "init",
];

/// The hidden subcommands, whose output is for other programs.
const HIDDEN: [&str; 2] = ["man", "completions"];

#[track_caller]
fn wsgate(args: &[&str]) -> ExitedProcess {
    // In a directory without files, and without the variables of the user who runs the tests.
    let mut command = Command::new(artefacts::gateway());
    child_process::run(command.args(args).env_clear().current_dir("/"), "")
}

/// Standard output of a command that succeeds.
#[track_caller]
fn output(args: &[&str]) -> String {
    let ended = wsgate(args);
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    ended.text()
}

/// The options of a help text, each with its explanation.
fn options(help: &str) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in help.lines() {
        let text = line.trim_start();
        if text.starts_with("- ") {
            // A possible value of the option above.
        } else if text.starts_with('-') && line.starts_with(' ') {
            let (option, help) = text.split_once("  ").unwrap_or((text, ""));
            options.push((option.to_owned(), help.trim().to_owned()));
            inside = true;
        } else if !line.starts_with(' ') && !line.is_empty() {
            inside = false;
        } else if let Some((_, help)) = options.last_mut().filter(|_| inside) {
            help.push_str(text);
        }
    }
    options
}

/// The long names in an option as help writes it: `-X, --request <METHOD>`.
fn long_names(option: &str) -> impl Iterator<Item = &str> {
    option.split([' ', ',']).filter(|word| word.starts_with("--"))
}

#[test]
fn every_command_stands_in_the_help_or_is_hidden_on_purpose() {
    let help = output(&["--help"]);
    let listed: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, LISTED);
    for command in LISTED.into_iter().chain(HIDDEN) {
        assert!(output(&[command, "--help"]).contains("Usage: wsgate"), "{command}");
    }
}

#[test]
fn help_with_a_command_shows_what_the_option_shows() {
    assert_eq!(output(&["help"]), output(&["--help"]));
    for command in LISTED {
        assert_eq!(output(&["help", command]), output(&[command, "--help"]), "{command}");
    }
    let ended = wsgate(&["help", "no-such-command"]);
    assert_eq!((ended.code(), ended.text().as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("'no-such-command'"), "{}", ended.stderr);
}

#[test]
fn every_option_of_every_command_has_help_in_both_lengths() {
    let alone = LISTED.into_iter().chain(HIDDEN).map(|command| vec![command]);
    for command in std::iter::once(Vec::new()).chain(alone) {
        let mut names: Vec<Vec<String>> = Vec::new();
        for help in ["-h", "--help"] {
            let text = output(&[command.as_slice(), &[help]].concat());
            let options = options(&text);
            assert!(!options.is_empty(), "{command:?}: {text}");
            for (option, explanation) in &options {
                let without_values = explanation.split('[').next().unwrap_or_default();
                assert!(
                    without_values.trim().len() > 8,
                    "{command:?} {help}: `{option}` has no help in {text}"
                );
            }
            names.push(
                options
                    .iter()
                    .flat_map(|(option, _)| long_names(option))
                    .map(str::to_owned)
                    .collect(),
            );
        }
        assert_eq!(names[0], names[1], "{command:?}: the lengths differ in their options");
    }
}

#[test]
fn every_argument_has_help() {
    for command in LISTED.into_iter().chain(["completions"]) {
        let text = output(&[command, "-h"]);
        let arguments = text
            .lines()
            .skip_while(|line| *line != "Arguments:")
            .skip(1)
            .take_while(|line| !line.is_empty());
        for line in arguments {
            let help = line.trim().split_once(' ').map_or("", |(_, help)| help.trim());
            assert!(!help.is_empty(), "{command}: {line}");
        }
    }
}

#[test]
fn the_man_page_of_the_program_names_every_command() {
    let page = output(&["man"]);
    assert!(page.contains(".SH COMMANDS"), "{page}");
    for command in LISTED {
        assert!(page.contains(&format!("wsgate\\-{command}(1)")), "no {command} in {page}");
    }
}

/// The arguments of `wsgate man` for each page.
fn pages() -> impl Iterator<Item = Vec<&'static str>> {
    std::iter::once(vec!["man"]).chain(LISTED.map(|command| vec!["man", command]))
}

#[test]
fn every_command_has_a_man_page_with_all_sections() {
    for arguments in pages() {
        let page = output(&arguments);
        let name = arguments.join("-").replace("man", "wsgate");
        let lines: Vec<&str> = page.lines().collect();
        let title = lines.iter().find(|line| line.starts_with(".TH")).unwrap();
        assert!(title.starts_with(&format!(".TH {name} 1")), "{title}");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "FILES",
            "ENVIRONMENT",
            "SIGNALS",
            "\"EXIT STATUS\"",
            "EXAMPLES",
            "\"SEE ALSO\"",
        ] {
            let count = lines.iter().filter(|line| **line == format!(".SH {section}")).count();
            assert_eq!(count, 1, "{name}: {section} in {page}");
        }
    }
}

#[test]
fn a_man_page_has_every_option_of_its_command() {
    for command in LISTED {
        let page = output(&["man", command]);
        let options = options(&output(&[command, "--help"]));
        for name in options.iter().flat_map(|(option, _)| long_names(option)) {
            assert!(page.contains(&name.replace('-', "\\-")), "{command}: no {name} in {page}");
        }
    }
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let pool = crate::pool::PoolSetup::new(crate::pool::ECHO).start();
    let run_directory = pool.setup().path("run");
    let script = crate::support::web_servers::source("cgi-bin/hello.wsgi");
    let check = ["check", script.to_str().unwrap()];
    for args in [&["man"][..], &["completions", "bash"], &["status"], &check] {
        let mut command = Command::new(artefacts::gateway());
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("WSGATE_RUNTIME_DIR", &run_directory);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("error[W0510]: standard output cannot"), "{args:?}: {stderr}");
    }
    pool.stop();
}

#[test]
fn a_restart_file_is_named_where_it_has_an_effect() {
    assert!(output(&["man", "cgi"]).contains("tmp/restart.txt"));
    assert!(!output(&["man", "fastcgi"]).contains("tmp/restart.txt"));
}

#[test]
fn a_command_without_a_man_page_is_an_error() {
    for name in ["man", "warm-pool", "no-such-command"] {
        let ended = wsgate(&["man", name]);
        assert_eq!((ended.code(), ended.text().as_str()), (Some(2), ""), "{name}");
        assert!(ended.stderr.contains(&format!("`{name}` has no man page")), "{}", ended.stderr);
    }
}

#[test]
fn every_man_page_can_be_formatted() {
    let place = tempfile::TempDir::new().unwrap();
    for arguments in pages() {
        let path = place.path().join("page.1");
        std::fs::write(&path, output(&arguments)).unwrap();
        // Not every machine has groff.
        let Ok(formatted) =
            Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path).output()
        else {
            return;
        };
        assert_eq!(String::from_utf8_lossy(&formatted.stderr), "", "{arguments:?}");
    }
}

#[test]
fn completions_know_every_option_of_every_command() {
    let mut expected: Vec<(&str, String)> = Vec::new();
    for command in LISTED.into_iter().chain(HIDDEN) {
        for (option, _) in options(&output(&[command, "-h"])) {
            expected.extend(
                long_names(&option).map(|name| (command, name.trim_end_matches('=').to_owned())),
            );
        }
    }
    assert!(
        expected
            .iter()
            .any(|(command, name)| (*command, name.as_str()) == ("call", "--script-name"))
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = output(&["completions", shell]);
        for (command, name) in &expected {
            let word = if shell == "fish" { name.trim_start_matches("--") } else { name };
            assert!(script.contains(word), "{shell} does not complete {command} {name}");
        }
    }
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("completions");
        std::fs::write(&path, output(&["completions", shell])).unwrap();
        // Not every machine has each shell.
        let Ok(read) = Command::new(shell).args(check).arg(&path).output() else { continue };
        assert!(
            read.status.success() && read.stderr.is_empty(),
            "{shell}: {}",
            String::from_utf8_lossy(&read.stderr)
        );
    }
}

#[test]
fn the_version_is_the_packages() {
    for word in ["--version", "-V"] {
        assert_eq!(output(&[word]), format!("wsgate {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn unknown_arguments_are_an_error_with_exit_code_2() {
    for (args, said) in [
        (&["--bogus"][..], "--bogus"),
        (&["cgi", "--bogus", "app.wsgi"], "--bogus"),
        (&["call", "--bogus", "app.wsgi"], "--bogus"),
        (&["cgi", "--mode", "lukewarm", "app.wsgi"], "lukewarm"),
        (&["check", "--bogus", "app.wsgi"], "--bogus"),
        (&["man", "--bogus"], "--bogus"),
        (&["completions", "--bogus"], "--bogus"),
        (&["completions"], "<SHELL>"),
        (&["completions", "cmd"], "cmd"),
        (&["cgi"], "<APP>"),
        (&["call"], "<APP>"),
        (&["check"], "<APP>"),
        (&["call", "app.wsgi", "--timeout"], "--timeout"),
        (&["call", "app.wsgi", "--timeout", "-1"], "-1"),
        (&["call", "app.wsgi", "--debug=yes"], "--debug"),
    ] {
        let ended = wsgate(args);
        assert_eq!(
            (ended.code(), ended.text().as_str()),
            (Some(2), ""),
            "{args:?}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains(said) && ended.stderr.starts_with("error: "),
            "{args:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn without_arguments_the_help_is_shown_and_nothing_else_happens() {
    let ended = wsgate(&[]);
    assert_eq!((ended.code(), ended.text().as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("Usage: wsgate [OPTIONS] SCRIPT [TARGET]"), "{}", ended.stderr);
}

#[test]
fn the_help_of_cgi_names_all_options_that_a_script_may_have() {
    for help in ["-h", "--help"] {
        let text = output(&["cgi", help]);
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(joined.contains("--reload-on, --reload and --slow of `wsgate fastcgi`"), "{text}");
    }
}

#[test]
fn the_help_lists_the_exit_codes_and_the_forms_of_app() {
    let help = output(&["--help"]);
    for text in ["Exit codes:", "package.module[:callable]"] {
        assert!(help.contains(text), "no `{text}` in {help}");
    }
    assert!(!Path::new("/hello.wsgi").exists(), "the examples are examples");
}

#[test]
fn arguments_that_are_not_utf_8_do_no_harm() {
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9.wsgi");
    for command in LISTED {
        let mut gateway = Command::new(artefacts::gateway());
        let ended =
            child_process::run(gateway.arg(command).arg(odd).env_clear().current_dir("/"), "");
        assert!(
            ended.code().is_some_and(|code| [0, 1, 2, 78].contains(&code)),
            "{command}: {ended:?}"
        );
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
