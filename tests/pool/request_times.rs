//! The histograms in the status: how long requests took, and how long they waited.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{
    pool::{ECHO, GATED, connection_queue::AT_THE_GATE},
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup},
        web_servers::eventually,
    },
};

fn status(pool: &Pool) -> serde_json::Value {
    serde_json::from_slice(&pool.run_wsgate(&["status", "--json", "app"]).stdout).unwrap()
}

/// The sum of the counts of a histogram.
fn count(histogram: &serde_json::Value) -> u64 {
    let counts = histogram["counts"].as_array().unwrap();
    assert_eq!(counts.len(), histogram["bounds_microseconds"].as_array().unwrap().len() + 1);
    counts.iter().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn each_request_is_in_the_histogram_also_after_its_worker_was_replaced() {
    for args in
        [&["--workers", "1", "--max-requests", "2"][..], &["--workers", "2", "--threads", "3"]]
    {
        let pool = PoolSetup::new(ECHO).args(args).start();
        for _ in 0..5 {
            pool.ask(&FastcgiRequest::get("/"));
        }
        eventually("all are counted", || count(&status(&pool)["duration"]) == 5);
        assert_eq!(count(&status(&pool)["waiting"]), 0, "no web server said when they came");
        pool.stop();
    }
}

#[test]
fn a_request_is_in_the_bucket_of_its_time() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("slow");
    std::thread::sleep(Duration::from_millis(1100));
    pool.open_gate();
    connection.response();
    eventually("the request is counted", || count(&status(&pool)["duration"]) == 1);
    let histogram = status(&pool)["duration"].clone();
    let bounds = histogram["bounds_microseconds"].as_array().unwrap();
    let above = bounds.iter().position(|bound| bound.as_u64() > Some(1_000_000)).unwrap();
    let quick = histogram["counts"].as_array().unwrap()[..above].iter();
    assert!(quick.clone().all(|count| count == 0), "{histogram}");
    assert!(histogram["sum_microseconds"].as_u64() >= Some(1_100_000), "{histogram}");
    pool.stop();
}

#[test]
fn the_time_since_x_request_start_is_the_time_that_a_request_waited() {
    let pool = PoolSetup::new(ECHO).start();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - 60.0;
    for value in [format!("t={begun:.3}"), "nonsense".to_owned()] {
        pool.ask(&FastcgiRequest::get("/").param("HTTP_X_REQUEST_START", value));
    }
    eventually("one request is counted", || count(&status(&pool)["waiting"]) == 1);
    let sum = status(&pool)["waiting"]["sum_microseconds"].as_u64().unwrap();
    assert!((60_000_000..3_600_000_000).contains(&sum), "{sum}");
    pool.stop();
}

/// A request that waited 500 ms or more for the worker, which was busy with another one, and the
/// waiting times of both. `start` is their `X-Request-Start`.
fn waited_in_the_queue(start: Option<&str>) -> (Pool, serde_json::Value, Duration) {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--queue", "60"]).start();
    let request = |path: &str| {
        let request = FastcgiRequest::post(path, "body");
        match start {
            Some(start) => request.param("HTTP_X_REQUEST_START", start),
            None => request,
        }
    };
    let mut busy = pool.connect();
    busy.send(&request("/slow").bytes());
    pool.await_log(AT_THE_GATE);
    let begun = Instant::now();
    let mut waiting = pool.connect();
    waiting.send(&request("/other").bytes());
    eventually("the supervisor has the request", || status(&pool)["queued"] == 1);
    std::thread::sleep(Duration::from_millis(500));
    pool.open_gate();
    busy.response();
    assert_eq!(waiting.response().text(), "/other|body");
    let longest = begun.elapsed();
    eventually("both are counted", || count(&status(&pool)["duration"]) == 2);
    let times = status(&pool)["waiting"].clone();
    (pool, times, longest)
}

#[test]
fn the_time_in_the_queue_of_the_supervisor_is_time_that_a_request_waited() {
    let (pool, times, longest) = waited_in_the_queue(None);
    assert_eq!(count(&times), 1, "{times}");
    let sum = Duration::from_micros(times["sum_microseconds"].as_u64().unwrap());
    assert!((Duration::from_millis(500)..=longest).contains(&sum), "{sum:?} of {longest:?}");
    pool.stop();
}

#[test]
fn a_wait_in_the_queue_of_the_supervisor_counts_once_if_the_web_server_tells_it() {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - 60.0;
    let (pool, times, _) = waited_in_the_queue(Some(&format!("t={begun:.3}")));
    assert_eq!(count(&times), 2, "{times}");
    assert!(times["sum_microseconds"].as_u64() >= Some(120_000_000), "{times}");
    pool.stop();
}
