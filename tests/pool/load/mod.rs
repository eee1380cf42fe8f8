//! A pool under load: what clients get while releases change, workers die, connections hang and
//! bytes mean nothing.
//!
//! These tests keep the whole machine busy, so they run one at a time: each takes its [`turn`]
//! first.

mod hanging;
mod kills;
mod million;
pub(crate) mod noise;
mod reloads;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
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
    fastcgi_client::{Answer, Ask, Wire},
    pool::Pool,
    web_servers::eventually,
};

/// Holds the others back until it is dropped.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that a printed seed brings back (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// The seed is that of the variable `WSGATE_TEST_SEED`, or another at each run. It is shown if
    /// the test fails.
    #[expect(clippy::print_stdout, reason = "the harness shows it beside the failure")]
    pub(crate) fn new() -> Self {
        let given = env::var("WSGATE_TEST_SEED")
            .ok()
            .map(|seed| seed.parse().expect("WSGATE_TEST_SEED: a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one("seed"));
        println!("WSGATE_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// What came of a request.
struct Asked {
    /// What stood on the clock of the test when it began.
    began: u64,
    /// The body that it had.
    body: String,
    /// The worker that had answered on this connection before. None if the connection is new.
    worker: Option<i32>,
    outcome: Result<Answer, Lost>,
}

/// A request without an answer.
#[derive(Debug)]
enum Lost {
    /// The connection was closed without a word.
    Closed,
    /// It was closed amid the answer, or something else went wrong.
    Cut(#[expect(dead_code, reason = "shown where it is wrong")] io::Error),
}

/// Clients that ask again and again, each for itself. Every other one keeps its connection as long
/// as it can.
struct Clients {
    over: Arc<AtomicBool>,
    running: Vec<Client>,
    /// Closed when none of them runs any more. Nothing is ever sent.
    all_ended: Receiver<()>,
}

struct Client {
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), String>>,
}

impl Clients {
    /// So many of them. `clock` is read before each request, and `judge` says what is wrong with
    /// what came of it, if anything is: then its client ends.
    fn start(
        pool: &Pool,
        count: usize,
        clock: impl Fn() -> u64 + Clone + Send + 'static,
        judge: impl Fn(&Asked) -> Result<(), String> + Clone + Send + 'static,
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
            Client { answered, thread }
        };
        let running = (0..count).map(begin).collect();
        Self { over, running, all_ended }
    }

    /// Waits until each of them has had so many more answers, or one has ended.
    #[track_caller]
    fn each_answered(&self, more: u64) {
        let answered = |client: &Client| client.answered.load(Ordering::Relaxed);
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
    judge: &impl Fn(&Asked) -> Result<(), String>,
    _alive: Sender<()>,
) -> Result<(), String> {
    let keeps = number % 2 == 1;
    let mut kept: Option<(Wire, i32)> = None;
    let mut requests = 0_u64;
    while !over.load(Ordering::Relaxed) {
        requests += 1;
        let body = format!("request {requests} of client {number}");
        let ask = Ask::post("/", body.as_str());
        let ask = if keeps { ask.keep() } else { ask };
        let began = clock();
        let (mut wire, worker) = match kept.take() {
            Some((wire, worker)) => (wire, Some(worker)),
            None => (Wire::unix(socket), None),
        };
        // What could not be sent is not answered either.
        let sent = wire.try_send(&ask.bytes());
        let outcome = match wire.try_answer() {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Lost::Closed),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(Lost::Closed),
            Err(error) => Err(Lost::Cut(error)),
        };
        let asked = Asked { began, body, worker, outcome };
        judge(&asked).map_err(|wrong| format!("request {requests}, sent: {sent:?}: {wrong}"))?;
        if let Ok(answer) = asked.outcome {
            answered.fetch_add(1, Ordering::Relaxed);
            kept = keeps.then(|| (wire, answer.pid()));
        }
    }
    Ok(())
}

/// What is wrong with an answer that should be `expected`.
fn compare(answer: &Answer, expected: &str) -> Result<(), String> {
    let text = answer.text();
    if text == expected { Ok(()) } else { Err(format!("`{text}` in place of `{expected}`")) }
}
