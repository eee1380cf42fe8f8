//! A script with our `#!` line, started from a shell; and terminals.

use std::process::Command;

use crate::{
    call::Shell,
    support::child_process::{
        RunningProcess, piped, {self},
    },
};

/// Tells what it was asked for.
const TELLS: &str = "
    import os
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        asked = [environ['REQUEST_METHOD'], environ['PATH_INFO'], environ['QUERY_STRING'], \
        os.environ.get('SET', '-')]
        return [' '.join(asked).encode(), b' ', environ['wsgi.input'].read(), b'\\n']
    ";

#[test]
fn c45_a_script_that_is_started_from_a_shell_prints_its_response() {
    let shell = Shell::new();
    for (line, set) in [
        ("#!WSGATE", "-"),
        ("#!WSGATE --env SET=line --timeout 100", "line"),
        // For mod_fcgid; these have no effect in a shell.
        ("#!WSGATE --env SET=line --reload --reload-on tmp", "line"),
        ("#!/usr/bin/env -S wsgate --env SET=line", "line"),
        ("#!/usr/bin/env wsgate", "-"),
    ] {
        let script = shell.dir.script("site/hello.wsgi", line, TELLS);
        let asked = |args: &[&str]| {
            let mut command = shell.command(&script, args);
            let path = command
                .get_envs()
                .find(|(name, _)| *name == "PATH")
                .unwrap()
                .1
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            command.env("PATH", format!("{}:{path}", shell.dir.path("bin").display()));
            let ended = child_process::run(&mut command, "");
            assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{line} {args:?}");
            ended.text()
        };
        assert_eq!(asked(&[]), format!("GET /  {set} \n"), "{line}");
        assert_eq!(asked(&["/path?q"]), format!("GET /path q {set} \n"), "{line}");
        assert_eq!(
            asked(&["/p", "-X", "PUT", "-d", "data"]),
            format!("PUT /p  {set} data\n"),
            "{line}"
        );
        let response =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nGET /p  {set} \n");
        assert_eq!(asked(&["/p", "-i"]), response, "{line}");
        assert_eq!(asked(&["/p", "--env", "SET=words"]), "GET /p  words \n", "{line}");
    }
}

#[test]
fn c45_a_script_that_is_started_by_a_relative_path_prints_its_response() {
    let shell = Shell::new();
    shell.dir.script("site/hello.wsgi", "#!WSGATE --env SET=line", TELLS);
    for (program, directory) in
        [("./hello.wsgi", "site"), ("site/hello.wsgi", "."), ("../site/hello.wsgi", "bin")]
    {
        let mut command = shell.command(program.as_ref(), &["/p"]);
        let ended = child_process::run(command.current_dir(shell.dir.path(directory)), "");
        assert_eq!(
            (ended.text().as_str(), ended.code()),
            ("GET /p  line \n", Some(0)),
            "{program}: {}",
            ended.stderr
        );
    }
    // Found by the shell on its PATH.
    let path = format!("{}:/usr/bin:/bin", shell.path("").display());
    let mut command = shell.command("sh".as_ref(), &["-c", "hello.wsgi /p"]);
    let ended = child_process::run(command.env("PATH", path).current_dir("/"), "");
    assert_eq!(ended.text(), "GET /p  line \n", "{}", ended.stderr);
}

#[test]
fn c45_the_program_with_a_script_is_the_same_as_call() {
    let shell = Shell::new();
    let script = shell.dir.script("site/hello.wsgi", "#!WSGATE", TELLS);
    for args in [
        &["hello.wsgi", "/p"][..],
        &["--env", "SET=x", "hello.wsgi", "/p"],
        &[script.to_str().unwrap(), "/p", "-i"],
    ] {
        let by_name = shell.run(args);
        let mut command = shell.command(&shell.dir.wsgate(), args);
        let alone = child_process::run(&mut command, "");
        assert_eq!((alone.text(), alone.code()), (by_name.text(), by_name.code()), "{args:?}");
        assert!(alone.text().contains("GET /p"), "{}", alone.text());
    }
}

#[test]
fn c45_a_wrong_first_line_is_an_error_with_its_log_code() {
    let shell = Shell::new();
    let script = shell.dir.script("site/hello.wsgi", "#!WSGATE --bogus", TELLS);
    let ended = child_process::run(&mut shell.command(&script, &["/p"]), "");
    assert_eq!(ended.code(), Some(78), "{ended:?}");
    assert!(ended.stderr.contains("W0103") && ended.stderr.contains("--bogus"), "{}", ended.stderr);
}

#[test]
fn c45_the_cgi_command_in_a_shell_exits_with_an_error_page_and_does_not_hang() {
    let shell = Shell::new();
    let mut command = shell.command(&shell.dir.wsgate(), &["cgi", "echo.wsgi"]);
    let ended = child_process::run(&mut command, "not a body");
    let page = crate::support::assertions::complete_response(&ended.stdout);
    assert_eq!(page.status, 400, "a request without a method");
}

/// `args` of the gateway on a terminal at which nobody types.
fn on_a_terminal(shell: &Shell, program: &str, args: &str) -> Option<(String, Option<i32>)> {
    // Of util-linux; not every machine has it.
    if Command::new("script").arg("--version").output().is_err() {
        return None;
    }
    let mut command =
        shell.command("script".as_ref(), &["-qec", &format!("{program} {args}"), "/dev/null"]);
    let mut running = RunningProcess::start(piped(&mut command));
    running.await_end_of_output();
    let ended = running.end();
    Some((ended.text(), ended.code()))
}

#[test]
fn c45_on_a_terminal_no_command_waits_for_input() {
    let shell = Shell::new();
    let script = shell.dir.script("site/hello.wsgi", "#!WSGATE", TELLS);
    let (wsgate, script) = (shell.dir.wsgate().display().to_string(), script.display().to_string());
    for (program, args, said) in [
        (&script, "", "GET /"),
        (&script, "/p -X POST", "POST /p"),
        (&wsgate, "hello.wsgi /p", "GET /p"),
        (&wsgate, "call hello.wsgi /p", "GET /p"),
        (&wsgate, "check hello.wsgi", "callable"),
        (&wsgate, "cgi hello.wsgi", "Status: 400"),
        (&wsgate, "", "Usage: wsgate"),
    ] {
        if let Some((text, _)) = on_a_terminal(&shell, program, args) {
            assert!(text.contains(said), "{program} {args}: {text}");
        }
    }
}

#[test]
fn c45_on_a_terminal_the_variables_of_a_request_make_it_one() {
    // A person who tries what the web server does: valid, and no wait for a body that nobody types.
    let shell = Shell::new();
    let script = shell.dir.script("site/hello.wsgi", "#!WSGATE", TELLS);
    let program = format!("env GATEWAY_INTERFACE=CGI/1.1 REQUEST_METHOD=GET {}", script.display());
    if let Some((text, code)) = on_a_terminal(&shell, &program, "") {
        assert!(text.starts_with("Status: 200 OK\r") && text.contains("GET /"), "{text}");
        assert_eq!(code, Some(0));
    }
}
