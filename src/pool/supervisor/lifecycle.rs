//! Lifecycle of a pool: its phases, the events that change them, and the reactions to events.

/// Phase of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The application is being loaded for the first time.
    Starting,
    /// Workers serve, or are started when requests arrive.
    Serving,
    /// Workers serve while new code is being loaded.
    Reloading,
    /// Workers finish their requests, and no new worker is started.
    Finishing,
    /// Processes are killed without waiting for their requests.
    Terminating,
    /// All processes have exited, as requested.
    Ended,
    /// The pool cannot serve at all.
    Failed,
}

/// Event in the life of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A reload was requested: by SIGHUP, the control socket or a changed file.
    Reload,
    /// A stop was requested on the control socket, or a warm pool has reached a limit.
    Stop,
    /// A signal asks the pool to stop, and to stop at once if it is stopping already.
    Signal,
    /// The next template is ready.
    Loaded,
    /// The next template cannot load the code.
    NotLoaded,
    /// The current template has died, and its workers with it.
    Died,
    /// No Python process is left.
    Empty,
    /// The pool cannot be reached, or none of its workers starts.
    CannotServe,
}

/// The supervisor's reaction to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Nothing.
    Nothing,
    /// Load the code in a new template; give up one that is still loading.
    Load,
    /// The same, for a reload, which is announced.
    Reload,
    /// Fork workers from the template that is ready now.
    Serve,
    /// The same, at the end of a reload.
    CompleteReload,
    /// Keep the old code, and report the failed reload.
    KeepOld,
    /// Try again later: the code could not be loaded.
    RetryLoading,
    /// Start another template later: the last one has died.
    ReplaceTemplate,
    /// Report to waiting clients that there is no code.
    GiveUp,
    /// Ask all workers to stop.
    Finish,
    /// Kill all processes.
    Kill,
    /// Close the listening sockets.
    CloseSockets,
}

/// Phase of a pool, which only an event changes.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: Phase,
}

impl Lifecycle {
    /// The life of a pool that is starting.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Starting }
    }

    /// The life of a pool that another program has started, and whose code this program loads.
    pub(super) fn after_upgrade() -> Self {
        Self { phase: Phase::Reloading }
    }

    /// The current phase.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Enters the phase that follows on `event`. Returns what the supervisor has to do.
    pub(super) fn on_event(&mut self, event: Event) -> Reaction {
        let (phase, reaction) = self.phase.after(event);
        self.phase = phase;
        reaction
    }
}

impl Phase {
    /// May workers and templates be started?
    pub(super) fn may_fork(self) -> bool {
        matches!(self, Self::Serving | Self::Reloading)
    }

    /// Is the pool stopping, or has it ended?
    pub(super) fn is_stopping(self) -> bool {
        matches!(self, Self::Finishing | Self::Terminating | Self::Ended)
    }

    /// Has the application been loaded at least once?
    pub(super) fn has_served(self) -> bool {
        !matches!(self, Self::Starting | Self::Failed)
    }

    /// The table of all transitions.
    fn after(self, event: Event) -> (Self, Reaction) {
        use Event::{CannotServe, Died, Empty, Loaded, NotLoaded, Reload, Signal, Stop};
        use Phase::{Ended, Failed, Finishing, Reloading, Serving, Starting, Terminating};
        match (self, event) {
            (Starting, Reload) => (Starting, Reaction::Load),
            (Starting, Loaded) => (Serving, Reaction::Serve),
            (Starting, NotLoaded) => (Failed, Reaction::GiveUp),

            (Serving, Reload) => (Reloading, Reaction::Reload),
            // After the death of the previous template, or after a rest.
            (Serving, Loaded) => (Serving, Reaction::Serve),
            (Serving, NotLoaded) => (Serving, Reaction::RetryLoading),
            (Serving, Died) => (Serving, Reaction::ReplaceTemplate),

            (Reloading, Reload) => (Reloading, Reaction::Reload),
            (Reloading, Loaded) => (Serving, Reaction::CompleteReload),
            (Reloading, NotLoaded) => (Serving, Reaction::KeepOld),
            // The template that is loading replaces the dead one, or else another does.
            (Reloading, Died) => (Reloading, Reaction::ReplaceTemplate),

            (Starting | Serving | Reloading, Stop | Signal) => (Finishing, Reaction::Finish),
            (Starting | Serving | Reloading, CannotServe) => (Failed, Reaction::CloseSockets),

            // The second signal means: do not wait. A second client on the control socket waits.
            (Finishing | Terminating, Signal) => (Terminating, Reaction::Kill),
            (Finishing | Terminating, Empty) => (Ended, Reaction::Nothing),

            (Starting, Died)
            | (Starting | Serving | Reloading, Empty)
            | (Finishing | Terminating, Reload | Stop | Loaded | NotLoaded | Died | CannotServe)
            | (Ended | Failed, _) => (self, Reaction::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Event::{CannotServe, Died, Empty, Loaded, NotLoaded, Signal, Stop},
        Phase::*,
        Reaction::{
            CloseSockets, CompleteReload, Finish, GiveUp, KeepOld, Kill, Load, Nothing,
            ReplaceTemplate, RetryLoading, Serve,
        },
        *,
    };

    const PHASES: [Phase; 7] =
        [Starting, Serving, Reloading, Finishing, Terminating, Ended, Failed];
    const EVENTS: [Event; 8] =
        [Event::Reload, Stop, Signal, Loaded, NotLoaded, Died, Empty, CannotServe];

    /// Every pair: a row for each phase, a column for each event in the order of [`EVENTS`].
    const TABLE: [[(Phase, Reaction); 8]; 7] = [
        [
            (Starting, Load),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, Serve),
            (Failed, GiveUp),
            (Starting, Nothing),
            (Starting, Nothing),
            (Failed, CloseSockets),
        ],
        [
            (Reloading, Reaction::Reload),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, Serve),
            (Serving, RetryLoading),
            (Serving, ReplaceTemplate),
            (Serving, Nothing),
            (Failed, CloseSockets),
        ],
        [
            (Reloading, Reaction::Reload),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, CompleteReload),
            (Serving, KeepOld),
            (Reloading, ReplaceTemplate),
            (Reloading, Nothing),
            (Failed, CloseSockets),
        ],
        [
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Terminating, Kill),
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Ended, Nothing),
            (Finishing, Nothing),
        ],
        [
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Terminating, Kill),
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Ended, Nothing),
            (Terminating, Nothing),
        ],
        [(Ended, Nothing); 8],
        [(Failed, Nothing); 8],
    ];

    #[test]
    fn every_event_in_every_phase_does_what_the_table_says() {
        for (phase, row) in PHASES.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let mut lifecycle = Lifecycle { phase };
                let reaction = lifecycle.on_event(event);
                assert_eq!((lifecycle.phase(), reaction), expected, "{event:?} while {phase:?}");
            }
        }
    }

    #[test]
    fn an_end_that_was_begun_is_never_taken_back() {
        let rank = |phase| PHASES.iter().position(|known| *known == phase).unwrap();
        for phase in [Finishing, Terminating, Ended] {
            for event in EVENTS {
                let mut lifecycle = Lifecycle { phase };
                let reaction = lifecycle.on_event(event);
                assert!(
                    rank(lifecycle.phase()) >= rank(phase) && matches!(reaction, Nothing | Kill),
                    "{event:?} while {phase:?}"
                );
                assert!(!lifecycle.phase().may_fork());
            }
        }
    }

    #[test]
    fn a_pool_that_cannot_serve_has_failed_unless_it_is_stopping() {
        for phase in PHASES {
            let mut lifecycle = Lifecycle { phase };
            lifecycle.on_event(CannotServe);
            let expected = if phase.is_stopping() { phase } else { Failed };
            assert_eq!(lifecycle.phase(), expected);
        }
    }
}
