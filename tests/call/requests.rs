//! The request that the arguments of the command line describe.

use serde_json::json;

use crate::call::Shell;

#[test]
fn without_options_it_is_a_plain_get_of_the_root() {
    let shell = Shell::new();
    let seen = shell.seen(&[]);
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/"),
        ("QUERY_STRING", ""),
        ("REQUEST_URI", "/"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("HTTP_HOST", "localhost"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    for name in [
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTPS",
        "REMOTE_USER",
        "AUTH_TYPE",
        "HTTP_AUTHORIZATION",
    ] {
        assert!(seen[name].is_null(), "{name}: {seen}");
    }
    assert_eq!(seen["SCRIPT_FILENAME"].as_str().unwrap().rsplit('/').next(), Some("environ.wsgi"));
    assert_eq!(seen["cwd"], shell.path("").to_str().unwrap().trim_end_matches('/'));
}

#[test]
fn a_target_is_a_path_and_a_query() {
    let shell = Shell::new();
    for (target, path_info, query, uri) in [
        ("/a/b", "/a/b", "", "/a/b"),
        ("/a?b=c&d", "/a", "b=c&d", "/a?b=c&d"),
        ("/caf%C3%A9%2F%20?q=%26", "/caf\u{c3}\u{a9}/ ", "q=%26", "/caf%C3%A9%2F%20?q=%26"),
        ("/a#fragment", "/a", "", "/a"),
        ("?q=1", "/", "q=1", "/?q=1"),
        ("/a??b?", "/a", "?b?", "/a??b?"),
        ("//a//b", "//a//b", "", "//a//b"),
    ] {
        let seen = shell.seen(&[target]);
        let found =
            [&seen["PATH_INFO"], &seen["QUERY_STRING"], &seen["REQUEST_URI"], &seen["SCRIPT_NAME"]];
        assert_eq!(found, [path_info, query, uri, ""], "{target}");
    }
}

#[test]
fn a_target_may_be_a_whole_url() {
    let shell = Shell::new();
    for (target, scheme, host, name, port, path_info) in [
        ("http://example.org/a", "http", "example.org", "example.org", "80", "/a"),
        ("https://example.org/a", "https", "example.org", "example.org", "443", "/a"),
        ("https://example.org:8443", "https", "example.org:8443", "example.org", "8443", "/"),
        ("http://[::1]:8080/a", "http", "[::1]:8080", "[::1]", "8080", "/a"),
        ("http://[::1]/a", "http", "[::1]", "[::1]", "80", "/a"),
        ("http://example.org?q=1", "http", "example.org", "example.org", "80", "/"),
    ] {
        let seen = shell.seen(&[target]);
        let found = ["wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "PATH_INFO"]
            .map(|name| &seen[name]);
        assert_eq!(found, [scheme, host, name, port, path_info], "{target}");
    }
}

#[test]
fn request_names_the_method() {
    let shell = Shell::new();
    for args in [["-X", "PROPFIND"], ["--request", "PROPFIND"]] {
        assert_eq!(shell.seen(&args)["REQUEST_METHOD"], "PROPFIND");
    }
    assert_eq!(shell.seen(&["-d", "x"])["REQUEST_METHOD"], "POST");
    assert_eq!(shell.seen(&["-d", "x", "-X", "PUT"])["REQUEST_METHOD"], "PUT");
}

#[test]
fn header_adds_a_field_and_overrides_a_default() {
    let shell = Shell::new();
    let seen = shell.seen(&[
        "-H",
        "X-Some-Thing: a: b ",
        "--header",
        "Accept:text/html",
        "-H",
        "X-Empty;",
        "-H",
        "Host: h:81",
    ]);
    let found =
        ["HTTP_X_SOME_THING", "HTTP_ACCEPT", "HTTP_X_EMPTY", "HTTP_HOST"].map(|name| &seen[name]);
    assert_eq!(found, ["a: b", "text/html", "", "h:81"]);
}

#[test]
fn a_repeated_header_is_joined_as_web_servers_join_it() {
    let shell = Shell::new();
    let seen =
        shell.seen(&["-H", "X-A: 1", "-H", "x-a: 2", "-H", "Cookie: a=1", "-H", "Cookie: b=2"]);
    assert_eq!((&seen["HTTP_X_A"], &seen["HTTP_COOKIE"]), (&json!("1, 2"), &json!("a=1; b=2")));
}

#[test]
fn a_header_cannot_bring_a_proxy_into_the_application() {
    assert!(Shell::new().seen(&["-H", "Proxy: http://evil/"])["HTTP_PROXY"].is_null());
}

#[test]
fn content_type_and_length_may_be_set_by_header() {
    let shell = Shell::new();
    let seen = shell.seen(&["-d", "{}", "-H", "Content-Type: application/json"]);
    assert_eq!(
        (&seen["CONTENT_TYPE"], &seen["CONTENT_LENGTH"]),
        (&json!("application/json"), &json!("2"))
    );
    assert!(seen["HTTP_CONTENT_TYPE"].is_null());
    assert_eq!(shell.seen(&["-d", "a=b"])["CONTENT_TYPE"], "application/x-www-form-urlencoded");
}

#[test]
fn https_host_and_script_name_set_the_url_of_the_application() {
    let shell = Shell::new();
    let seen =
        shell.seen(&["--https", "--host", "example.org:8443", "--script-name", "/shop", "/a?b"]);
    for (name, value) in [
        ("wsgi.url_scheme", "https"),
        ("HTTPS", "on"),
        ("HTTP_HOST", "example.org:8443"),
        ("SERVER_NAME", "example.org"),
        ("SERVER_PORT", "8443"),
        ("SCRIPT_NAME", "/shop"),
        ("PATH_INFO", "/a"),
        ("REQUEST_URI", "/shop/a?b"),
    ] {
        assert_eq!(seen[name], value, "{name}");
    }
    assert_eq!(shell.seen(&["--https"])["SERVER_PORT"], "443");
}

#[test]
fn auth_and_remote_user_set_the_user() {
    let shell = Shell::new();
    let seen = shell.seen(&["--user", "ada:love:lace"]);
    assert_eq!(
        (&seen["HTTP_AUTHORIZATION"], &seen["REMOTE_USER"]),
        (&json!("Basic YWRhOmxvdmU6bGFjZQ=="), &json!(null))
    );
    let seen = shell.seen(&["--remote-user", "ada"]);
    assert_eq!((&seen["REMOTE_USER"], &seen["AUTH_TYPE"]), (&json!("ada"), &json!("Basic")));
}

#[test]
fn env_path_and_chdir_reach_the_application() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("lib")).unwrap();
    let seen = shell.seen(&["--env", "SET=a=b", "--path", "lib", "--path", "/usr"]);
    assert_eq!(seen["SET"], "a=b");
    assert_eq!(seen["path"][1], shell.path("lib").to_str().unwrap());
    assert_eq!(seen["path"][2], "/usr");
    assert_eq!(shell.seen(&["--chdir", "/"])["cwd"], "/");
}

#[test]
fn variables_of_the_shell_reach_the_application_and_those_of_the_request_win() {
    let shell = Shell::new();
    let mut command = shell.call(&["environ.wsgi", "/a"]);
    command
        .env("SET", "by the shell")
        .env("REQUEST_METHOD", "DELETE")
        .env("PATH_INFO", "/evil")
        .env("QUERY_STRING", "e");
    let seen: serde_json::Value =
        serde_json::from_slice(&crate::support::child_process::run(&mut command, "").stdout)
            .unwrap();
    let found = ["SET", "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"].map(|name| &seen[name]);
    assert_eq!(found, ["by the shell", "GET", "/a", ""]);
}

#[test]
fn options_may_be_given_anywhere() {
    let shell = Shell::new();
    let expected = shell.seen(&["/a?b", "-X", "PUT", "--https"]);
    for args in [
        &["-X", "PUT", "environ.wsgi", "/a?b", "--https"][..],
        &["--https", "-XPUT", "environ.wsgi", "/a?b"],
    ] {
        let ended = shell.run(args);
        let mut seen: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        seen["wsgate.request_id"] = expected["wsgate.request_id"].clone();
        assert_eq!(seen, expected);
    }
}

#[test]
fn the_options_of_the_script_line_hold_and_the_command_line_overrides_them() {
    let shell = Shell::new();
    let code = std::fs::read_to_string(shell.path("environ.wsgi")).unwrap();
    std::fs::write(
        shell.path("lined.wsgi"),
        format!("#!/usr/local/bin/wsgate --env SET=line --chdir ..\n{code}"),
    )
    .unwrap();
    for (args, set, cwd) in [
        (&[][..], "line", shell.dir.path("")),
        (&["--env", "SET=words"], "words", shell.dir.path("")),
        (&["--chdir", "/"], "line", "/".into()),
    ] {
        let ended = shell.run(&[&["lined.wsgi"], args].concat());
        let seen: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(seen["SET"], set, "{args:?}");
        let found = std::fs::canonicalize(seen["cwd"].as_str().unwrap()).unwrap();
        assert_eq!(found, std::fs::canonicalize(cwd).unwrap(), "{args:?}");
    }
}

#[test]
fn a_script_name_on_the_script_line_is_that_of_the_request() {
    let shell = Shell::new();
    let code = std::fs::read_to_string(shell.path("environ.wsgi")).unwrap();
    std::fs::write(
        shell.path("mounted.wsgi"),
        format!("#!/usr/local/bin/wsgate --script-name /app\n{code}"),
    )
    .unwrap();
    for (args, script_name) in [
        (&["mounted.wsgi", "/p"][..], "/app"),
        (&["mounted.wsgi", "/p", "--script-name", "/b"], "/b"),
    ] {
        let seen: serde_json::Value = serde_json::from_slice(&shell.run(args).stdout).unwrap();
        assert_eq!(
            (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
            (&script_name.into(), &"/p".into()),
            "{args:?}"
        );
    }
}
