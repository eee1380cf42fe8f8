//! `--cgi`: programs of a directory, in several languages.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use tempfile::TempDir;

use crate::{
    serve::{Serve, command, directory_with},
    support::{child_process::run, probe::dedent, web_servers::HttpClient},
};

/// A directory with a program.
fn programs(programs: &[(&str, &str)]) -> TempDir {
    let directory = directory_with("");
    fs::create_dir_all(directory.path().join("programs/deep")).unwrap();
    for (name, code) in programs {
        let path = directory.path().join("programs").join(name);
        fs::write(&path, dedent(code).trim_start()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

const ENVIRON: &str = "
    #!/usr/bin/python3
    import json, os, sys
    sys.stdout.write('Content-Type: application/json\\n\\n')
    body = sys.stdin.buffer.read()
    json.dump({**os.environ, 'cwd': os.getcwd(), 'length': len(body)}, sys.stdout)
    ";

#[test]
fn programs_of_any_language_get_their_request_and_respond() {
    let directory = programs(&[
        ("environ", ENVIRON),
        (
            "deep/shell",
            "#!/bin/sh\nprintf 'Status: 201 Made\\nX-A: b\\n\\n'; printf %s \"$PATH_INFO\"; cat\n",
        ),
        ("perl", "#!/usr/bin/perl\nprint \"Location: http://example.org/\\r\\n\\r\\n\";\n"),
    ]);
    let root = directory.path().canonicalize().unwrap();
    let serve = Serve::start_in(directory, &["--cgi", "programs"]);
    let client = HttpClient::post(serve.url("/environ/a%20b?c=d"), "x=y");
    let found = client.header("Proxy", "evil").header("X-Own", "1").run().expect(200).json();
    let program = root.join("programs/environ").display().to_string();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/environ"),
        ("PATH_INFO", "/a b"),
        ("QUERY_STRING", "c=d"),
        ("SCRIPT_FILENAME", &program),
        ("CONTENT_LENGTH", "3"),
        ("HTTP_X_OWN", "1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("cwd", &root.join("programs").display().to_string()),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    assert_eq!(found["length"], 3);
    assert!(found["HTTP_PROXY"].is_null());
    let shell = HttpClient::post(serve.url("/deep/shell/more"), "body").run().expect(201);
    assert_eq!((shell.text().as_str(), shell.header("x-a")), ("/morebody", "b"));
    assert_eq!(serve.get("/perl").expect(302).header("location"), "http://example.org/");
    let file = serve.path("upload");
    File::create(&file).unwrap().set_len(20 << 20).unwrap();
    let upload = HttpClient::post_file(serve.url("/environ"), &file).run().expect(200).json();
    assert_eq!(upload["length"], 20 << 20);
    // A program could not know where the body ends.
    let chunked = HttpClient::post(serve.url("/environ"), "x=y");
    chunked.header("Transfer-Encoding", "chunked").run().expect(411);
    serve.stop();
}

#[test]
fn programs_that_fail_are_named_on_the_terminal_and_others_go_on() {
    let directory = programs(&[
        ("silent", "#!/bin/sh\n"),
        ("garbage", "#!/bin/sh\necho hello\n"),
        ("exits", "#!/bin/sh\necho hello\nexit 3\n"),
        ("killed", "#!/bin/sh\nkill -KILL $$\n"),
        ("lost", "#!/nonexistent/python\n"),
        ("unread", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nok'\n"),
    ]);
    fs::write(directory.path().join("programs/plain"), "#!/bin/sh\n").unwrap();
    let mut serve = Serve::start_in(directory, &["--cgi", "programs"]);
    for (path, status) in [
        ("/silent", 502),
        ("/garbage", 502),
        ("/exits", 502),
        ("/killed", 502),
        ("/lost", 500),
        ("/plain", 403),
        ("/missing", 404),
        ("/", 404),
        ("/deep", 404),
        ("/deep/../plain", 404),
        ("/%2e%2e/app.py", 404),
    ] {
        assert_eq!(serve.get(path).status, status, "{path}");
    }
    serve.running.await_log_times("W0774", 5);
    serve
        .running
        .await_log("it prints headers with a line without colon, and ended with exit status: 3");
    serve.running.await_log("it has not ended its headers, and ended with signal: 9 (SIGKILL)");
    // The program does not read the request body.
    let file = serve.path("upload");
    File::create(&file).unwrap().set_len(5 << 20).unwrap();
    for _ in 0..5 {
        let response = HttpClient::put_file(serve.url("/unread"), &file).run().expect(200);
        assert_eq!(response.text(), "ok");
    }
    serve.stop();
}

#[test]
fn options_about_an_application_are_refused_with_programs() {
    let directory = programs(&[]);
    for args in [&["--cgi", "programs", "--threads", "2"][..], &["--cgi", "programs", "--no-live"]]
    {
        let ended = run(command(&directory, args).stdin(Stdio::piped()), "");
        assert_eq!(ended.code(), Some(2), "{args:?}: {}", ended.stderr);
    }
    let mut missing = crate::serve::bare_command(&directory, &["--cgi", "missing"]);
    let missing = run(missing.stdin(Stdio::piped()), "");
    assert_eq!(missing.code(), Some(78), "{}", missing.stderr);
    assert!(missing.stderr.contains("of --cgi is no directory"), "{}", missing.stderr);
}
