//! A real Prometheus scrapes the monitor, with the configuration in `docs/monitoring.md`.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
};

use crate::{
    monitor::{Monitor, user},
    pool::ECHO,
    support::{
        child_process::{RunningProcess, run},
        fastcgi_client::FastcgiRequest,
        pool::PoolSetup,
        web_servers::{HttpClient, eventually, source},
    },
};

/// The block of code in `docs/monitoring.md` that begins with this line.
#[track_caller]
fn block(first: &str) -> String {
    let page = fs::read_to_string(source("docs/monitoring.md")).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    let mut blocks = blocks.filter_map(|block| block.split_once('\n').map(|(_, text)| text));
    blocks.find(|text| text.starts_with(first)).expect(first).to_owned()
}

#[test]
fn prometheus_stores_the_metrics_and_knows_the_rules_of_the_documentation() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    pool.ask(&FastcgiRequest::get("/"));
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("wsgate-rules.yml");
    fs::write(&rules, block("groups:")).unwrap();
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(&rules), "");
    assert_eq!(checked.code(), Some(0), "{}{}", checked.text(), checked.stderr);
    let config = block("scrape_configs:").replace("127.0.0.1:9180", &monitor.address);
    let config = config.replace("/etc/prometheus/", &format!("{}/", directory.path().display()));
    let config = config.replace("15s", "1s");
    fs::write(directory.path().join("prometheus.yml"), config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut prometheus = RunningProcess::start(
        Command::new("prometheus")
            .arg(format!("--config.file={}/prometheus.yml", directory.path().display()))
            .arg(format!("--storage.tsdb.path={}/data", directory.path().display()))
            .arg(format!("--web.listen-address={free}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    prometheus.await_log("Server is ready to receive web requests");
    let value = |query: &str| {
        let url = format!("http://{free}/api/v1/query");
        let found = HttpClient::get(url).data(&format!("query={query}")).run().json();
        found["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    let user = user();
    for (query, expected) in [
        (format!("wsgate_requests_total{{pool=\"app\",user=\"{user}\"}}"), "1"),
        ("up{job=\"wsgate\"}".to_owned(), "1"),
        ("wsgate_request_duration_seconds_bucket{le=\"+Inf\"}".to_owned(), "1"),
        ("scrape_samples_scraped > bool 50".to_owned(), "1"),
    ] {
        eventually(&query, || value(&query).as_deref() == Some(expected));
    }
    pool.stop();
}
