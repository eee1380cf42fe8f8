//! `--static` and `--open`.

use std::{fs, os::unix::fs::symlink};

use crate::{
    serve::{Serve, command, directory_with},
    support::{
        child_process::{RunningProcess, run},
        web_servers::{HttpClient, eventually},
    },
};

/// Responds with the path.
const PATHS: &str = "
    def app(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'app ' + environ['PATH_INFO'].encode('latin-1')]
    ";

#[test]
fn files_have_types_and_are_sent_again_only_after_a_change() {
    let directory = directory_with(PATHS);
    fs::create_dir_all(directory.path().join("assets/deep")).unwrap();
    let large = vec![b'x'; 1 << 20];
    for (name, content) in [("a b.css", &b"a {}"[..]), ("deep/x.js", b"1"), ("large.bin", &large)] {
        fs::write(directory.path().join("assets").join(name), content).unwrap();
    }
    let serve = Serve::start_in(directory, &["--static", "/static=assets"]);
    let get = |path: &str| HttpClient::get(serve.url(path));
    let style = get("/static/a%20b.css").run().expect(200);
    assert_eq!(
        (style.text().as_str(), style.header("content-type")),
        ("a {}", "text/css; charset=utf-8")
    );
    let script = get("/static/deep/x.js").run().expect(200);
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(get("/static/large.bin").run().expect(200).body, large);
    let head = HttpClient::head(serve.url("/static/large.bin")).run().expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), ("1048576", 0));
    for (name, value) in [
        ("If-None-Match", style.header("etag")),
        ("If-Modified-Since", style.header("last-modified")),
    ] {
        let same = get("/static/a%20b.css").header(name, value).run().expect(304);
        assert_eq!(same.body.len(), 0, "{name}");
    }
    get("/static/a%20b.css").header("If-None-Match", "\"other\"").run().expect(200);
    let post = HttpClient::post(serve.url("/static/a%20b.css"), "x").run().expect(405);
    assert_eq!(post.header("allow"), "GET, HEAD");
    // Not below the path.
    for path in ["/staticx/a", "/static", "/"] {
        assert_eq!(get(path).run().expect(200).text(), format!("app {path}"));
    }
    serve.stop();
}

#[test]
fn nothing_outside_of_the_directory_is_sent() {
    let directory = directory_with(PATHS);
    let root = directory.path().to_owned();
    fs::create_dir(root.join("assets")).unwrap();
    fs::write(root.join("secret"), "secret").unwrap();
    fs::write(root.join("assets/.env"), "secret").unwrap();
    fs::create_dir(root.join("assets/.git")).unwrap();
    fs::write(root.join("assets/.git/config"), "secret").unwrap();
    symlink(root.join("secret"), root.join("assets/link")).unwrap();
    symlink(&root, root.join("assets/up")).unwrap();
    let serve = Serve::start_in(directory, &["--static", "/s=assets"]);
    for path in [
        "/s/../secret",
        "/s/%2e%2e/secret",
        "/s/..%2fsecret",
        "/s/link",
        "/s/up/secret",
        "/s/.env",
        "/s/.git/config",
        "/s/",
        "/s//etc/passwd",
        "/s/%2fetc/passwd",
        "/s/a%00",
        "/s/missing",
    ] {
        let response = HttpClient::get(serve.url(path)).run();
        assert_eq!(response.status, 404, "{path}");
        assert!(!response.text().contains("secret"), "{path}");
    }
    serve.stop();
}

#[test]
fn a_wrong_directory_is_refused() {
    let directory = directory_with(PATHS);
    for (value, exit, said) in [
        ("/s=missing", 78, "is no directory"),
        ("assets", 2, "such as `/static=assets`"),
        ("s=assets", 2, "such as `/static=assets`"),
    ] {
        let mut command = command(&directory, &["--static", value]);
        let ended = run(command.stdin(std::process::Stdio::piped()), "");
        assert_eq!(ended.code(), Some(exit), "{value}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{value}: {}", ended.stderr);
    }
}

#[test]
fn the_browser_is_started_with_the_address_or_a_message_says_why_not() {
    let directory = directory_with(PATHS);
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let mut missing = command(&directory, &["--port", "0", "--open"]);
    let mut running = RunningProcess::start(missing.env("PATH", &bin));
    running.await_log("W0773");
    drop(running);
    let script =
        format!("#!/bin/sh\necho \"$1\" > '{0}/draft'; mv '{0}/draft' '{0}/url'\n", bin.display());
    let program = bin.join("xdg-open");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut opening = command(&directory, &["--port", "0", "--open"]);
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut running = RunningProcess::start(opening.env("PATH", path));
    running.await_log("W0770");
    eventually("the browser is started", || bin.join("url").exists());
    let url = fs::read_to_string(bin.join("url")).unwrap();
    assert!(running.log().contains(url.trim()), "{url}");
    assert_eq!(HttpClient::get(url.trim()).run().expect(200).text(), "app /");
}
