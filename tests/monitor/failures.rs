//! Clients that mean harm, many scrapes, and pools that exit. No supervisor may be harmed.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    monitor::{Monitor, sample, user},
    pool::ECHO,
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, count, signal},
        web_servers::{HttpClient, eventually},
    },
};

/// A connection to the monitor on which `bytes` were sent.
fn sent(monitor: &Monitor, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&monitor.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The monitor may have closed the connection already.
    let _ = stream.write_all(bytes);
    stream
}

/// The first line of the response.
fn first_line(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_thousand_scrapes_at_once_are_answered_and_the_pool_is_asked_a_few_times() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    monitor.metrics();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let scrapes: Vec<_> = (0..1000)
        .map(|_| {
            let stream = sent(&monitor, request);
            thread::Builder::new().stack_size(64 << 10).spawn(|| first_line(stream)).unwrap()
        })
        .collect();
    let answered = scrapes.into_iter().map(|scrape| scrape.join().unwrap());
    let answered = answered.filter(|line| line == "HTTP/1.1 200 OK").count();
    assert_eq!(answered, 1000);
    assert!(count(pool.pid(), "fd") < 100, "{}", count(pool.pid(), "fd"));
    assert_eq!(pool.ask(&FastcgiRequest::get("/served")).text(), "/served|");
    monitor.stop();
    pool.stop();
}

#[test]
fn clients_that_never_read_or_never_ask_keep_nobody_out() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let _idle: Vec<TcpStream> = (0..600)
        .map(|number| {
            let bytes: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET / HTTP/1.1\r\nHost: loc",
                _ => &request,
            };
            let stream = TcpStream::connect(&monitor.address).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _ = (&stream).write(bytes);
            stream
        })
        .collect();
    assert!(monitor.metrics().contains(&sample("wsgate_pool_up", "", "1")));
    assert!(count(monitor.pid(), "fd") < 400, "{}", count(monitor.pid(), "fd"));
    pool.stop();
}

#[test]
fn half_open_connections_are_cut_before_a_scrape_has_to_wait() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    monitor.metrics();
    let half_open: Vec<TcpStream> =
        (0..300).map(|_| sent(&monitor, b"GET /metrics HTTP/1.1\r\nHost: loc")).collect();
    let begun = Instant::now();
    assert!(monitor.metrics().contains(&sample("wsgate_pool_up", "", "1")));
    // The timeout of a request's headers is 5 s.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let more: Vec<TcpStream> = (0..300).map(|_| sent(&monitor, b"G")).collect();
    assert_eq!(monitor.get("/healthz").status, 200);
    let ended = monitor.stop();
    assert_eq!(ended.stderr.matches("W0763").count(), 1, "{}", ended.stderr);
    drop((half_open, more));
    pool.stop();
}

#[test]
fn garbage_is_refused_and_the_next_request_is_answered() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    let long_header = [&b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "[..], &[b'x'; 100_000]].concat();
    let many = "A: b\r\n".repeat(1000);
    let many_headers = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://evil.example/metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        &long_header,
        many_headers.as_bytes(),
    ] {
        let line = first_line(sent(&monitor, bytes));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "{shown:?}: {line}");
    }
    assert_eq!(monitor.get("/healthz").text(), "ok\n");
    monitor.stop();
    pool.stop();
}

#[test]
fn a_pool_that_is_killed_between_scrapes_is_shown_as_down() {
    let pool = PoolSetup::new(ECHO).start();
    let other = PoolSetup::new(ECHO).args(&["--name", "other"]);
    let other = other.variable("WSGATE_RUNTIME_DIR", pool.setup().path("run")).start();
    let monitor = Monitor::of(&pool);
    monitor.await_metric(&sample("wsgate_pool_up", "", "1"));
    signal(pool.pid(), Signal::KILL);
    monitor.await_metric(&sample("wsgate_pool_up", "", "0"));
    let metrics = monitor.metrics();
    assert!(!metrics.contains("wsgate_requests_total{pool=\"app\""), "{metrics}");
    assert!(metrics.contains("wsgate_requests_total{pool=\"other\""), "{metrics}");
    assert_eq!(monitor.get("/readyz?pool=app").status, 503);
    let pools = monitor.get("/pools.json").json();
    assert_eq!((&pools[0]["up"], &pools[0]["user"]), (&false.into(), &user().into()));
    let page = monitor.get("/").text();
    assert!(page.contains("` was killed, and has left"), "{page}");
    monitor.stop();
    other.stop();
}

#[test]
fn a_pool_that_is_killed_in_the_middle_of_scrapes_stops_no_scrape() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    thread::scope(|scope| {
        let url = monitor.url("/metrics");
        let scrapes =
            scope.spawn(move || (0..30).map(|_| HttpClient::get(&url).run().status).collect());
        signal(pool.pid(), Signal::KILL);
        let statuses: Vec<u16> = scrapes.join().unwrap();
        assert!(statuses.iter().all(|&status| status == 200), "{statuses:?}");
    });
}

#[test]
fn a_stopped_supervisor_delays_no_other_pool() {
    let pool = PoolSetup::new(ECHO).start();
    let other = PoolSetup::new(ECHO).args(&["--name", "other"]);
    let other = other.variable("WSGATE_RUNTIME_DIR", pool.setup().path("run")).start();
    let monitor = Monitor::of(&pool);
    monitor.await_metric(&sample("wsgate_pool_up", "", "1"));
    signal(pool.pid(), Signal::STOP);
    monitor.await_metric(&sample("wsgate_pool_up", "", "0"));
    assert!(monitor.metrics().contains("wsgate_requests_total{pool=\"other\""));
    let ready = monitor.get("/readyz?pool=app");
    let command =
        format!("is stopped by a signal; continue the process: kill -CONT {}", pool.pid());
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.text().contains(&command), "{ready:?}");
    assert!(monitor.get("/").text().contains(&command));
    // A monitor that has never had an answer gives the same name.
    let second = Monitor::of(&pool);
    second.await_metric(&sample("wsgate_pool_up", "", "0"));
    second.stop();
    signal(pool.pid(), Signal::CONT);
    eventually("it answers again", || {
        monitor.metrics().contains(&sample("wsgate_pool_up", "", "1"))
    });
    pool.stop();
    other.stop();
}
