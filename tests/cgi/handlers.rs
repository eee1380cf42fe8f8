//! WSGI files that the gateway is the handler of (Apache's `Action`): SCRIPT_FILENAME is the
//! gateway, PATH_TRANSLATED the file.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, process::Command};

use serde_json::Value;

use crate::{
    cgi::{ENVIRON, latin_1},
    support::{
        assertions::{only_entry, whole},
        child_process::{
            Ended, {self},
        },
        install_dir::Place,
    },
};

/// A request for `path_info` below the document root `htdocs`, as Apache redirects it to the
/// handler.
fn redirected(place: &Place, path_info: &[u8]) -> Command {
    let translated = [place.path("htdocs").as_os_str().as_encoded_bytes(), path_info].concat();
    let mut command = Command::new(place.wsgate());
    place.describe(&mut command, &place.wsgate());
    command
        .env("SCRIPT_NAME", "/wsgate-handler")
        .env("PATH_INFO", OsStr::from_bytes(path_info))
        .env("PATH_TRANSLATED", OsStr::from_bytes(&translated))
        .env("REQUEST_URI", encoded(path_info))
        .env("REDIRECT_URL", OsStr::from_bytes(path_info))
        .env("REDIRECT_STATUS", "200")
        .env("REDIRECT_HANDLER", "wsgate")
        .current_dir(place.path("bin"));
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
fn shown(ended: &Ended) -> Value {
    let head = whole(&ended.stdout);
    assert_eq!((head.status, ended.stderr.as_str()), (200, ""), "{}", ended.text());
    serde_json::from_slice(&head.body).unwrap()
}

#[test]
fn c14_under_a_handler_the_mount_is_the_file_and_the_path_is_the_rest() {
    let place = Place::new();
    let file = place.file("htdocs/apps/app.wsgi", ENVIRON);
    for (path_info, rest) in [
        (&b"/apps/app.wsgi"[..], &b""[..]),
        (b"/apps/app.wsgi/", b"/"),
        (b"/apps/app.wsgi/a/b", b"/a/b"),
        (b"/apps/app.wsgi/caf\xc3\xa9/\xe9/a b+c%", b"/caf\xc3\xa9/\xe9/a b+c%"),
        (b"/apps/app.wsgi/apps/app.wsgi", b"/apps/app.wsgi"),
    ] {
        let shown = shown(&child_process::run(&mut redirected(&place, path_info), ""));
        assert_eq!(shown["SCRIPT_NAME"], "/apps/app.wsgi", "{shown}");
        assert_eq!(shown["PATH_INFO"], latin_1(rest), "{shown}");
        assert_eq!(shown["SCRIPT_FILENAME"], file.to_str().unwrap());
        // It described where the script itself stands, not where the rest of the path leads.
        assert_eq!(shown["PATH_TRANSLATED"], "");
    }
}

#[test]
fn c14_under_a_handler_a_file_may_be_mapped_to_another_url() {
    // An Alias: URL and path have only their ends in common.
    let place = Place::new();
    let file = place.file("srv/other/app.wsgi", ENVIRON);
    let mut command = redirected(&place, b"/shop/app.wsgi/a");
    command.env("PATH_TRANSLATED", file.join("a"));
    let shown = shown(&child_process::run(&mut command, ""));
    assert_eq!(
        (&shown["SCRIPT_NAME"], &shown["PATH_INFO"]),
        (&"/shop/app.wsgi".into(), &"/a".into())
    );
}

#[test]
fn c38_under_a_handler_the_working_directory_is_the_files() {
    let place = Place::new();
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [os.getcwd().encode()]
        ";
    let file = place.file("htdocs/app.wsgi", app);
    let ended = child_process::run(&mut redirected(&place, b"/app.wsgi"), "");
    assert_eq!(whole(&ended.stdout).body, file.parent().unwrap().as_os_str().as_encoded_bytes());
}

#[test]
fn c25_under_a_handler_options_come_from_the_file_and_never_from_arguments() {
    let place = Place::new();
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [os.environ.get('SET', 'not set').encode()]
        ";
    place.script("htdocs/own.wsgi", "#!WSGATE --env SET=own", app);
    place.file("htdocs/plain.wsgi", app);
    for (path_info, expected) in [(&b"/own.wsgi"[..], "own"), (b"/plain.wsgi", "not set")] {
        for words in [
            &["--env", "SET=evil"][..],
            &["cgi", "--python", "/evil", "/evil"],
            &["--version"],
            &[],
        ] {
            let mut command = redirected(&place, path_info);
            let ended =
                child_process::run(command.args(words).env("QUERY_STRING", words.join("+")), "");
            assert_eq!(
                String::from_utf8(whole(&ended.stdout).body).unwrap(),
                expected,
                "{words:?}"
            );
        }
    }
}

#[test]
fn c25_a_handler_that_is_requested_by_its_own_address_serves_nothing() {
    let place = Place::new();
    place.file("htdocs/app.wsgi", ENVIRON);
    let withouts: [&[&str]; 4] = [
        &["REDIRECT_STATUS", "REDIRECT_HANDLER", "REDIRECT_URL"],
        &["REDIRECT_STATUS"],
        // What an ErrorDocument of the front leads to is not the handler's.
        &["REDIRECT_HANDLER"],
        &["PATH_TRANSLATED"],
    ];
    for names in withouts {
        let mut command = redirected(&place, b"/app.wsgi");
        for name in names {
            command.env_remove(name);
        }
        let ended = child_process::run(&mut command, "");
        assert_eq!(
            (whole(&ended.stdout).status, ended.code()),
            (403, Some(0)),
            "without {names:?}"
        );
        only_entry(&ended.stderr, "W0104");
    }
    let ended =
        child_process::run(redirected(&place, b"/app.wsgi").env("REDIRECT_STATUS", "404"), "");
    assert_eq!(whole(&ended.stdout).status, 403);
}

#[test]
fn c43_under_a_handler_a_missing_file_is_a_valid_response() {
    let place = Place::new();
    std::fs::create_dir(place.path("htdocs")).unwrap();
    let ended = child_process::run(&mut redirected(&place, b"/absent.wsgi/x"), "");
    assert_eq!((whole(&ended.stdout).status, ended.code()), (500, Some(0)));
    assert!(only_entry(&ended.stderr, "W0102").contains("absent.wsgi"), "{}", ended.stderr);
}
