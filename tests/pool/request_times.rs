//! The histograms in the status: how long requests took, and how long they waited.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    pool::{ECHO, GATED},
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
    std::thread::sleep(std::time::Duration::from_millis(1100));
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
