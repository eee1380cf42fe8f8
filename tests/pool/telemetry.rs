//! What monitoring packages send from forked workers arrives: their threads live there again, and
//! their exit handlers run.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::support::{
    assertions::codes,
    fastcgi_client::FastcgiRequest,
    pool::{Pool, PoolSetup},
    probe::dedent,
    web_servers::{HttpClient, eventually, source, venv},
};

/// Requests of each test.
const REQUESTS: usize = 2000;

const OPENTELEMETRY: &str = "
    import os
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=os.environ['COLLECTOR'] + '/v1/traces')
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=100000))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer('app')
    def application(environ, start_response):
        with tracer.start_as_current_span(environ['PATH_INFO']):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'served']
";

const SENTRY: &str = "
    import os, sentry_sdk
    dsn = os.environ['COLLECTOR'].replace('//', '//key@') + '/1'
    sentry_sdk.init(dsn=dsn, transport_queue_size=100000, shutdown_timeout=30)
    def application(environ, start_response):
        sentry_sdk.capture_message(environ['PATH_INFO'])
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
";

const DATADOG: &str = "
    import os
    os.environ.update({
        'DD_TRACE_AGENT_URL': os.environ['COLLECTOR'],
        'DD_TRACE_API_VERSION': 'v0.4',
        'DD_INSTRUMENTATION_TELEMETRY_ENABLED': 'false',
        'DD_REMOTE_CONFIGURATION_ENABLED': 'false',
    })
    from ddtrace.trace import tracer
    def application(environ, start_response):
        with tracer.trace('app', resource='request ' + environ['PATH_INFO']):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'served']
";

/// Answers with the number of threads. The agent sends nothing in this mode, and starts its thread
/// with the first request of a process.
const NEW_RELIC: &str = "
    import os, threading
    os.environ.update({'NEW_RELIC_DEVELOPER_MODE': 'true', 'NEW_RELIC_LICENSE_KEY': 'a' * 40})
    import newrelic.agent
    newrelic.agent.initialize()
    def answer(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%d' % threading.active_count()]
    application = newrelic.agent.WSGIApplicationWrapper(answer)
";

/// A collector on loopback.
struct Collector {
    running: Child,
    address: String,
}

impl Collector {
    fn start() -> Self {
        let mut running = Command::new(venv().join("bin/python"))
            .arg(source("tests/pool/telemetry.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").unwrap();
        Self { running, address: format!("http://127.0.0.1:{port}") }
    }

    /// How many requests of the application it knows: all, and different ones.
    fn counts(&self) -> String {
        String::from_utf8(HttpClient::get(format!("{}/", self.address)).run().body).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.running.kill().and_then(|()| self.running.wait());
    }
}

fn preload(pool: &Pool) -> String {
    let printed = pool.run_wsgate(&["status", "--json"]).text();
    let status: serde_json::Value = serde_json::from_str(&printed).unwrap();
    status["preload"].as_str().unwrap().to_owned()
}

/// Every request is reported, by workers that are replaced after a number of requests, and through
/// a reload.
#[track_caller]
fn everything_arrives(code: &str, preloaded: &str) {
    let collector = Collector::start();
    let venv = venv().display().to_string();
    let args = ["--workers", "2", "--max-requests", "200", "--venv", &venv];
    let setup = PoolSetup::new(code).own_interpreter().args(&args);
    let pool = setup.variable("COLLECTOR", &collector.address).start();
    assert_eq!(preload(&pool), preloaded, "{}", pool.log());
    for number in 0..REQUESTS {
        if number == REQUESTS / 2 {
            let reported = pool.run_wsgate(&["reload", "app"]);
            assert_eq!(reported.code(), Some(0), "{}", reported.stderr);
        }
        assert_eq!(pool.ask(&FastcgiRequest::get(&format!("/{number}"))).text(), "served");
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
    let expected = format!("[{REQUESTS}, {REQUESTS}]");
    eventually("everything has arrived, once", || collector.counts() == expected);
}

#[test]
fn every_span_of_opentelemetry_arrives() {
    everything_arrives(OPENTELEMETRY, "yes");
}

#[test]
fn every_event_of_sentry_arrives() {
    everything_arrives(SENTRY, "yes");
}

#[test]
fn every_span_of_datadog_arrives() {
    // Descriptors of its runtime in C keep the application from being loaded once.
    everything_arrives(DATADOG, "no");
}

#[test]
fn the_agent_of_new_relic_runs_in_each_forked_worker() {
    let venv = venv().display().to_string();
    let args = ["--workers", "2", "--max-requests", "5", "--venv", &venv];
    let pool = PoolSetup::new(NEW_RELIC).own_interpreter().args(&args).start();
    assert_eq!(preload(&pool), "yes", "{}", pool.log());
    for _ in 0..20 {
        let threads: u32 = pool.ask(&FastcgiRequest::get("/")).text().parse().unwrap();
        assert!(threads > 1, "{}", pool.log());
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

/// Starts a thread that no hook brings back, and answers with the threads of the process.
const OWN_THREAD: &str = "
    import threading
    threads = []
    def start():
        threads.append(threading.Thread(target=threading.Event().wait, daemon=True))
        threads[-1].start()
    start()
";

fn own_thread() -> PoolSetup {
    let app = "
        import jobs
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            alive = [thread.is_alive() for thread in jobs.threads]
            return [f'{len(alive)} {alive[-1]}'.encode()]
    ";
    let setup = PoolSetup::new(app);
    std::fs::write(setup.path("jobs.py"), dedent(OWN_THREAD)).unwrap();
    setup
}

#[test]
fn a_thread_that_no_hook_brings_back_makes_each_worker_load_the_application() {
    let pool = own_thread().start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "1 True");
    assert_eq!(preload(&pool), "no");
    let log = pool.stop();
    assert!(log.contains("W0309") && log.contains("--after-fork"), "{log}");
}

#[test]
fn a_function_after_the_fork_brings_a_thread_back() {
    let pool = own_thread().args(&["--after-fork", "jobs:start"]).start();
    assert_eq!(preload(&pool), "yes");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "2 True");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_function_after_the_fork_that_fails_is_logged_with_its_traceback() {
    for (function, reason) in
        [("jobs:missing", "AttributeError"), ("no_such_module:start", "ModuleNotFoundError")]
    {
        let mut pool = own_thread().args(&["--after-fork", function]).launch();
        pool.await_log("W0313");
        pool.await_log("W0701");
        let log = pool.stop();
        assert!(log.contains(function) && log.contains(reason), "{log}");
    }
}
