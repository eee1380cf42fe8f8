//! The metrics: both formats, `promtool`, and the table in `docs/monitoring.md`.

use std::{collections::BTreeSet, fs, process::Command};

use crate::{
    monitor::{Monitor, sample},
    pool::ECHO,
    support::{
        child_process::run,
        fastcgi_client::FastcgiRequest,
        pool::PoolSetup,
        web_servers::{HttpClient, source},
    },
};

/// `Accept` of Prometheus 2.
const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// The names and types of families.
fn families(text: &str) -> BTreeSet<(String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.into(), b.into())).collect()
}

#[test]
fn promtool_finds_nothing_wrong() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    pool.ask(&FastcgiRequest::get("/"));
    let ended = run(Command::new("promtool").args(["check", "metrics"]), monitor.metrics());
    assert_eq!((ended.code(), ended.text().as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    pool.stop();
}

#[test]
fn a_client_gets_the_format_that_it_accepts() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    let get = |accept| HttpClient::get(monitor.url("/metrics")).header("Accept", accept).run();
    let (open, text) = (get(PROMETHEUS), get("text/plain"));
    assert!(open.all("content-type")[0].starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(text.all("content-type")[0].starts_with("text/plain; version=0.0.4"));
    assert!(open.text().ends_with("\n# EOF\n") && !text.text().contains("# EOF"));
    let counter = |name: &str| (name.to_owned(), "counter".to_owned());
    assert!(families(&open.text()).contains(&counter("wsgate_requests")));
    assert!(families(&text.text()).contains(&counter("wsgate_requests_total")));
    let line = sample("wsgate_requests_total", "", "0");
    assert!(open.text().contains(&line) && text.text().contains(&line), "{line}");
    assert_eq!(open.all("vary"), ["Accept"]);
    pool.stop();
}

#[test]
fn the_table_of_the_documentation_has_each_metric_with_its_type_and_no_other() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    let page = fs::read_to_string(source("docs/monitoring.md")).unwrap();
    let documented: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `wsgate_"))
        .map(|row| {
            let mut cells = row.split(" | ");
            let name = cells.next().unwrap().split(['`', '{']).next().unwrap();
            (format!("wsgate_{name}"), cells.next().unwrap().to_owned())
        })
        .collect();
    assert_eq!(documented, families(&monitor.metrics()));
    pool.stop();
}
