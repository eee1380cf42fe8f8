//! Clients that are slow in either direction, or say nothing more, while others are served.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    attack::{
        fuzz::held,
        load::Load,
        outcome::ready,
        report::Counts,
        target::{Options, Target, pause},
        times,
    },
    each_mode::Mode,
    support::{assertions::codes, fastcgi_client::FastcgiRequest, install_dir::InstallDir},
};

/// Seconds that a request may take.
const TIMEOUT: &str = "1";

/// When a request that its client holds up must have ended: the timeout, two seconds more for what
/// cannot be interrupted, and what a busy machine takes.
const END: Duration = Duration::from_secs(8);

/// Between two bytes of a slow client.
const PACE: Duration = Duration::from_millis(20);

/// Answers with its path and its body; `/large` with three million bytes.
const APP: &str = "
    import os
    def application(environ, start_response):
        path = environ['PATH_INFO']
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        if path == '/large':
            return (b'x' * 100_000 for _ in range(30))
        return [path.encode('latin-1') + b'|' + body]
    ";

/// The part of a request in which a client is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlowClient {
    /// Sends its body byte by byte.
    Body,
    /// Sends half of its body.
    HalfBody,
    /// Reads the response byte by byte.
    Reads,
    /// Reads nothing.
    ReadsNothing,
    /// Sends the first half of its parameters.
    HalfParameters,
    /// Sends its parameters byte by byte.
    Parameters,
    /// Sends nothing.
    Silent,
    /// Sends a whole request and says that it sends no more: this one is answered.
    HalfClosed,
}

/// Clients that occupy a thread.
const HOLDING: [SlowClient; 4] =
    [SlowClient::Body, SlowClient::HalfBody, SlowClient::Reads, SlowClient::ReadsNothing];

/// Clients that occupy no thread.
const WAITING: [SlowClient; 4] = [
    SlowClient::HalfParameters,
    SlowClient::Parameters,
    SlowClient::Silent,
    SlowClient::HalfClosed,
];

/// A slow client of a pool; ends when its request does. Those who have begun none leave by
/// themselves.
fn over_fastcgi(target: &Target, how: SlowClient) -> Result<(), String> {
    let mut connection = target.connect();
    let began = Instant::now();
    let request = match how {
        SlowClient::Reads | SlowClient::ReadsNothing => FastcgiRequest::get("/large"),
        _ => FastcgiRequest::post("/slow", vec![b'x'; 100_000]),
    };
    let late =
        |what: &str| if began.elapsed() > END { Err(format!("{how:?}: {what}")) } else { Ok(()) };
    let trickle = |bytes: &[u8], until: Duration| {
        for byte in bytes.chunks(1) {
            if connection.try_send(byte).is_err()
                || began.elapsed() > until
                || connection.has_more()
            {
                break;
            }
            pause(PACE);
        }
    };
    let before = request.before_body();
    match how {
        SlowClient::Body => {
            let _ = connection.try_send(&before);
            trickle(&request.stdin(&vec![b'x'; 100_000]), END);
        }
        SlowClient::HalfBody => {
            let _ = connection.try_send(&[before, request.stdin(&[b'x'; 50_000])].concat());
        }
        SlowClient::Reads | SlowClient::ReadsNothing => {
            let _ = connection.try_send(&request.bytes());
            let until = Duration::from_millis(if how == SlowClient::Reads { 0 } else { 4000 });
            // The client reads nothing until long after the timeout, and then only the bytes
            // already sent.
            pause(until);
            let mut bytes = 0;
            while let Ok(length @ 1..) = connection.read_some(1000) {
                bytes += length;
                if how == SlowClient::Reads && began.elapsed() < Duration::from_secs(4) {
                    pause(PACE);
                }
                late("the response does not end")?;
            }
            return if bytes < 3_000_000 {
                Ok(())
            } else {
                Err(format!("{how:?}: {bytes} bytes came"))
            };
        }
        SlowClient::HalfParameters => {
            let _ = connection.try_send(&before[..before.len() / 2]);
            pause(Duration::from_secs(2));
            return Ok(());
        }
        SlowClient::Parameters => {
            trickle(&before, Duration::from_secs(2));
            return Ok(());
        }
        SlowClient::Silent => {
            pause(Duration::from_secs(2));
            return Ok(());
        }
        SlowClient::HalfClosed => {
            let request = FastcgiRequest::get("/half");
            let _ = connection.try_send(&request.bytes());
            connection.end_sending();
            return match connection.try_response() {
                Ok(Some(response)) if response.text() == "/half|" => Ok(()),
                other => Err(format!("{how:?}: {other:?}")),
            };
        }
    }
    // The client may get an error page before the connection closes.
    while let Ok(1..) = connection.read_some(1000) {
        late("the request does not end")?;
    }
    late("the request does not end")
}

/// A slow client of a gateway.
fn over_cgi(target: &Target, how: SlowClient) -> Result<(), String> {
    let (path, length) = match how {
        SlowClient::Reads | SlowClient::ReadsNothing => ("/large", 0),
        SlowClient::HalfClosed => ("/half", 0),
        _ => ("/slow", 100_000),
    };
    let began = Instant::now();
    let mut command = target.request(path, length);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
    if let Some(stdin) = &mut stdin {
        match how {
            SlowClient::Body | SlowClient::Parameters => {
                while began.elapsed() < END
                    && stdin.write_all(b"x").is_ok()
                    && !ready(&stdout, Instant::now() + PACE)
                {}
            }
            SlowClient::HalfBody | SlowClient::HalfParameters => {
                drop(stdin.write_all(&[b'x'; 50_000]))
            }
            _ => {}
        }
    }
    if matches!(how, SlowClient::HalfClosed | SlowClient::Reads | SlowClient::ReadsNothing) {
        stdin = None;
    }
    if how == SlowClient::ReadsNothing {
        pause(Duration::from_secs(4));
    }
    let (mut bytes, mut piece) = (0, [0; 1000]);
    while ready(&stdout, began + END * 2) {
        match stdout.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(length) => bytes += length,
        }
        if how == SlowClient::Reads && began.elapsed() < Duration::from_secs(4) {
            pause(PACE);
        }
    }
    drop((stdin, stdout));
    let took = began.elapsed();
    let gone = crate::support::web_servers::exits_within(i32::try_from(child.id()).unwrap(), END);
    let _ = child.kill();
    let _ = child.wait();
    match () {
        () if !gone => Err(format!("{how:?}: the gateway goes on")),
        () if took > END => Err(format!("{how:?}: took {took:?}")),
        () if matches!(how, SlowClient::Reads | SlowClient::ReadsNothing) && bytes >= 3_000_000 => {
            Err(format!("{how:?}: {bytes} bytes came"))
        }
        () => Ok(()),
    }
}

fn slow(row: &str, mode: Mode, clients: &[SlowClient]) {
    let dir = Arc::new(InstallDir::new());
    let options = Options { args: &["--timeout", TIMEOUT], ..Options::default() };
    let target = Arc::new(Target::start(&dir, "slow", mode, APP, options));
    let rounds = times(1, 12);
    // The first failure loads modules once.
    let round = || -> Vec<String> {
        let slow: Vec<_> = clients
            .iter()
            .map(|&how| {
                let target = target.clone();
                thread::spawn(move || {
                    if target.is_cgi() {
                        over_cgi(&target, how)
                    } else {
                        over_fastcgi(&target, how)
                    }
                })
            })
            .collect();
        slow.into_iter().filter_map(|client| client.join().expect("a slow client").err()).collect()
    };
    let load = Load::start(&target, 2);
    load.await_answers(&target, 4).unwrap();
    let mut held_before = Vec::new();
    for number in 0..rounds {
        if number == 1 && !target.is_cgi() {
            held_before = target.workers().into_iter().map(|pid| (pid, held(pid).1)).collect();
        }
        let answered = load.answered();
        let wrong = round();
        assert!(wrong.is_empty(), "round {number}: {wrong:?}\n{}", target.log());
        assert!(load.answered() > answered, "others were not served meanwhile\n{}", target.log());
    }
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    for (pid, memory) in held_before {
        assert!(target.workers().contains(&pid), "worker {pid} has ended\n{}", target.log());
        let now = held(pid).1;
        assert!(now <= memory + 8192, "memory of the worker: {memory} KiB, then {now} KiB");
    }
    let counts = Counts {
        tried: format!("{} slow clients", rounds * clients.len()),
        answered: tally.answered.load(Ordering::Relaxed),
        lost: tally.lost(),
        how: format!("{:?}", tally.how),
    };
    assert_eq!(tally.lost(), 0, "{counts:?}\n{}", target.log());
    assert!(target.ends().is_empty(), "{:?}\n{}", target.ends(), target.log());
    let log = target.stop().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    let expected = ["W0402", "W0501", "W0502", "W0604", "W0606", "W0801"];
    for code in codes(&log) {
        assert!(expected.contains(&code), "{code}\n{log}");
    }
    assert!(codes(&log).contains(&"W0604"), "{log}");
    counts.report(row);
}

#[test]
fn slow_clients_of_a_pool_of_one_thread_time_out_and_others_are_served() {
    slow("Slow clients, pool, 1 thread", Mode::Preloaded(1), &[&HOLDING[..1], &WAITING].concat());
}

#[test]
fn slow_clients_of_a_pool_of_eight_threads_time_out_and_others_are_served() {
    slow(
        "Slow clients, pool, 8 threads",
        Mode::Preloaded(8),
        &[&HOLDING[..], &HOLDING[..3], &WAITING].concat(),
    );
}

#[test]
fn slow_clients_of_a_lone_worker_time_out_and_others_are_served() {
    slow("Slow clients, lone worker", Mode::Lone, &[&HOLDING[1..2], &WAITING].concat());
}

#[test]
fn slow_clients_of_cold_requests_time_out_and_others_are_served() {
    slow("Slow clients, cold", Mode::Cold, &HOLDING);
}

#[test]
fn slow_clients_of_warm_requests_time_out_and_others_are_served() {
    slow("Slow clients, warm", Mode::Warm, &HOLDING);
}

#[test]
fn slow_clients_of_resident_requests_time_out_and_others_are_served() {
    slow("Slow clients, resident", Mode::Resident, &HOLDING);
}
