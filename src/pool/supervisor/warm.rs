//! What is different about a warm pool: it appears when it can serve, and ends by itself.

use std::{
    fs,
    io::{
        Write as _, {self},
    },
    os::fd::AsFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::{FlockOperation, flock},
    process::getpid,
};
use wire::running_clock;

use crate::{
    config::warm_pool::ONE_PROCESS,
    pool::{
        listeners::Listener,
        supervisor::{
            Supervisor,
            phase::{Event, Phase},
        },
    },
};

/// Processes that end in a row before they take a request, after which a pool gives up.
const STILLBORN: u32 = 3;

/// A pool that requests start, and that ends by itself.
#[derive(Clone, Debug)]
pub(in crate::pool) struct OnDemand {
    /// How long nobody has to be served until it ends.
    pub(in crate::pool) idle: Duration,
    /// How long it may live in any case, if that is limited.
    pub(in crate::pool) age: Option<Duration>,
    /// The path of its lock file, which is its standard input.
    pub(in crate::pool) lock: PathBuf,
}

/// When somebody was last served.
#[derive(Debug)]
pub(super) struct Activity {
    /// `None` if the pool never ends by itself.
    on_demand: Option<OnDemand>,
    begun: Instant,
    last: Instant,
}

impl Activity {
    pub(super) fn new(on_demand: Option<OnDemand>) -> Self {
        Self { on_demand, begun: running_clock::instant(), last: running_clock::instant() }
    }

    /// Is this a pool that ends by itself?
    pub(super) fn is_limited(&self) -> bool {
        self.on_demand.is_some()
    }

    /// How long the pool has been there.
    pub(super) fn age(&self) -> Duration {
        running_clock::elapsed(self.begun)
    }

    /// Somebody is being served, or was a moment ago.
    pub(super) fn note(&mut self) {
        self.last = running_clock::instant();
    }

    /// When the pool ends if nobody comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.idle_due().into_iter().chain(self.age_due()).min()
    }

    fn idle_due(&self) -> Option<Instant> {
        self.last.checked_add(self.on_demand.as_ref()?.idle)
    }

    /// When it ends in any case.
    fn age_due(&self) -> Option<Instant> {
        self.begun.checked_add(self.on_demand.as_ref()?.age?)
    }
}

fn is_over(due: Option<Instant>) -> bool {
    due.is_some_and(|due| running_clock::instant() >= due)
}

impl Supervisor<'_> {
    /// Ends the pool if nobody has needed it for long enough, or if it is as old as it may become.
    pub(super) fn end_if_idle_or_old(&mut self) {
        if self.phase.is_ending() || !is_over(self.activity.due()) {
            return;
        }
        if is_over(self.activity.age_due()) {
            let seconds = running_clock::elapsed(self.activity.begun).as_secs();
            self.log(&LogMessage::notice(
                Code::WarmPoolOld,
                format!("the warm pool is {seconds} s old; the next request has another started"),
            ));
            return self.happened(Event::Stop);
        }
        let lines =
            (0..self.scoreboard.lines()).filter_map(|number| self.scoreboard.line(number)?.read());
        let served = lines.filter(|line| line.pid != 0 && line.served > 0);
        // How long ago the last request was over.
        let ago = served.map(|line| if line.busy { Duration::ZERO } else { line.elapsed() }).min();
        if let Some(last) = ago.and_then(|ago| running_clock::instant().checked_sub(ago)) {
            self.activity.last = self.activity.last.max(last);
        }
        if is_over(self.activity.idle_due()) {
            self.happened(Event::Stop);
        }
    }

    /// What a change of the code, or a failure to load it, comes to: a pool that requests start is
    /// not kept.
    pub(super) fn renewal(&self) -> Event {
        if self.activity.is_limited() { Event::Stop } else { Event::Reload }
    }

    /// The pool can serve: whoever looks for it finds it.
    pub(super) fn publish(&mut self) {
        let failures: Vec<_> =
            self.listeners.iter_mut().filter_map(|listener| listener.publish().err()).collect();
        for error in failures {
            self.log(
                &LogMessage::error(Code::NoWarmPool, format!("{error:#}"))
                    .hint("take away what stands there; requests are served cold meanwhile"),
            );
            self.phase = Phase::Failed;
        }
    }

    /// Has requests served cold, without another attempt at a pool, until the code changes or a day
    /// has passed.
    pub(super) fn forbid_warm(&self) {
        // Without the mark there are more attempts.
        let _ = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map(|lock| fs::File::from(lock).write_all(ONE_PROCESS));
    }

    /// A pool whose processes end one after the other before they take a request is no use:
    /// requests would wait for it. It makes way, and is not tried again for some time.
    pub(super) fn give_up_if_stillborn(&mut self) {
        let failures: u32 = self.places.all.iter().map(|place| place.failures).sum();
        let serves = self.places.live().next().is_some() || !self.places.leaving.is_empty();
        if !self.activity.is_limited() || self.phase.is_ending() || failures < STILLBORN || serves {
            return;
        }
        self.log(&LogMessage::notice(
            Code::PoolEnds,
            "the warm pool ends: its processes end before they take a request, or cannot be forked",
        ));
        self.listeners.iter_mut().for_each(Listener::withdraw);
        self.listeners.iter().for_each(Listener::turn_away);
        self.phase = Phase::Failed;
    }

    /// The pool ends: nobody is to look for it here any more, and another may begin in its place
    /// while it finishes its requests.
    pub(super) fn withdraw(&mut self) {
        let Some(on_demand) = &self.activity.on_demand else {
            return;
        };
        self.listeners.iter_mut().for_each(Listener::withdraw);
        // What is told of it is told under another name from now on.
        let family = self.terms.name.rsplit_once('-').map_or("warm", |(family, _)| family);
        let name = format!("{family}-ends-{}", getpid().as_raw_nonzero());
        if let Some(control) = &mut self.control
            && control.rename(&name).is_ok()
        {
            self.terms.name = name;
        }
        // While it is locked: whoever opens it now finds that it is not the one at this path any
        // more.
        let _ = fs::remove_file(&on_demand.lock);
        // If that failed, the next pool begins when this one has ended.
        let _ = flock(io::stdin(), FlockOperation::Unlock);
        self.listeners.iter().for_each(Listener::turn_away);
    }
}
