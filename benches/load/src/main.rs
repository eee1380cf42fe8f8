//! Sends the same request to a FastCGI server many times, and reports how fast it answers: `load
//! --help`.
//!
//! The load takes processor time away from the server that it measures. So a request is prepared
//! once, a thread with its own connection only writes the request and reads the response, and a
//! response with the same bytes as the last one is not parsed. A response other than the expected
//! one is a failure and counts for no figure.

#![expect(clippy::print_stdout, reason = "the report")]

mod exchange;
mod request;

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use serde::Serialize;

use exchange::{Address, Asker, Expected, Failure, Stream};
use request::Prepared;

/// A client stops after so many failures.
const MAX_FAILURES: usize = 100;

/// Send requests to a FastCGI server, and print a report as JSON
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Args {
    /// Address of the server: unix:PATH or HOST:PORT
    address: Address,

    /// Number of clients, each with its own connection
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Send N requests, by all clients together
    #[arg(long, value_name = "N", required_unless_present = "seconds", conflicts_with = "seconds")]
    requests: Option<usize>,

    /// Send requests for S seconds
    #[arg(long, value_name = "S", value_parser = duration)]
    seconds: Option<Duration>,

    /// Send requests for S seconds before that, without counting them
    #[arg(long, value_name = "S", value_parser = duration, default_value = "0")]
    #[arg(conflicts_with = "requests")]
    warm_up: Duration,

    /// Send R requests a second, whether or not the server keeps up: an open loop. A request begins
    /// when it is due, and waits for a client if all are busy
    #[arg(long, value_name = "R", requires = "seconds")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Status with which the server may refuse a request; such responses are counted apart
    #[arg(long, value_name = "STATUS", requires = "rate")]
    refused: Option<String>,

    /// Use keep-alive connections; otherwise each request opens a connection
    #[arg(long)]
    keep: bool,

    /// Hold N further keep-alive connections open; each sends one request before and one after the
    /// others
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,

    /// URL path to request
    #[arg(long, value_name = "PATH", default_value = "/hello")]
    path: String,

    /// Send N bytes by POST
    #[arg(long, value_name = "N")]
    post: Option<usize>,

    /// Expected status
    #[arg(long, value_name = "STATUS", default_value = "200 OK")]
    status: String,

    /// File with the expected body
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
}

/// The report. Failures are in no other figure.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Correct responses.
    requests: usize,
    seconds: f64,
    /// Correct responses a second.
    rate: f64,
    /// Median of the request times, in microseconds.
    p50: f64,
    /// The 99th percentile of the request times, in microseconds.
    p99: f64,
    /// Refused requests.
    refused: usize,
    /// The 99th percentile of the times of refused requests, in microseconds.
    refused_p99: f64,
    /// Headers of the first correct response.
    headers: Option<String>,
    failed: Failed,
}

/// Failed requests by cause.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Failed {
    /// No connection, or one that closed too early.
    connection: usize,
    /// The response was not FastCGI, or reported a failure.
    framing: usize,
    status: usize,
    body: usize,
    /// Idle connections that served no request afterwards.
    idle: usize,
}

/// Results of one client.
#[derive(Debug, Default)]
struct Findings {
    /// Time of each correct response.
    times: Vec<Duration>,
    /// Time of each refused request.
    refused: Vec<Duration>,
    failed: Failed,
    headers: Option<String>,
}

/// The requests of an open loop.
#[derive(Debug)]
struct Schedule {
    begin: Instant,
    interval: Duration,
    until: Until,
    /// Number of requests that clients have taken.
    taken: AtomicU32,
}

impl Schedule {
    /// When the next request is due.
    fn next(&self) -> Instant {
        self.begin + self.interval * self.taken.fetch_add(1, Ordering::Relaxed)
    }
}

/// When a client stops.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// After so many requests.
    Made(usize),
    /// At `end`. Requests that began before `from` do not count.
    Time { from: Instant, end: Instant },
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let prepared = Prepared::new(&args.path, args.post, args.keep)?;
    let kept = Prepared::new(&args.path, args.post, true)?;
    let expected = Expected {
        status: args.status.clone(),
        body: fs::read(&args.body)?,
        refused: args.refused.clone(),
    };
    let mut asker = Asker::new(&args.address, &expected);
    let mut idle = (0..args.idle)
        .map(|_| opened(&mut asker, &kept))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|failure| format!("an idle connection failed: {failure:?}"))?;

    let begin = Instant::now();
    let from = begin + args.warm_up;
    let schedule = args.rate.map(|rate| Schedule {
        begin,
        interval: Duration::from_secs(1) / rate,
        until: Until::Time { from, end: from + args.seconds.unwrap_or_default() },
        taken: AtomicU32::new(0),
    });
    let clients: Vec<Findings> = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.connections)
            .map(|client| {
                let until = match args.seconds {
                    Some(seconds) => Until::Time { from, end: from + seconds },
                    None => {
                        Until::Made(share(args.requests.unwrap_or(0), args.connections, client))
                    }
                };
                let mut asker = Asker::new(&args.address, &expected);
                let prepared = &prepared;
                let keep = args.keep;
                let schedule = schedule.as_ref();
                scope.spawn(move || match schedule {
                    Some(schedule) => ask_when_due(&mut asker, prepared, keep, schedule),
                    None => ask(&mut asker, prepared, keep, until),
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a client panicked"))
            .collect::<Result<_, _>>()
    })?;
    let seconds = from.elapsed().as_secs_f64();

    let mut report = summary(clients, seconds);
    report.failed.idle =
        idle.iter_mut().filter_map(|stream| asker.exchange(stream, &kept).err()).count();
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The number of requests of one client.
fn share(all: usize, clients: u32, client: u32) -> usize {
    let (clients, client) = (clients as usize, client as usize);
    all / clients + usize::from(client < all % clients)
}

/// Runs one client.
fn ask(asker: &mut Asker<'_>, prepared: &Prepared, keep: bool, until: Until) -> Findings {
    let mut findings = Findings::default();
    let mut failures = 0;
    let mut kept = None;
    let mut made = 0;
    while failures < MAX_FAILURES {
        let begin = Instant::now();
        let counts = match until {
            Until::Made(all) if made == all => break,
            Until::Time { end, .. } if begin >= end => break,
            Until::Made(_) => true,
            Until::Time { from, .. } => begin >= from,
        };
        made += 1;
        match once(asker, prepared, &mut kept) {
            Ok(()) if counts => findings.times.push(begin.elapsed()),
            Ok(()) => {}
            Err(failure) => {
                failures += 1;
                kept = None;
                findings.failed.add(&failure);
            }
        }
        if !keep {
            kept = None;
        }
    }
    findings.headers = asker.headers().map(str::to_owned);
    findings
}

/// Runs one client of an open loop. The time of a request begins when it is due.
fn ask_when_due(
    asker: &mut Asker<'_>,
    prepared: &Prepared,
    keep: bool,
    schedule: &Schedule,
) -> Findings {
    let mut findings = Findings::default();
    let mut kept = None;
    loop {
        let due = schedule.next();
        let Until::Time { from, end } = schedule.until else { break };
        if due >= end {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let outcome = once(asker, prepared, &mut kept);
        let counts = due >= from;
        match outcome {
            Ok(()) if counts => findings.times.push(due.elapsed()),
            Err(Failure::Refused) if counts => findings.refused.push(due.elapsed()),
            Ok(()) | Err(Failure::Refused) => {}
            Err(failure) => findings.failed.add(&failure),
        }
        if !keep {
            kept = None;
        }
    }
    findings.headers = asker.headers().map(str::to_owned);
    findings
}

/// Sends one request, over the keep-alive connection if there is one, and keeps the connection.
fn once(
    asker: &mut Asker<'_>,
    prepared: &Prepared,
    kept: &mut Option<Stream>,
) -> Result<(), Failure> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => asker.connect()?,
    };
    asker.exchange(&mut stream, prepared)?;
    *kept = Some(stream);
    Ok(())
}

/// Opens a keep-alive connection by one request.
fn opened(asker: &mut Asker<'_>, kept: &Prepared) -> Result<Stream, Failure> {
    let mut stream = asker.connect()?;
    asker.exchange(&mut stream, kept)?;
    Ok(stream)
}

impl Failed {
    fn add(&mut self, failure: &Failure) {
        *match failure {
            Failure::Connection(_) => &mut self.connection,
            Failure::Framing => &mut self.framing,
            Failure::Status | Failure::Refused => &mut self.status,
            Failure::Body => &mut self.body,
        } += 1;
    }
}

/// The report on all clients after `seconds`.
#[expect(clippy::cast_precision_loss, reason = "a count of requests")]
fn summary(clients: Vec<Findings>, seconds: f64) -> Report {
    let mut report = Report { seconds, ..Report::default() };
    let (mut times, mut refused) = (Vec::new(), Vec::new());
    for client in clients {
        times.extend(client.times);
        refused.extend(client.refused);
        report.headers = report.headers.or(client.headers);
        report.failed.connection += client.failed.connection;
        report.failed.framing += client.failed.framing;
        report.failed.status += client.failed.status;
        report.failed.body += client.failed.body;
    }
    times.sort_unstable();
    report.requests = times.len();
    report.rate = if seconds > 0.0 { times.len() as f64 / seconds } else { 0.0 };
    report.p50 = percentile(&times, 50);
    report.p99 = percentile(&times, 99);
    refused.sort_unstable();
    report.refused = refused.len();
    report.refused_p99 = percentile(&refused, 99);
    report
}

/// A percentile of the sorted `times` in microseconds; 0 if there are none.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{text}` is not a number of seconds"))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}
