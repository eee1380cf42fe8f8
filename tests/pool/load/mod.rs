//! A pool under load: responses while code is reloaded, workers are killed, connections hang and
//! bytes are noise.
//!
//! These tests keep the whole machine busy, so they run one at a time: each takes its [`turn`]
//! first.

mod hanging;
mod kills;
mod million;
mod noise;
mod reloads;
mod upgrades;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{
        JoinHandle, {self},
    },
};

use crate::support::{
    fastcgi_client::{FastcgiConnection, FastcgiRequest, FastcgiResponse},
    pool::Pool,
    web_servers::eventually,
};

/// Keeps other tests of this room waiting until the guard is dropped.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request and its outcome.
struct Attempt {
    /// The clock of the test when the request began.
    began: u64,
    /// The body that it had.
    body: String,
    /// The worker that had answered on this connection before. None if the connection is new.
    worker: Option<i32>,
    outcome: Result<FastcgiResponse, NoResponse>,
}

/// A request without an answer.
#[derive(Debug)]
enum NoResponse {
    /// The connection was closed without a word.
    Closed,
    /// The connection was closed during the response, or another error occurred.
    Cut(#[expect(dead_code, reason = "shown where it is wrong")] io::Error),
}

/// Clients that ask again and again, each for itself. Every other one keeps its connection as long
/// as it can.
struct Clients {
    over: Arc<AtomicBool>,
    running: Vec<LoadClient>,
    /// Closed when none of them runs any more. Nothing is ever sent.
    all_ended: Receiver<()>,
}

struct LoadClient {
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), String>>,
}

impl Clients {
    /// Starts `count` clients. Each reads `clock` before a request, and ends when `judge` finds a
    /// fault in the outcome.
    fn start(
        pool: &Pool,
        count: usize,
        clock: impl Fn() -> u64 + Clone + Send + 'static,
        judge: impl Fn(&Attempt) -> Result<(), String> + Clone + Send + 'static,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (alive, all_ended) = channel();
        let begin = |number| {
            let answered = Arc::new(AtomicU64::new(0));
            let (over, counted, alive) = (over.clone(), answered.clone(), alive.clone());
            let (socket, clock, judge) = (pool.socket(), clock.clone(), judge.clone());
            let thread = thread::spawn(move || {
                ask_on(number, &socket, &over, &counted, &clock, &judge, alive)
            });
            LoadClient { answered, thread }
        };
        let running = (0..count).map(begin).collect();
        Self { over, running, all_ended }
    }

    /// Waits until each of them has had so many more answers, or one has ended.
    #[track_caller]
    fn each_answered(&self, more: u64) {
        let answered = |client: &LoadClient| client.answered.load(Ordering::Relaxed);
        let enough: Vec<u64> = self.running.iter().map(|client| answered(client) + more).collect();
        eventually(&format!("{more} more requests of each client are answered"), || {
            self.running.iter().any(|client| client.thread.is_finished())
                || self
                    .running
                    .iter()
                    .zip(&enough)
                    .all(|(client, enough)| answered(client) >= *enough)
        });
    }

    /// Ends them all, and gives the number of their answers. Fails if one has found something
    /// wrong.
    #[track_caller]
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let mut total = 0;
        for (number, client) in self.running.into_iter().enumerate() {
            client
                .thread
                .join()
                .unwrap()
                .unwrap_or_else(|wrong| panic!("client {number}: {wrong}"));
            total += client.answered.load(Ordering::Relaxed);
        }
        total
    }
}

fn ask_on(
    number: usize,
    socket: &Path,
    over: &AtomicBool,
    answered: &AtomicU64,
    clock: &impl Fn() -> u64,
    judge: &impl Fn(&Attempt) -> Result<(), String>,
    _alive: Sender<()>,
) -> Result<(), String> {
    let keeps = number % 2 == 1;
    let mut kept: Option<(FastcgiConnection, i32)> = None;
    let mut requests = 0_u64;
    while !over.load(Ordering::Relaxed) {
        requests += 1;
        let body = format!("request {requests} of client {number}");
        let request = FastcgiRequest::post("/", body.as_str());
        let request = if keeps { request.keep() } else { request };
        let began = clock();
        let (mut connection, worker) = match kept.take() {
            Some((connection, worker)) => (connection, Some(worker)),
            None => (FastcgiConnection::unix(socket), None),
        };
        // A request that could not be sent gets no response.
        let sent = connection.try_send(&request.bytes());
        let outcome = match connection.try_response() {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(NoResponse::Closed),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(NoResponse::Closed),
            Err(error) => Err(NoResponse::Cut(error)),
        };
        let asked = Attempt { began, body, worker, outcome };
        judge(&asked).map_err(|wrong| format!("request {requests}, sent: {sent:?}: {wrong}"))?;
        if let Ok(response) = asked.outcome {
            answered.fetch_add(1, Ordering::Relaxed);
            kept = keeps.then(|| (connection, response.pid()));
        }
    }
    Ok(())
}

/// The fault of a response that should be `expected`.
fn compare(response: &FastcgiResponse, expected: &str) -> Result<(), String> {
    let text = response.text();
    if text == expected { Ok(()) } else { Err(format!("`{text}` in place of `{expected}`")) }
}
