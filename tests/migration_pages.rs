//! The pages for users of other servers name each setting of these, and options that exist.

use std::{collections::BTreeSet, fs, process::Command};

use crate::support::{
    artefacts,
    web_servers::{source, venv},
};

fn page(server: &str) -> String {
    fs::read_to_string(source(&format!("docs/from-{server}.md"))).unwrap()
}

/// The cells of all rows of all tables, the setting of the other server first.
fn rows(page: &str) -> Vec<(&str, &str)> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .collect()
}

/// The words between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names in the first column, without values.
fn settings(page: &str) -> BTreeSet<&str> {
    let words = rows(page).into_iter().flat_map(|(theirs, _)| code(theirs));
    words.map(|word| word.split([' ', '[']).next().unwrap()).collect()
}

fn help() -> String {
    ["fastcgi", "call", "check", "status", "reload", "stop"]
        .map(|command| {
            let output = Command::new(artefacts::gateway()).args([command, "--help"]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        })
        .concat()
}

fn is_option(help: &str, name: &str) -> bool {
    help.contains(&format!("--{name} ")) || help.contains(&format!("--{name}\n"))
}

#[test]
fn every_directive_in_the_configuration_of_php_fpm_has_a_row() {
    let page = page("php-fpm");
    let known = settings(&page);
    let mut checked = 0;
    for directory in fs::read_dir("/etc/php").unwrap() {
        let directory = directory.unwrap().path().join("fpm");
        for file in ["php-fpm.conf", "pool.d/www.conf"] {
            let text = fs::read_to_string(directory.join(file)).unwrap();
            for line in text.lines() {
                let Some((name, _)) = line.trim_start_matches([';', ' ']).split_once(" = ") else {
                    continue;
                };
                let name = name.split('[').next().unwrap();
                let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
                if name.chars().all(is_name) && !matches!(name, "env") {
                    assert!(known.contains(name), "{name}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 50, "{checked}");
}

#[test]
fn every_setting_of_gunicorn_has_a_row() {
    let output = Command::new(venv().join("bin/python"))
        .args(["-c", "from gunicorn.config import KNOWN_SETTINGS as k\nfor s in k: print(s.name)"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    let page = page("gunicorn");
    let known = settings(&page);
    assert!(names.lines().count() > 80, "{names}");
    for name in names.lines() {
        assert!(known.contains(name), "{name}");
    }
}

#[test]
fn the_options_that_replace_settings_exist() {
    let help = help();
    // Values of options, which stand where other rows have an option.
    let values = ["combined", "nofile", "stack", "cpu", "as", "atexit", "chdir"];
    for server in ["php-fpm", "uwsgi", "mod_wsgi", "gunicorn"] {
        let page = page(server);
        let mut checked = 0;
        for (_, ours) in rows(&page) {
            let Some(word) = code(ours).next() else { continue };
            let name = word.split([' ', '=']).next().unwrap();
            let name = name.strip_prefix("--").unwrap_or(name);
            if name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                && ours.starts_with('`')
                && !values.contains(&name)
                && !matches!(name, "wsgate" | "systemctl" | "kill" | "php-fpm" | "app")
            {
                assert!(is_option(&help, name), "{server}: {word}");
                checked += 1;
            }
        }
        assert!(checked > 15, "{server}: {checked}");
    }
}

#[test]
fn the_files_that_replace_configurations_have_keys_that_exist() {
    let help = help();
    for server in ["php-fpm", "uwsgi", "mod_wsgi"] {
        let page = page(server);
        let file: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("    app = "))
            .take_while(|line| line.is_empty() || line.starts_with("    "))
            .map(str::trim)
            .collect();
        let mut checked = 0;
        for line in file.iter().take_while(|line| !line.starts_with('[')) {
            let Some((key, _)) = line.split_once(" = ") else { continue };
            assert!(key == "app" || is_option(&help, key), "{server}: {key}");
            checked += 1;
        }
        assert!(checked >= 7, "{server}: {file:?}");
    }
}
