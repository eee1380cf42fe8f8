//! The form of log messages: time and name where nobody else adds them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    process::Command,
};

use rustix::fs::fstat;
use serde_json::{Value, json};

use crate::{
    each_mode::{MODES, ServedApp},
    pool::PoolSetup,
    support::{
        assertions::first_line,
        child_process::run,
        fastcgi_client::FastcgiRequest,
        probe::{Probe, python},
        web_servers::eventually,
    },
};

/// Raises an exception for `/raises`.
const RAISES: &str = "
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/raises':
            raise ValueError('on purpose')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'fine']
    ";

/// Is `text` a time of UTC with milliseconds?
fn is_time(text: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000Z";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(found, pattern)| match pattern {
            '0' => found.is_ascii_digit(),
            other => found == other,
        })
}

/// Time and name of a line that begins a log message.
#[track_caller]
fn time_and_name(line: &str) -> (&str, &str) {
    let (time, rest) = line.split_once(" [").unwrap_or_else(|| panic!("no time: {line}"));
    assert!(is_time(time), "{line}");
    (time, rest.split_once("] wsgate: ").unwrap_or_else(|| panic!("no name: {line}")).0)
}

#[test]
fn each_message_in_a_file_begins_with_time_and_name_in_every_mode() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], RAISES);
        served.request("GET", "/raises", &[], b"");
        let log = served.stop();
        let starts: Vec<_> = log.lines().filter(|line| first_line(line).is_some()).collect();
        assert!(starts.iter().any(|line| line.contains("error[W0501]")), "{mode:?}: {log}");
        for line in starts {
            assert_eq!(time_and_name(line).1, "app", "{mode:?}: {log}");
        }
    }
}

#[test]
fn messages_of_a_cgi_request_to_the_pipe_of_a_web_server_have_no_time() {
    let response = Probe::new(RAISES).variable("PATH_INFO", "/raises").run();
    let start = response.log.lines().find(|line| line.contains("error[W0501]")).unwrap();
    assert!(start.starts_with("wsgate: "), "{response:?}");
}

#[test]
fn a_pool_names_itself_and_leaves_the_time_to_the_journal() {
    for is_journal in [false, true] {
        let setup = PoolSetup::new(RAISES).args(&["--name", "shop"]);
        let path = setup.path("stream");
        let stream = fs::File::create(&path).unwrap();
        let found = stream.metadata().unwrap();
        let inode = if is_journal { found.ino() } else { found.ino() + 1 };
        let setup = setup.variable("JOURNAL_STREAM", format!("{}:{inode}", found.dev()));
        let pool = setup.launch_to(stream);
        eventually("the pool serves", || fs::read_to_string(&path).unwrap().contains("W0710"));
        let log = fs::read_to_string(&path).unwrap();
        pool.stop();
        let start = log.lines().find(|line| line.contains("notice[")).unwrap();
        if is_journal {
            assert!(start.starts_with("<5>wsgate: "), "{log}");
        } else {
            assert_eq!(time_and_name(start).1, "shop", "{log}");
        }
    }
}

/// Starts the pool `setup` with a socket as standard error, as systemd does, and returns what the
/// journal reads from the socket while `path` is requested.
fn journal_lines(setup: PoolSetup, path: &str) -> Vec<String> {
    let (journal, stream) = UnixStream::pair().unwrap();
    let found = fstat(&stream).unwrap();
    let setup = setup.variable("JOURNAL_STREAM", format!("{}:{}", found.st_dev, found.st_ino));
    let pool = setup.launch_to(OwnedFd::from(stream));
    let mut lines = BufReader::new(journal).lines().map(Result::unwrap);
    let mut read: Vec<_> = lines.by_ref().take_while(|line| !line.contains("W0710")).collect();
    pool.ask(&FastcgiRequest::get(path));
    pool.stop();
    read.extend(lines);
    read
}

#[test]
fn each_line_of_a_message_in_the_journal_has_the_priority_of_its_severity() {
    let setup = PoolSetup::new(RAISES).args(&["--path", "/nonexistent"]);
    let lines = journal_lines(setup, "/raises");
    let first = |code: &str| lines.iter().position(|line| line.contains(code)).unwrap();
    assert!(lines[first("W0108")].starts_with("<4>wsgate: warning["), "{lines:#?}");
    assert!(lines[first("W0712")].starts_with("<5>wsgate: notice["), "{lines:#?}");
    let error = &lines[first("W0501")..];
    assert!(error[0].starts_with("<3>wsgate: error[W0501]"), "{lines:#?}");
    let length = error.iter().position(|line| line.contains("request: ")).unwrap();
    let parts =
        ["<3>  Traceback (most recent call last):", "<3>      raise ValueError", "<3>hint: "];
    let mut message = error[..=length].iter();
    assert!(parts.iter().all(|part| message.any(|line| line.starts_with(part))), "{lines:#?}");
    assert!(error[..=length].iter().all(|line| line.starts_with("<3>")), "{lines:#?}");
}

#[test]
fn records_of_json_in_the_journal_have_the_priority_too() {
    let setup = PoolSetup::new(RAISES).args(&["--log-format", "json", "--access-log", "-"]);
    let lines = journal_lines(setup, "/raises");
    let record = |code: &str| lines.iter().find(|line| line.contains(code)).unwrap();
    assert!(record("W0501").starts_with("<3>{\"time\":\""), "{lines:#?}");
    assert!(record("\"log\":\"access\"").starts_with("{\"time\":\""), "{lines:#?}");
    for line in lines.iter().filter(|line| line.contains("\"log\"")) {
        let record = line.strip_prefix("<3>").or(line.strip_prefix("<5>")).unwrap_or(line);
        serde_json::from_str::<Value>(record).unwrap();
    }
}

/// Writes to each log what could end a line or a string, and raises for `/raises`.
const HOSTILE: &str = r#"
    import logging, sys, traceback
    def application(environ, start_response):
        print('two\nlines')
        print('"quoted" \\ \x1b[2J \u202e \x00', file=sys.stderr)
        sys.stderr.buffer.write(b'bytes \xff\xfe\n')
        environ['wsgi.errors'].write('to wsgi.errors\n')
        try:
            raise KeyError('caught')
        except KeyError:
            traceback.print_exc()
            logging.exception('logged')
        if environ['PATH_INFO'] == '/raises':
            raise ValueError('hostile "\n\x1b[2J\udcff{}')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'fine']
    "#;

/// The records of a log in JSON, whose first keys are the same in each log.
#[track_caller]
fn records(log: &str, what: &str) -> Vec<Value> {
    let parse = |line: &str| {
        serde_json::from_str::<Value>(line)
            .unwrap_or_else(|error| panic!("{what}: {error}: {line}"))
    };
    let records: Vec<_> = log.lines().map(parse).collect();
    for (record, line) in records.iter().zip(log.lines()) {
        assert!(is_time(record["time"].as_str().unwrap()), "{what}: {line}");
        assert!(record["pid"].is_number() && record["pool"] == "app", "{what}: {line}");
        let at = |key: &str| line.find(&format!("\"{key}\":")).unwrap();
        assert!(at("time") < at("log") && at("log") < at("pool") && at("pool") < at("pid"));
    }
    // A reader that nobody here has written.
    let mut python = Command::new(python());
    python.args(["-c", "import json, sys\nfor line in sys.stdin.buffer: json.loads(line)"]);
    let read = run(&mut python, log);
    assert!(read.status.success(), "{what}: {}", read.stderr);
    records
}

#[test]
fn each_line_of_a_log_in_json_is_a_record_in_every_mode() {
    for mode in MODES {
        let what = format!("{mode:?}");
        let mut served = ServedApp::start(mode, &["--log-format", "json"], HOSTILE);
        let id = "the-id-of-this-request";
        let variables = [("UNIQUE_ID", id), ("REQUEST_URI", "/\u{1b}[2J\n\"\\{}\u{202e}")];
        served.request("GET", "/raises", &variables, b"");
        let records = records(&served.stop(), &what);
        let of_request: Vec<_> =
            records.iter().filter(|record| record["request_id"] == id).collect();
        let error = of_request.iter().find(|record| record["log"] == "error").unwrap();
        assert_eq!((&error["severity"], &error["code"]), (&json!("error"), &json!("W0501")));
        assert_eq!(error["method"], "GET", "{what}: {error}");
        assert!(error["message"].as_str().unwrap().contains("ValueError"), "{what}: {error}");
        assert!(error["traceback"].as_str().unwrap().contains("app.wsgi"), "{what}: {error}");
        assert!(error["hint"].is_string() && error["detail"].is_null(), "{what}: {error}");
        let output = of_request.iter().filter(|record| record["log"] == "output");
        let output: Vec<_> = output.map(|record| record["message"].as_str().unwrap()).collect();
        assert_eq!(
            output[..4],
            [
                "two\nlines",
                "\"quoted\" \\ \u{1b}[2J \u{202e} \0",
                "bytes \\xff\\xfe",
                "to wsgi.errors",
            ],
            "{what}"
        );
        assert!(output[4].starts_with("Traceback (most") && output[4].ends_with("'caught'"));
        assert!(output[5].starts_with("ERROR:root:logged\nTraceback (most"), "{output:?}");
        assert_eq!(output.len(), 6, "{output:?}");
    }
}

#[test]
fn error_log_and_access_log_in_json_share_a_file_and_their_keys() {
    let setup = PoolSetup::new(HOSTILE).args(&["--log-format", "json", "--access-log", "-"]);
    let pool = setup.start();
    let request = FastcgiRequest::get("/raises")
        .param("REQUEST_URI", b"/\xff\x00\"\n?a=\xc3")
        .param("HTTP_USER_AGENT", b"agent \x1b\xfe\"");
    pool.ask(&request);
    let records = records(&pool.stop(), "pool");
    let access = records.iter().find(|record| record["log"] == "access").unwrap();
    let error = records.iter().find(|record| record["code"] == "W0401").unwrap();
    assert_eq!(access["request_id"], error["request_id"]);
    assert_eq!(access["target"], "/\\xff\0\"\n?a=\\xc3");
    assert_eq!(access["user_agent"], "agent \u{1b}\\xfe\"");
    assert_eq!(access["status"], 400);
    assert_eq!(access["target"], error["target"]);
}
