//! A million requests, and nothing has grown.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
};

use crate::{
    pool::load::turn,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup, count, resident},
        waiting::DEADLINE,
        web_servers::eventually,
    },
};

/// Connections of each client. A client sends on all of them before it reads from the first.
const CONNECTIONS: usize = 8;

/// Requests that are sent on a connection behind each other.
const BEHIND: usize = 10;

/// Requests of a client between two new connections.
const ROUND: usize = CONNECTIONS * BEHIND;

const CLIENTS: usize = 2;

/// Says what it was asked, and nothing that would be another thing for another worker.
const SAYS: &str = "
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [environ['PATH_INFO'].encode('latin-1') + b'|' + body]
    ";

/// The bytes of a request and of its expected response.
struct Exchange {
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Exchange {
    /// `asks` behind each other, with the answers that they get one by one, once a judge has passed
    /// those.
    fn of(pool: &Pool, asks: &[FastcgiRequest], status: u16) -> Self {
        let mut received = Vec::new();
        for request in asks {
            assert_eq!(pool.ask(request).valid().status, status);
            let mut stream = connect(&pool.socket());
            stream.write_all(&request.bytes()).unwrap();
            // FCGI_END_REQUEST with the status 0 (FastCGI 1.0, 5.5).
            let end = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let mut response = Vec::new();
            while !response.ends_with(&end) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                response.extend(byte);
            }
            received.extend(response);
        }
        Self { sent: asks.iter().flat_map(FastcgiRequest::bytes).collect(), received }
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A client that sends `rounds` batches. Every fiftieth batch is of requests that are refused.
fn ask_rounds(socket: &Path, rounds: usize, [good, bad]: [&Exchange; 2]) {
    let mut streams: Vec<UnixStream> = (0..CONNECTIONS).map(|_| connect(socket)).collect();
    let mut response = vec![0; good.received.len().max(bad.received.len())];
    for round in 0..rounds {
        let exchange = if round % 50 == 0 { bad } else { good };
        for stream in &mut streams {
            stream.write_all(&exchange.sent).unwrap();
        }
        for stream in &mut streams {
            let response = &mut response[..exchange.received.len()];
            stream.read_exact(response).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert!(
                response == exchange.received,
                "round {round}: {}",
                String::from_utf8_lossy(response)
            );
        }
        streams[round % CONNECTIONS] = connect(socket);
    }
}

/// The resources of the processes of a pool.
#[derive(Debug)]
struct Held {
    /// Of each process: its number, what it has open, and its memory in KiB.
    processes: Vec<(i32, usize, u64)>,
    /// The workers that the scoreboard has a line of.
    lines: BTreeSet<i64>,
    served: u64,
}

/// The resources once all connections are closed and `served` requests are counted.
fn held(pool: &Pool, served: u64) -> Held {
    let mut processes = pool.workers(2);
    processes.sort_unstable();
    processes.extend([pool.template(), pool.pid()]);
    let mut held = Held { processes: Vec::new(), lines: BTreeSet::new(), served: 0 };
    eventually("all is counted and closed", || {
        let reported = pool.run_wsgate(&["status", "app", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&reported.text()).unwrap();
        let lines = status["workers"].as_array().unwrap();
        assert_eq!(lines.len(), 2, "{status}");
        held.lines = lines.iter().map(|line| line["pid"].as_i64().unwrap()).collect();
        held.served = lines.iter().map(|line| line["requests"].as_u64().unwrap()).sum();
        let before = std::mem::take(&mut held.processes);
        held.processes =
            processes.iter().map(|&pid| (pid, count(pid, "fd"), resident(pid))).collect();
        held.served == served
            && lines.iter().all(|line| line["busy"] == false)
            && before == held.processes
    });
    held
}

#[test]
fn a_million_requests_leave_memory_descriptors_and_scoreboard_as_50_000_left_them() {
    let _turn = turn();
    let pool = PoolSetup::new(SAYS).args(&["--workers", "2"]).start();
    let (get, post) =
        (FastcgiRequest::get("/get").keep(), FastcgiRequest::post("/post", vec![b'x'; 100]).keep());
    let asks: Vec<FastcgiRequest> = (0..BEHIND)
        .map(|number| if number % 2 == 0 { get.clone() } else { post.clone() })
        .collect();
    let good = Exchange::of(&pool, &asks, 200);
    // Its error page names the request.
    let refused = get.param("CONTENT_LENGTH", "x").param("UNIQUE_ID", "Zx81aBcDeFgHiJkLmNoPqR");
    let bad = Exchange::of(&pool, &vec![refused; BEHIND], 400);
    let socket = pool.socket();
    let mut served = 4 * BEHIND as u64;
    let mut request = |requests: usize| {
        let rounds = requests / CLIENTS / ROUND;
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| ask_rounds(&socket, rounds, [&good, &bad]));
            }
        });
        served += (rounds * CLIENTS * ROUND) as u64;
        held(&pool, served)
    };
    let warm = request(50_000);
    let after = request(1_000_000);
    assert!(after.served >= 1_000_000);
    assert_eq!(after.lines, warm.lines);
    for ((pid, open, memory), (pid_now, open_now, memory_now)) in
        warm.processes.iter().zip(&after.processes)
    {
        assert_eq!((pid, open), (pid_now, open_now), "{warm:?}, then {after:?}");
        assert!(*memory_now <= memory + 1024, "{warm:?}, then {after:?}");
    }
    let log = pool.stop();
    assert!(
        codes(&log).iter().all(|&code| code == "W0401"),
        "{:?}",
        codes(&log).iter().find(|&&code| code != "W0401")
    );
}
