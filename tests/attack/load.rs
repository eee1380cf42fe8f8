//! Others: clients that ask all the time while something is attacked, each of whose responses must
//! be its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{
        JoinHandle, {self},
    },
    time::{Duration, Instant},
};

use crate::{
    attack::{
        BOUND,
        outcome::{Outcome, connect, over},
        target::{Target, lock, pause},
    },
    support::fastcgi_client::{FastcgiConnection, FastcgiRequest},
};

/// The outcomes of the clients' requests.
#[derive(Default)]
pub(super) struct Tally {
    /// Answered with the right response.
    pub(super) answered: AtomicU64,
    /// Begun, and cut or answered with an error page.
    pub(super) lost: AtomicU64,
    /// Nobody listened.
    pub(super) refused: AtomicU64,
    /// The longest time that one took, in milliseconds.
    pub(super) slowest: AtomicU64,
    /// How requests were lost, the first of them.
    pub(super) how: Mutex<Vec<String>>,
    /// Outcomes that are never allowed.
    pub(super) wrong: Mutex<Vec<String>>,
}

/// The clients.
pub(super) struct Load {
    target: Arc<Target>,
    over: Arc<AtomicBool>,
    pub(super) tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

/// Bodies and paths that no other request has.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Load {
    /// Starts `count` clients. Every other one uses a keep-alive connection.
    pub(super) fn start(target: &Arc<Target>, count: usize) -> Self {
        let (over, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let threads = (0..count)
            .map(|client| {
                let (target, over, tally) = (target.clone(), over.clone(), tally.clone());
                thread::spawn(move || {
                    let mut kept = None;
                    while !over.load(Ordering::Relaxed) {
                        tally.ask(&target, client % 2 == 1, &mut kept);
                    }
                })
            })
            .collect();
        Self { target: target.clone(), over, tally, threads }
    }

    /// Waits until so many more are answered, starting the pool again where it has ended, or until
    /// something is wrong.
    pub(super) fn await_answers(&self, target: &Target, more: u64) -> Result<(), String> {
        let (began, enough) = (Instant::now(), self.answered() + more);
        while self.answered() < enough {
            target.revive();
            if let Some(wrong) = lock(&self.tally.wrong).first() {
                return Err(wrong.clone());
            }
            if began.elapsed() > BOUND {
                return Err(format!(
                    "others were not served for {BOUND:?}; {:?}",
                    lock(&self.tally.how)
                ));
            }
            pause(Duration::from_millis(2));
        }
        Ok(())
    }

    /// How many were answered.
    pub(super) fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::Relaxed)
    }

    /// Ends them, and says what was wrong, if anything was.
    pub(super) fn end(mut self) -> Result<Arc<Tally>, String> {
        self.over.store(true, Ordering::Relaxed);
        // The last requests may wait for a pool that has to be started again.
        while !self.threads.iter().all(JoinHandle::is_finished) {
            self.target.revive();
            pause(Duration::from_millis(2));
        }
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| "a client has panicked".to_owned())?;
        }
        let wrong = lock(&self.tally.wrong).clone();
        if wrong.is_empty() { Ok(self.tally.clone()) } else { Err(wrong.join("\n")) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a failure: they hold the target.
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn ask(&self, target: &Target, keeps: bool, kept: &mut Option<FastcgiConnection>) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (path, body) = (format!("/good-{number}"), format!("token {number:x}"));
        let began = Instant::now();
        let outcome = match target.is_cgi() || !keeps {
            true => target.ask(&path, &body, BOUND),
            false => {
                let known = kept.take();
                let was_kept = known.is_some();
                match known.map_or_else(|| connect(&target.socket(), BOUND), Ok) {
                    Err(error) => Outcome::Refused(error.to_string()),
                    Ok(mut connection) => {
                        match over(
                            &mut connection,
                            &FastcgiRequest::post(&path, body.as_str()).keep(),
                            BOUND,
                        ) {
                            // Web servers do the same: they take another connection next time.
                            Outcome::Closed if was_kept => return,
                            Outcome::Closed => Outcome::Cut("closed without a word".to_owned()),
                            whole @ Outcome::Whole(_) => {
                                *kept = Some(connection);
                                whole
                            }
                            other => other,
                        }
                    }
                }
            }
        };
        let expected = format!("{path}|{body}");
        if outcome.is(&expected) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        } else if let Some(wrong) = outcome.wrong(&expected) {
            lock(&self.wrong).push(wrong);
        } else if matches!(outcome, Outcome::Refused(_)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            pause(Duration::from_millis(2));
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            let mut how = lock(&self.how);
            if how.len() < 30 {
                let text = format!("{outcome:?}");
                how.push(text.chars().take(200).collect());
            }
        }
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.slowest.fetch_max(took, Ordering::Relaxed);
    }

    /// How many were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
