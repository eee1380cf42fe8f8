//! WSGI files that the gateway is the handler of (Apache's `Action`): SCRIPT_FILENAME is the
//! gateway, PATH_TRANSLATED the file.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, process::Command};

use serde_json::Value;

use crate::{
    cgi::{ENVIRON, latin_1},
    support::{
        assertions::{complete_response, only_log_message},
        child_process::{
            ExitedProcess, {self},
        },
        install_dir::InstallDir,
    },
};

/// A request for `path_info` below the document root `htdocs`, as Apache redirects it to the
/// handler.
fn redirected(dir: &InstallDir, path_info: &[u8]) -> Command {
    let translated = [dir.path("htdocs").as_os_str().as_encoded_bytes(), path_info].concat();
    let mut command = Command::new(dir.wsgate());
    dir.describe(&mut command, &dir.wsgate());
    command
        .env("SCRIPT_NAME", "/wsgate-handler")
        .env("PATH_INFO", OsStr::from_bytes(path_info))
        .env("PATH_TRANSLATED", OsStr::from_bytes(&translated))
        .env("REQUEST_URI", encoded(path_info))
        .env("REDIRECT_URL", OsStr::from_bytes(path_info))
        .env("REDIRECT_STATUS", "200")
        .env("REDIRECT_HANDLER", "wsgate")
        .current_dir(dir.path("bin"));
    command
}

fn encoded(path: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    path.iter()
        .map(
            |&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") },
        )
        .collect()
}

#[track_caller]
fn shown(ended: &ExitedProcess) -> Value {
    let response = complete_response(&ended.stdout);
    assert_eq!((response.status, ended.stderr.as_str()), (200, ""), "{}", ended.text());
    serde_json::from_slice(&response.body).unwrap()
}

#[test]
fn c14_under_a_handler_the_mount_is_the_file_and_the_path_is_the_rest() {
    let dir = InstallDir::new();
    let file = dir.file("htdocs/apps/app.wsgi", ENVIRON);
    for (path_info, rest) in [
        (&b"/apps/app.wsgi"[..], &b""[..]),
        (b"/apps/app.wsgi/", b"/"),
        (b"/apps/app.wsgi/a/b", b"/a/b"),
        (b"/apps/app.wsgi/caf\xc3\xa9/\xe9/a b+c%", b"/caf\xc3\xa9/\xe9/a b+c%"),
        (b"/apps/app.wsgi/apps/app.wsgi", b"/apps/app.wsgi"),
    ] {
        let shown = shown(&child_process::run(&mut redirected(&dir, path_info), ""));
        assert_eq!(shown["SCRIPT_NAME"], "/apps/app.wsgi", "{shown}");
        assert_eq!(shown["PATH_INFO"], latin_1(rest), "{shown}");
        assert_eq!(shown["SCRIPT_FILENAME"], file.to_str().unwrap());
        // Apache sets the path of the script, not of the rest of the URL.
        assert_eq!(shown["PATH_TRANSLATED"], "");
    }
}

#[test]
fn c14_under_a_handler_a_file_may_be_mapped_to_another_url() {
    // An Alias: URL and path have only their ends in common.
    let dir = InstallDir::new();
    let file = dir.file("srv/other/app.wsgi", ENVIRON);
    let mut command = redirected(&dir, b"/shop/app.wsgi/a");
    command.env("PATH_TRANSLATED", file.join("a"));
    let shown = shown(&child_process::run(&mut command, ""));
    assert_eq!(
        (&shown["SCRIPT_NAME"], &shown["PATH_INFO"]),
        (&"/shop/app.wsgi".into(), &"/a".into())
    );
}

#[test]
fn c38_under_a_handler_the_working_directory_is_the_files() {
    let dir = InstallDir::new();
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [os.getcwd().encode()]
        ";
    let file = dir.file("htdocs/app.wsgi", app);
    let ended = child_process::run(&mut redirected(&dir, b"/app.wsgi"), "");
    assert_eq!(
        complete_response(&ended.stdout).body,
        file.parent().unwrap().as_os_str().as_encoded_bytes()
    );
}

#[test]
fn c25_under_a_handler_options_come_from_the_file_and_never_from_arguments() {
    let dir = InstallDir::new();
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [os.environ.get('SET', 'not set').encode()]
        ";
    dir.script("htdocs/own.wsgi", "#!WSGATE --env SET=own", app);
    dir.file("htdocs/plain.wsgi", app);
    for (path_info, expected) in [(&b"/own.wsgi"[..], "own"), (b"/plain.wsgi", "not set")] {
        for args in [
            &["--env", "SET=evil"][..],
            &["cgi", "--python", "/evil", "/evil"],
            &["--version"],
            &[],
        ] {
            let mut command = redirected(&dir, path_info);
            let ended =
                child_process::run(command.args(args).env("QUERY_STRING", args.join("+")), "");
            assert_eq!(
                String::from_utf8(complete_response(&ended.stdout).body).unwrap(),
                expected,
                "{args:?}"
            );
        }
    }
}

#[test]
fn c25_a_handler_that_is_requested_by_its_own_address_serves_nothing() {
    let dir = InstallDir::new();
    dir.file("htdocs/app.wsgi", ENVIRON);
    let withouts: [&[&str]; 4] = [
        &["REDIRECT_STATUS", "REDIRECT_HANDLER", "REDIRECT_URL"],
        &["REDIRECT_STATUS"],
        // The target of an ErrorDocument does not belong to the handler.
        &["REDIRECT_HANDLER"],
        &["PATH_TRANSLATED"],
    ];
    for names in withouts {
        let mut command = redirected(&dir, b"/app.wsgi");
        for name in names {
            command.env_remove(name);
        }
        let ended = child_process::run(&mut command, "");
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (403, Some(0)),
            "without {names:?}"
        );
        only_log_message(&ended.stderr, "W0104");
    }
    let ended =
        child_process::run(redirected(&dir, b"/app.wsgi").env("REDIRECT_STATUS", "404"), "");
    assert_eq!(complete_response(&ended.stdout).status, 403);
}

#[test]
fn c43_under_a_handler_a_missing_file_is_a_valid_response() {
    let dir = InstallDir::new();
    std::fs::create_dir(dir.path("htdocs")).unwrap();
    let ended = child_process::run(&mut redirected(&dir, b"/absent.wsgi/x"), "");
    assert_eq!((complete_response(&ended.stdout).status, ended.code()), (500, Some(0)));
    assert!(only_log_message(&ended.stderr, "W0102").contains("absent.wsgi"), "{}", ended.stderr);
}
