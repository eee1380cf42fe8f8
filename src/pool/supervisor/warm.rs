//! What is different about a warm pool: it appears when it can serve, and ends by itself.

use std::time::{Duration, Instant};

use link::entry::{Code, Entry};

use super::{
    Supervisor,
    phase::{Event, Phase},
};
use crate::pool::listen::Listener;

/// When somebody was last served.
#[derive(Debug)]
pub(super) struct Activity {
    /// How long nobody has to be until the pool ends; `None` if it never does.
    limit: Option<Duration>,
    last: Instant,
}

impl Activity {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, last: Instant::now() }
    }

    /// Is this a pool that ends by itself?
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Somebody is being served, or was a moment ago.
    pub(super) fn note(&mut self) {
        self.last = Instant::now();
    }

    /// When the pool ends if nobody comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.last.checked_add(self.limit?)
    }
}

impl Supervisor<'_> {
    /// Ends the pool if nobody has needed it for long enough.
    pub(super) fn end_if_idle(&mut self) {
        if self.phase.is_ending() || self.activity.due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        let lines = (0..self.scoreboard.lines()).filter_map(|number| self.scoreboard.line(number)?.read());
        let served = lines.filter(|line| line.pid != 0 && line.served > 0);
        // How long ago the last request was over.
        let ago = served.map(|line| if line.busy { Duration::ZERO } else { line.lasts() }).min();
        if let Some(last) = ago.and_then(|ago| Instant::now().checked_sub(ago)) {
            self.activity.last = self.activity.last.max(last);
        }
        if self.activity.due().is_some_and(|due| Instant::now() >= due) {
            self.happened(Event::Stop);
        }
    }

    /// What a change of the code, or a failure to load it, comes to: a pool that requests start is not kept.
    pub(super) fn renewal(&self) -> Event {
        if self.activity.is_limited() { Event::Stop } else { Event::Reload }
    }

    /// The pool can serve: whoever looks for it finds it.
    pub(super) fn publish(&mut self) {
        let failures: Vec<_> = self.listeners.iter_mut().filter_map(|listener| listener.publish().err()).collect();
        for error in failures {
            self.log(
                &Entry::error(Code::NoWarmPool, format!("{error:#}"))
                    .hint("take away what stands there; requests are served cold meanwhile"),
            );
            self.phase = Phase::Failed;
        }
    }

    /// The pool ends: nobody is to look for it here any more.
    pub(super) fn withdraw(&mut self) {
        if self.activity.is_limited() {
            self.listeners.iter_mut().for_each(Listener::withdraw);
        }
    }
}
