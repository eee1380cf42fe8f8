//! A response other than the expected one is a failure, and counts for no figure.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde_json::{Value, json};

/// The directory of one test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("load-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("body"), "page\n").unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Records of standard output with `content`, then the end of the request with `app_status`.
fn response(content: &str, app_status: u8) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    let mut bytes = vec![1, 6, 0, 1, 0, length, 0, 0];
    bytes.extend_from_slice(content.as_bytes());
    bytes.extend_from_slice(&[1, 6, 0, 1, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, app_status, 0, 0, 0, 0]);
    bytes
}

fn correct() -> Vec<u8> {
    response("Status: 200 OK\r\nX-Own: yes\r\n\r\npage\n", 0)
}

/// The report of `load` on one client, which sends as many requests as there are answers.
///
/// With `keep` the server keeps connections open; without it the server closes each after its
/// answer.
fn report(args: &[&str], keep: bool, answers: &[Vec<u8>]) -> Value {
    let place = Place::new();
    let socket = place.0.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let done = thread::scope(|scope| {
        scope.spawn(move || {
            let mut answers = answers.iter();
            while answers.len() > 0 {
                let (mut stream, _) = listener.accept().unwrap();
                while await_request(&mut stream)
                    && let Some(answer) = answers.next()
                {
                    // The client may have closed the connection.
                    let _ = stream.write_all(answer);
                    if !keep {
                        break;
                    }
                }
            }
        });
        Command::new(env!("CARGO_BIN_EXE_load"))
            .arg(format!("unix:{}", socket.display()))
            .args(["--connections", "1", "--body"])
            .arg(place.0.join("body"))
            .args(args)
            .output()
            .unwrap()
    });
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Reads to the end of a request; false if there is none.
fn await_request(stream: &mut UnixStream) -> bool {
    let mut request = Vec::new();
    let mut buffer = [0; 65536];
    while !request.ends_with(&[1, 5, 0, 1, 0, 0, 0, 0]) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => request.extend_from_slice(&buffer[..length]),
            _ => return false,
        }
    }
    true
}

/// Counts of failures, in the order of the names.
fn failed(connection: u64, framing: u64, status: u64, body: u64, idle: u64) -> Value {
    json!({
        "connection": connection,
        "framing": framing,
        "status": status,
        "body": body,
        "idle": idle
    })
}

#[test]
fn each_failure_is_counted_by_its_cause_and_in_no_other_figure() {
    let mut too_much = correct();
    too_much.push(1);
    let answers = [
        correct(),
        response("Status: 500 Internal Server Error\r\n\r\npage\n", 0),
        response("Status: 200 OK\r\n\r\nPAGE\n", 0),
        response("Status: 200 OK\r\n\r\npage\nand more\n", 0),
        response("Status: 200 OK\r\n\r\npag", 0),
        response("Status: 200 OK\r\n\r\npage\n", 1),
        too_much,
        b"HTTP/1.1 200 OK\r\n\r\npage\n".to_vec(),
        correct()[..20].to_vec(),
        Vec::new(),
        correct(),
    ];
    let report = report(&["--requests", "11"], false, &answers);
    assert_eq!(report["requests"], 2);
    assert_eq!(report["failed"], failed(2, 3, 1, 3, 0));
    assert_eq!(report["headers"], "Status: 200 OK\r\nX-Own: yes");
}

#[test]
fn a_correct_response_in_other_records_is_accepted() {
    let mut other = vec![1, 6, 0, 1, 0, 4, 0, 0];
    other.extend_from_slice(b"Stat");
    other.extend_from_slice(&response("us: 200 OK\r\n\r\npage\n", 0));
    let report = report(&["--requests", "3", "--keep"], true, &[correct(), other, correct()]);
    assert_eq!(report["requests"], 3);
    assert_eq!(report["failed"], failed(0, 0, 0, 0, 0));
}

#[test]
fn a_keep_alive_connection_that_the_server_closes_is_a_failure() {
    let report = report(&["--requests", "4", "--keep"], false, &[correct(), correct()]);
    assert_eq!(report["requests"], 2);
    assert_eq!(report["failed"], failed(2, 0, 0, 0, 0));
}

#[test]
fn idle_connections_that_serve_no_request_afterwards_are_counted() {
    // One at a time: the idle connection's, which is closed, then the client's.
    let report = report(&["--requests", "1", "--idle", "1"], false, &[correct(), correct()]);
    assert_eq!(report["requests"], 1);
    assert_eq!(report["failed"], failed(0, 0, 0, 0, 1));
}

#[test]
fn a_request_body_arrives_complete() {
    let report = report(&["--requests", "1", "--post", "1000000"], false, &[correct()]);
    assert_eq!(report["requests"], 1);
}

#[test]
fn refused_requests_of_an_open_loop_are_counted_apart() {
    let refusal = response("Status: 503 Service Unavailable\r\n\r\nlater\n", 0);
    let answers: Vec<_> = (0..200).flat_map(|_| [correct(), refusal.clone()]).collect();
    let args = ["--rate", "1000", "--seconds", "0.4", "--refused", "503 Service Unavailable"];
    let report = report(&args, false, &answers);
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(count("requests") + count("refused"), 400, "{report}");
    assert_eq!(count("requests"), count("refused"), "{report}");
    assert_eq!(report["failed"], failed(0, 0, 0, 0, 0), "{report}");
    assert!(report["refused_p99"].as_f64().unwrap() > 0.0, "{report}");
}
