//! Asks a FastCGI server for the same thing again and again, and tells how fast it answered: `load
//! --help`.
//!
//! It is started beside the server it measures and takes processor time away from it. So a request
//! is prepared once, a thread with a connection of its own does nothing but write it and read the
//! response, and a response of the very bytes of the last one is not read any closer. A response
//! that is not what it must be is a failure, and no speed.

#![expect(clippy::print_stdout, reason = "its result")]

mod exchange;
mod request;

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use serde::Serialize;

use exchange::{Address, Asker, Expected, Failure, Stream};
use request::Prepared;

/// Failures of one connection after which it is of no use to go on.
const TOO_MANY: usize = 100;

/// Loads a FastCGI server, and prints what came of it as JSON
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Words {
    /// The server: unix:PATH or HOST:PORT
    address: Address,

    /// Clients that ask at the same time, each over a connection of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Requests of all clients together
    #[arg(long, value_name = "N", required_unless_present = "seconds", conflicts_with = "seconds")]
    requests: Option<usize>,

    /// Seconds that they ask for
    #[arg(long, value_name = "S", value_parser = duration)]
    seconds: Option<Duration>,

    /// Seconds before that in which they ask and nothing is counted
    #[arg(long, value_name = "S", value_parser = duration, default_value = "0", conflicts_with = "requests")]
    warm_up: Duration,

    /// Keep connections; otherwise each request has one of its own
    #[arg(long)]
    keep: bool,

    /// Kept connections to hold open besides; each makes one request before and one after the
    /// others
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: usize,

    /// What is asked for
    #[arg(long, value_name = "PATH", default_value = "/hello")]
    path: String,

    /// Bytes to send, by POST
    #[arg(long, value_name = "N")]
    post: Option<usize>,

    /// The status that replies must have
    #[arg(long, value_name = "STATUS", default_value = "200 OK")]
    status: String,

    /// The file that holds the body that replies must have
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
}

/// What came of it. Failures are in no other figure.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Right replies.
    requests: usize,
    seconds: f64,
    /// Right replies a second.
    rate: f64,
    /// Half of all requests took no longer, in microseconds.
    p50: f64,
    /// Of a hundred requests 99 took no longer, in microseconds.
    p99: f64,
    /// The first right response's fields, as they came.
    head: Option<String>,
    failed: Failed,
}

/// Requests that failed, by what was wrong.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Failed {
    /// No connection, or one that ended too early.
    connection: usize,
    /// The response was not FastCGI, or FastCGI that reports a failure.
    framing: usize,
    status: usize,
    body: usize,
    /// Idle connections that were of no use afterwards.
    idle: usize,
}

/// What one client found.
#[derive(Debug, Default)]
struct Findings {
    /// How long each right response took.
    times: Vec<Duration>,
    failed: Failed,
    head: Option<String>,
}

/// When a client stops.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// So many requests have been made.
    Made(usize),
    /// It is so late; requests begun before `from` do not count.
    Time { from: Instant, end: Instant },
}

fn main() -> Result<(), Box<dyn Error>> {
    let words = Words::parse();
    let prepared = Prepared::new(&words.path, words.post, words.keep)?;
    let kept = Prepared::new(&words.path, words.post, true)?;
    let expected = Expected { status: words.status.clone(), body: fs::read(&words.body)? };
    let mut asker = Asker::new(&words.address, &expected);
    let mut idle = (0..words.idle)
        .map(|_| opened(&mut asker, &kept))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|failure| format!("an idle connection failed: {failure:?}"))?;

    let begin = Instant::now();
    let from = begin + words.warm_up;
    let clients: Vec<Findings> = thread::scope(|scope| {
        let threads: Vec<_> = (0..words.connections)
            .map(|client| {
                let until = match words.seconds {
                    Some(seconds) => Until::Time { from, end: from + seconds },
                    None => {
                        Until::Made(share(words.requests.unwrap_or(0), words.connections, client))
                    }
                };
                let mut asker = Asker::new(&words.address, &expected);
                let prepared = &prepared;
                let keep = words.keep;
                scope.spawn(move || ask(&mut asker, prepared, keep, until))
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

/// Part of one client in `all` requests.
fn share(all: usize, clients: u32, client: u32) -> usize {
    let (clients, client) = (clients as usize, client as usize);
    all / clients + usize::from(client < all % clients)
}

/// One client's work.
fn ask(asker: &mut Asker<'_>, prepared: &Prepared, keep: bool, until: Until) -> Findings {
    let mut findings = Findings::default();
    let mut failures = 0;
    let mut kept = None;
    let mut made = 0;
    while failures < TOO_MANY {
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
    findings.head = asker.head().map(str::to_owned);
    findings
}

/// One request, over the keep-alive connection if there is one. The connection is kept.
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

/// A connection that has served a request and is kept.
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
            Failure::Status => &mut self.status,
            Failure::Body => &mut self.body,
        } += 1;
    }
}

/// What all clients found in `seconds`.
#[expect(clippy::cast_precision_loss, reason = "a count of requests")]
fn summary(clients: Vec<Findings>, seconds: f64) -> Report {
    let mut report = Report { seconds, ..Report::default() };
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.times);
        report.head = report.head.or(client.head);
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
    report
}

/// The time in microseconds that `percent` of the sorted `times` do not exceed; 0 if there are
/// none.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100);
    times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

fn duration(word: &str) -> Result<Duration, String> {
    word.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{word}` is no number of seconds"))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}
