//! The access log: one line for each request, which no request can forge.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup},
        web_servers::eventually,
    },
};

/// A pool for the application in `code` with an access log `access.log` beside it.
pub(super) fn logged(code: &str, args: &[&str]) -> Pool {
    let setup = PoolSetup::new(code);
    let log = setup.path("access.log").display().to_string();
    setup.args(&["--access-log", &log]).args(args).start()
}

/// The lines of its access log, once there are so many.
#[track_caller]
pub(super) fn lines(pool: &Pool, count: usize) -> Vec<String> {
    let mut log = String::new();
    eventually(&format!("the access log has {count} lines"), || {
        log = fs::read_to_string(pool.setup().path("access.log")).unwrap();
        log.matches('\n').count() == count
    });
    assert!(log.ends_with('\n') && log.is_ascii(), "{log:?}");
    log.lines().map(str::to_owned).collect()
}

/// The quoted fields of a line in the combined format, and the fields around them.
pub(super) fn parts(line: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut quoted, mut plain, mut begin, mut escaped, mut within) =
        (Vec::new(), Vec::new(), 0, false, false);
    for (position, byte) in line.bytes().enumerate() {
        if escaped || byte == b'\\' {
            escaped = !escaped;
        } else if byte == b'"' {
            if within { &mut quoted } else { &mut plain }.push(&line[begin..position]);
            (begin, within) = (position + 1, !within);
        }
    }
    assert!(!within, "{line}");
    plain.push(&line[begin..]);
    (quoted, plain.iter().flat_map(|piece| piece.split_whitespace()).collect())
}

#[test]
fn a_request_has_a_line_in_apaches_combined_format_followed_by_duration_id_and_end() {
    let pool = logged(ECHO, &[]);
    let ask = FastcgiRequest::post("/path?q=1", "12345")
        .param("PATH_INFO", "/path")
        .param("REMOTE_ADDR", "192.0.2.7")
        .param("REMOTE_USER", "me")
        .param("HTTP_REFERER", "http://example.org/")
        .param("HTTP_USER_AGENT", "agent 1.0")
        .param("UNIQUE_ID", "the_id_of_the_request");
    assert_eq!(pool.ask(&ask).text(), "/path|12345");
    pool.ask(
        &FastcgiRequest::get("/")
            .without("REMOTE_ADDR")
            .without("HTTP_USER_AGENT")
            .without("UNIQUE_ID"),
    );
    let lines = lines(&pool, 2);
    let (quoted, args) = parts(&lines[0]);
    assert_eq!(quoted, ["POST /path?q=1 HTTP/1.1", "http://example.org/", "agent 1.0"]);
    assert_eq!(
        (&args[..3], args[5], args[6]),
        (&["192.0.2.7", "-", "me"][..], "200", "11"),
        "{lines:?}"
    );
    let time: Vec<_> = args[3].strip_prefix('[').unwrap().split(['/', ':']).collect();
    assert_eq!(time.len(), 6, "{lines:?}");
    assert!("JanFebMarAprMayJunJulAugSepOctNovDec".contains(time[1]), "{lines:?}");
    assert!(
        args[4].len() == 6 && args[4].starts_with(['+', '-']) && args[4].ends_with(']'),
        "{lines:?}"
    );
    assert!(args[7].parse::<u64>().is_ok(), "{lines:?}");
    assert_eq!(args[8..], ["the_id_of_the_request", "-", "-"]);
    let (quoted, args) = parts(&lines[1]);
    assert_eq!((quoted, &args[..3]), (vec!["GET / HTTP/1.1", "-", "-"], &["-", "-", "-"][..]));
    let mode = fs::metadata(pool.setup().path("access.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    pool.stop();
}

#[test]
fn no_request_forges_a_line_or_leaves_its_quotes() {
    let evil = b"\xe2\x80\xa8a\" \\\" b\\ \nc\r\x1b[31m\xff\xc3\xa9\t\x7f d\" 200 \
        1 \"-\" \"x\n127.0.0.1 - - [";
    let names = [
        "REQUEST_URI",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "SERVER_PROTOCOL",
        "REMOTE_ADDR",
        "REMOTE_USER",
    ];
    let ask = names.iter().fold(FastcgiRequest::get("/"), |ask, name| ask.param(name, evil));
    let ask = ask.param("UNIQUE_ID", "an_id_of_ours\nand more");
    let shown = concat!(
        r#"\xe2\x80\xa8a\" \\\" b\\ \x0ac\x0d\x1b[31m"#,
        r#"\xff\xc3\xa9\x09\x7f d\" 200 1 \"-\" \"x\x0a127.0.0.1 - - ["#
    );
    let pool = logged(ECHO, &[]);
    pool.ask(&ask);
    let line = lines(&pool, 1).remove(0);
    let (quoted, args) = parts(&line);
    assert_eq!(quoted, [&format!("GET {shown} {shown}"), shown, shown], "{line}");
    let shown = shown.replace(' ', r"\x20");
    assert!(line.starts_with(&format!("{shown} - {shown} [")), "{line}");
    assert!(args.iter().all(|word| *word != "more"), "{line}");
    pool.stop();
    let pool = logged(ECHO, &["--access-format", "json"]);
    pool.ask(&ask.clone().param("REMOTE_USER", ""));
    eventually("there is a line", || {
        fs::read_to_string(pool.setup().path("access.log")).unwrap().ends_with('\n')
    });
    let log = fs::read_to_string(pool.setup().path("access.log")).unwrap();
    assert!(log.lines().count() == 1 && log.contains("\\u2028a"), "{log}");
    let line: Value = serde_json::from_str(&log).unwrap();
    let shown = String::from_utf8_lossy(evil).replace('\u{fffd}', "\\xff");
    assert_eq!(line["user_agent"], shown);
    assert_eq!(line["remote_user"], Value::Null);
    pool.stop();
}

#[test]
fn json_has_the_same_fields() {
    let pool = logged(ECHO, &["--access-format", "json"]);
    let ask = FastcgiRequest::post("/a%20b", "body")
        .param("REMOTE_USER", "me")
        .param("UNIQUE_ID", "the_id_of_the_request");
    pool.ask(&ask);
    // A web server that does not say what was asked for.
    pool.ask(
        &ask.without("REQUEST_URI")
            .param("SCRIPT_NAME", "/app")
            .param("PATH_INFO", "/\u{e9} x")
            .param("QUERY_STRING", "q=1"),
    );
    let lines: Vec<Value> =
        lines(&pool, 2).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = &lines[0];
    assert_eq!(
        (&first["method"], &first["target"], &first["status"]),
        (&"POST".into(), &"/a%20b".into(), &200.into())
    );
    assert_eq!(
        (&first["request_id"], &first["whole"]),
        (&"the_id_of_the_request".into(), &true.into())
    );
    assert!(first["microseconds"].is_u64() && first["bytes"].is_u64(), "{first}");
    let time = first["time"].as_str().unwrap();
    assert_eq!(
        (time.len(), &time[4..5], &time[10..11], &time[19..20]),
        (24, "-", "T", "."),
        "{time}"
    );
    assert_eq!(lines[1]["target"], "/app/%C3%A9%20x?q=1");
    pool.stop();
}

/// Values of `X-Request-Start` of a web server that received a request `seconds` ago, as nginx,
/// HAProxy and Apache write them.
fn start_values(seconds: f64) -> [String; 3] {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - seconds;
    [format!("t={start:.3}"), format!("{:.0}", start * 1e3), format!("t={:.0}", start * 1e6)]
}

#[test]
fn a_line_ends_with_the_time_that_its_request_has_waited_if_the_web_server_says_so() {
    let far = [-600.0, 7200.0].map(|seconds| start_values(seconds)[0].clone());
    let bad = ["", "t=", "t=-5", "soon", "t=1\" X", "\u{e9}", "nan", "0"].map(str::to_owned);
    let good = start_values(40.0);
    let values: Vec<_> = good.iter().chain(&bad).chain(&far).collect();
    for form in ["combined", "json"] {
        let pool = logged(ECHO, &["--access-format", form]);
        for value in &values {
            pool.ask(&FastcgiRequest::get("/").param("HTTP_X_REQUEST_START", value.as_str()));
        }
        let lines = lines(&pool, values.len());
        let waiting = lines.iter().map(|line| match form {
            "json" => serde_json::from_str::<Value>(line).unwrap()["waiting_microseconds"].clone(),
            _ => serde_json::from_str(parts(line).1[10]).unwrap_or_else(|_| {
                assert_eq!(parts(line).1[10..], ["-"], "{line}");
                Value::Null
            }),
        });
        for (waiting, value) in waiting.zip(&values) {
            let is_good = good.contains(value);
            assert_eq!(waiting.is_null(), !is_good, "{form}: {value}: {waiting}");
            let range = 39_900_000..100_000_000;
            assert!(!is_good || range.contains(&waiting.as_u64().unwrap()), "{form}: {waiting}");
        }
        pool.stop();
    }
}

#[test]
fn a_cut_response_is_marked_and_a_client_that_disconnects_before_its_response_is_499() {
    let setup = PoolSetup::new(
        "
        def application(environ, start_response):
            path = environ['PATH_INFO']
            if path == '/gone':
                print('reads')
                environ['wsgi.input'].read()
            if path == '/raises':
                raise ValueError('nothing has left yet')
            start_response('203 Odd', [('Content-Type', 'text/plain')])
            yield b'123'
            if path == '/cut':
                raise ValueError('the head has left')
        ",
    );
    let log = setup.path("access.log").display().to_string();
    let mut pool = setup.args(&["--access-log", &log]).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/whole")).valid().status, 203);
    assert_eq!(pool.ask(&FastcgiRequest::get("/raises")).valid().status, 500);
    assert_eq!(pool.ask(&FastcgiRequest::get("/").param("REQUEST_METHOD", "")).valid().status, 400);
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/cut").bytes());
    assert!(connection.try_response().is_err());
    let connection = pool.connect();
    connection.send(&FastcgiRequest::post("/gone", "body").before_body());
    pool.await_log("reads");
    drop(connection);
    let reported: Vec<_> = lines(&pool, 5)
        .iter()
        .map(|line| {
            let (quoted, args) = parts(line);
            let bytes = args[6].parse::<u32>().unwrap_or(0);
            (quoted[0].to_owned(), args[5].to_owned(), bytes, args[9].to_owned())
        })
        .collect();
    let line = |request: &str, status: &str, bytes, end: &str| {
        (request.to_owned(), status.to_owned(), bytes, end.to_owned())
    };
    let (page, bad) = (reported[1].2, reported[2].2);
    assert!(page > 50 && bad > 50, "the pages have bodies: {reported:?}");
    assert_eq!(
        reported,
        [
            line("GET /whole HTTP/1.1", "203", 3, "-"),
            line("GET /raises HTTP/1.1", "500", page, "-"),
            line("- / HTTP/1.1", "400", bad, "-"),
            line("GET /cut HTTP/1.1", "203", 3, "X"),
            line("POST /gone HTTP/1.1", "499", 0, "X"),
        ]
    );
    pool.stop();
}

#[test]
fn bytes_of_the_body_alone_are_counted_however_they_are_sent() {
    let pool = logged(
        "
        import tempfile
        def application(environ, start_response):
            path = environ['PATH_INFO']
            headers = [('Content-Type', 'text/plain')]
            if path == '/none':
                start_response('204 No Content', [])
                return []
            start_response('200 OK', headers)
            if path == '/file':
                file = tempfile.TemporaryFile()
                file.write(b'x' * 200000)
                file.seek(0)
                return environ['wsgi.file_wrapper'](file)
            return (b'x' * 70000 for _ in range(3)) if path == '/blocks' else [b'x' * 100000]
        ",
        &[],
    );
    for path in ["/none", "/file", "/blocks", "/one"] {
        assert!(pool.ask(&FastcgiRequest::get(path)).valid().status < 300);
    }
    pool.ask(&FastcgiRequest::get("/one").param("REQUEST_METHOD", "HEAD"));
    let lines = lines(&pool, 5);
    let counts: Vec<_> = lines.iter().map(|line| parts(line).1[6]).collect();
    assert_eq!(counts, ["-", "200000", "210000", "100000", "-"]);
    pool.stop();
}

#[test]
fn lines_of_workers_and_threads_are_never_torn() {
    let pool = logged(ECHO, &["--workers", "3", "--threads", "3"]);
    let agent = "a".repeat(3000);
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (mut connection, agent) = (pool.connect(), &agent);
            scope.spawn(move || {
                for number in 0..50 {
                    let ask = FastcgiRequest::get(&format!("/{client}/{number}"))
                        .keep()
                        .param("HTTP_USER_AGENT", agent);
                    connection.ask(&ask).text();
                }
            });
        }
    });
    for line in lines(&pool, 300) {
        let (quoted, args) = parts(&line);
        assert!(quoted.len() == 3 && args.len() == 11 && quoted[2] == agent, "{line}");
    }
    pool.stop();
}

#[test]
fn a_child_that_falls_out_of_the_application_writes_no_line() {
    let pool = logged(
        "
        import os
        def application(environ, start_response):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
        &[],
    );
    for _ in 0..3 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "response");
    }
    lines(&pool, 3);
    pool.stop();
}

#[test]
fn the_lines_may_go_to_standard_error() {
    let mut pool = PoolSetup::new(ECHO).args(&["--access-log", "-"]).start();
    pool.ask(&FastcgiRequest::get("/path"));
    pool.await_log("\"GET /path HTTP/1.1\" 200 6 ");
    pool.stop();
}

#[test]
fn a_lone_worker_writes_lines_too() {
    let setup = PoolSetup::new(ECHO);
    let (access, error) = (setup.path("access.log"), setup.path("error.log"));
    let setup = setup.args(&[
        "--access-log",
        access.to_str().unwrap(),
        "--error-log",
        error.to_str().unwrap(),
    ]);
    let socket = std::os::unix::net::UnixListener::bind(setup.path("app.sock")).unwrap();
    let pool = setup.start_on(socket);
    assert_eq!(pool.ask(&FastcgiRequest::get("/path")).text(), "/path|");
    pool.ask(&FastcgiRequest::get("/").param("REQUEST_METHOD", ""));
    let lines = lines(&pool, 2);
    assert!(lines[0].contains("\"GET /path HTTP/1.1\" 200 6 "), "{lines:?}");
    let log = fs::read_to_string(error).unwrap();
    only_log_message(&log, "W0401");
    pool.stop();
}

#[test]
fn a_redirect_is_logged_with_its_status_anywhere_in_the_response_headers() {
    let code = "
        def application(environ, start_response):
            start_response(environ['PATH_INFO'][1:] + ' Elsewhere', [('X-A', 'b'), ('Location', \
            'http://x.example/'),
                                                                     ('Content-Type', \
                                                                     'text/plain')])
            return [b'1234']
        ";
    let pool = logged(code, &[]);
    for status in ["301", "302", "201"] {
        pool.ask(&FastcgiRequest::get(&format!("/{status}")));
    }
    for (line, status) in lines(&pool, 3).iter().zip(["301", "302", "201"]) {
        assert!(line.contains(&format!("\" {status} 4 \"")), "{line}");
    }
    pool.stop();
}
