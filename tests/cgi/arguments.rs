//! Arguments of a CGI program are a client's to choose (RFC 3875 4.4, CVE-2012-1823): none of them
//! may take effect. Scripts are executed by their paths here, as web servers do it.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{
    assertions::{complete_response, only_log_message},
    child_process::{
        ExitedProcess, {self},
    },
    install_dir::InstallDir,
};

/// Shows what options and arguments could have changed.
const APP: &str = "
    import json, os, sys
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        shown = {'argv': sys.argv, 'python': sys.executable, 'path': sys.path, 'cwd': os.getcwd(), \
        'file': __file__,
                 'set': os.environ.get('SET_BY_OPTION'), 'query': environ['QUERY_STRING']}
        return [json.dumps(shown).encode()]
    ";

/// Words that a client would like to be options or commands, as a web server makes arguments out of
/// a query.
fn attacks(dir: &InstallDir) -> Vec<Vec<String>> {
    let evil = dir
        .executable("evil/python", "#!/bin/sh\nexec touch \"$0.started\"\n")
        .display()
        .to_string();
    let app = dir.file("evil/evil.wsgi", "open(__file__ + '.started', 'w')").display().to_string();
    [
        &["--python", &evil][..],
        &[&format!("--python={evil}")],
        &["--env", "SET_BY_OPTION=evil", "--chdir", "/"],
        &["--debug", "--path", "/evil", "--timeout", "1"],
        &["cgi", "--python", &evil, &app],
        &["cgi", &app],
        &["call", &app],
        &["check", &app],
        &[&app],
        &["man"],
        &["completions", "bash"],
        &["-h"],
        &["--help"],
        &["--version"],
        &["--", "--debug"],
        &["--no-such-option"],
        &["-X", "DELETE", "-i"],
        &["", "\u{e9}", "*"],
    ]
    .map(|args| args.iter().map(|&word| word.to_owned()).collect())
    .to_vec()
}

/// No interpreter and no application of an attacker was started.
#[track_caller]
fn nothing_of_it_was_started(dir: &InstallDir) {
    for trace in ["evil/python.started", "evil/evil.wsgi.started"] {
        assert!(!dir.path(trace).exists(), "{trace}");
    }
}

#[track_caller]
fn shown(ended: &ExitedProcess) -> Value {
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{}", ended.text());
    let response = complete_response(&ended.stdout);
    assert_eq!(response.status, 200);
    serde_json::from_slice(&response.body).unwrap()
}

/// The script serves its request as if there were no arguments.
#[track_caller]
fn serves_as_ever(dir: &InstallDir, script: &Path, ended: &ExitedProcess) {
    let shown = shown(ended);
    assert_eq!(shown["argv"], serde_json::json!([script]));
    assert_eq!(shown["file"], script.to_str().unwrap());
    assert_eq!(shown["cwd"], script.parent().unwrap().to_str().unwrap());
    assert!(shown["set"].is_null() && !shown["path"].to_string().contains("evil"), "{shown}");
    nothing_of_it_was_started(dir);
}

#[test]
fn c25_arguments_after_the_path_of_a_script_are_no_options() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", APP);
    for args in attacks(&dir) {
        for query in [args.join("+"), String::new(), "a=1".to_owned()] {
            let ended = child_process::run(
                dir.request(&script).args(&args).env("QUERY_STRING", &query),
                "",
            );
            serves_as_ever(&dir, &script, &ended);
        }
    }
}

#[test]
fn c25_arguments_after_a_script_are_no_options_where_the_script_line_has_some() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE --env SET_BY_OPTION=own --path lib", APP);
    std::fs::create_dir(dir.path("cgi-bin/lib")).unwrap();
    for args in attacks(&dir) {
        let ended = child_process::run(
            dir.request(&script).args(&args).env("QUERY_STRING", args.join("+")),
            "",
        );
        let shown = shown(&ended);
        assert_eq!(shown["set"], "own", "{args:?}");
        assert_eq!(shown["path"][1], dir.path("cgi-bin/lib").to_str().unwrap());
        nothing_of_it_was_started(&dir);
    }
}

#[test]
fn c25_arguments_after_a_script_that_env_starts_are_no_options() {
    let dir = InstallDir::new();
    let script =
        dir.script("cgi-bin/app.wsgi", "#!/usr/bin/env -S wsgate --env SET_BY_OPTION=own", APP);
    for args in attacks(&dir) {
        let mut command = dir.request(&script);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", dir.path("bin").display());
        command.env("PATH", path).env("QUERY_STRING", args.join("+")).args(&args);
        let shown = shown(&child_process::run(&mut command, ""));
        assert_eq!(
            (&shown["set"], &shown["argv"]),
            (&"own".into(), &serde_json::json!([script])),
            "{args:?}"
        );
        nothing_of_it_was_started(&dir);
    }
}

#[test]
fn c25_arguments_after_a_script_that_the_web_server_names_are_no_options() {
    // lighttpd: `cgi.assign = (".wsgi" => "/usr/local/bin/wsgate")`, with and without a `#!` line.
    let dir = InstallDir::new();
    let plain = dir.file("cgi-bin/plain.wsgi", APP);
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", APP);
    for script in [plain, script] {
        for args in attacks(&dir) {
            let mut command = Command::new(dir.wsgate());
            dir.describe(&mut command, &script);
            let ended = child_process::run(
                command.arg(&script).args(&args).env("QUERY_STRING", args.join("+")),
                "",
            );
            serves_as_ever(&dir, &script, &ended);
        }
    }
}

#[test]
fn c25_the_gateway_itself_takes_no_arguments_from_a_request() {
    // A ScriptAlias to the program itself: whatever stands in the query, there is no script.
    let dir = InstallDir::new();
    let binary = dir.wsgate();
    let mut all = attacks(&dir);
    all.push(Vec::new());
    for args in all {
        for program in [binary.clone(), linked(&dir)] {
            let mut command = Command::new(&program);
            dir.describe(&mut command, &program);
            command.args(&args).env("QUERY_STRING", args.join("+")).env("PATH_INFO", "/x");
            let ended = child_process::run(&mut command, "");
            refuses(&dir, &ended, 403, "W0104");
        }
    }
}

/// A link to the gateway, as one might stand in cgi-bin.
fn linked(dir: &InstallDir) -> PathBuf {
    let link = dir.path("bin/wsgate.cgi");
    if !link.exists() {
        std::os::unix::fs::symlink("wsgate", &link).unwrap();
    }
    link
}

#[track_caller]
fn refuses(dir: &InstallDir, ended: &ExitedProcess, status: u16, code: &str) {
    let page = complete_response(&ended.stdout);
    assert_eq!((page.status, ended.code()), (status, Some(0)), "{}", ended.text());
    only_log_message(&ended.stderr, code);
    nothing_of_it_was_started(dir);
}

#[test]
fn c25_without_a_script_a_query_without_an_equals_sign_names_none() {
    // A front that sets no SCRIPT_FILENAME and makes arguments out of the query.
    let dir = InstallDir::new();
    for args in attacks(&dir) {
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, &dir.wsgate());
        command
            .env_remove("SCRIPT_FILENAME")
            .env("QUERY_STRING", args.join("+").replace('=', "%3D"))
            .args(&args);
        refuses(&dir, &child_process::run(&mut command, ""), 500, "W0101");
    }
}

#[test]
fn c25_where_the_web_server_names_a_missing_script_a_query_is_no_argument() {
    // A front in another root directory than ours: what it names cannot be found among the
    // arguments.
    let dir = InstallDir::new();
    let script = dir.file("cgi-bin/app.wsgi", APP);
    for args in attacks(&dir) {
        let mut command = Command::new(dir.wsgate());
        dir.describe(&mut command, &script);
        command.env("SCRIPT_FILENAME", "/another/root/app.wsgi").arg(&script).args(&args);
        command.env("QUERY_STRING", args.join("+").replace('=', "%3D"));
        refuses(&dir, &child_process::run(&mut command, ""), 500, "W0101");
    }
}

#[test]
fn c25_the_name_that_a_program_is_started_by_is_not_trusted_either() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", APP);
    let mut command = dir.request(&script);
    command.arg0("--python").arg("/evil").env("QUERY_STRING", "/evil");
    serves_as_ever(&dir, &script, &child_process::run(&mut command, ""));
}

#[test]
fn c25_a_program_of_the_deployers_may_start_us_with_options() {
    let dir = InstallDir::new();
    let app = dir.file("apps/app.wsgi", APP);
    let line = format!(
        "#!/bin/sh\nexec {} cgi --env SET_BY_OPTION=own {}\n",
        dir.wsgate().display(),
        app.display()
    );
    let script = dir.executable("cgi-bin/app.cgi", line);
    for args in attacks(&dir) {
        let ended = child_process::run(
            dir.request(&script).args(&args).env("QUERY_STRING", args.join("+")),
            "",
        );
        assert_eq!(shown(&ended)["set"], "own");
        nothing_of_it_was_started(&dir);
    }
}

#[test]
fn c25_a_redirect_that_only_a_header_claims_is_none() {
    // Headers arrive with HTTP_ before their names; REDIRECT_STATUS and REDIRECT_HANDLER can be set
    // by the front alone.
    let dir = InstallDir::new();
    let script = dir.file("pages/app.wsgi", APP);
    let mut command = Command::new(dir.wsgate());
    dir.describe(&mut command, &dir.wsgate());
    command
        .env("HTTP_REDIRECT_STATUS", "200")
        .env("HTTP_REDIRECT_HANDLER", "wsgate")
        .env("PATH_INFO", "/pages/app.wsgi")
        .env("PATH_TRANSLATED", script);
    refuses(&dir, &child_process::run(&mut command, ""), 403, "W0104");
}
