//! Phases of a pool, and what may bring it from one to another. The table below decides that, and
//! nothing else does.

/// Where a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The application is being loaded for the first time.
    Starting,
    /// Workers serve, or would if there were work for them.
    Serving,
    /// As `Serving`, while new code is being loaded.
    Reloading,
    /// Workers finish their requests, and no others come.
    Finishing,
    /// Workers are ended amid their requests.
    Terminating,
    /// All processes have ended, as they were told to.
    Ended,
    /// The application could not be loaded for the first time.
    Failed,
}

/// What happens to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is to change to new code: HUP, or a word on the control socket.
    Reload,
    /// It is to end: a word on the control socket, whose sender waits.
    Stop,
    /// It is to end, and at once if it was told before: TERM or INT.
    Signal,
    /// The template that was being loaded is ready.
    Loaded,
    /// The template that was being loaded cannot become ready.
    NotLoaded,
    /// The template that workers are forked from has ended, and they with it.
    Died,
    /// No process of Python is left.
    Empty,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Start a template; one that is being loaded is given up.
    Load,
    /// New workers come from the template that is ready now.
    TakeOver,
    /// The old code goes on, and whoever asked for the new is told.
    KeepOld,
    /// Start another template, after a pause, when a worker is wanted.
    LoadAgain,
    /// Tell whoever waits that there is no code at all.
    GiveUp,
    /// Tell all workers to end.
    Finish,
    /// End all processes.
    Kill,
}

impl Phase {
    /// The phase after `event`, and what is to be done.
    pub(super) fn after(self, event: Event) -> (Self, Step) {
        use Event::{Died, Empty, Loaded, NotLoaded, Reload, Signal, Stop};
        use Phase::{Ended, Failed, Finishing, Reloading, Serving, Starting, Terminating};
        match (self, event) {
            (Starting, Reload) => (Starting, Step::Load),
            (Starting, Loaded) => (Serving, Step::TakeOver),
            (Starting, NotLoaded) => (Failed, Step::GiveUp),

            (Serving, Reload) => (Reloading, Step::Load),
            // After the death of the template before, or after a rest.
            (Serving, Loaded) => (Serving, Step::TakeOver),
            (Serving, NotLoaded | Died) => (Serving, Step::LoadAgain),

            (Reloading, Reload) => (Reloading, Step::Load),
            (Reloading, Loaded) => (Serving, Step::TakeOver),
            (Reloading, NotLoaded) => (Serving, Step::KeepOld),
            // The one that is being loaded takes over, or else another is.
            (Reloading, Died) => (Reloading, Step::LoadAgain),

            (Starting | Serving | Reloading, Stop | Signal) => (Finishing, Step::Finish),

            // Told twice: whoever does that will not wait. Whoever asks on the control socket does.
            (Finishing | Terminating, Signal) => (Terminating, Step::Kill),
            (Finishing | Terminating, Empty) => (Ended, Step::Nothing),

            (Starting, Died)
            | (Starting | Serving | Reloading, Empty)
            | (Finishing | Terminating, Reload | Stop | Loaded | NotLoaded | Died)
            | (Ended | Failed, _) => (self, Step::Nothing),
        }
    }

    /// May workers and templates be started?
    pub(super) fn may_fork(self) -> bool {
        matches!(self, Self::Serving | Self::Reloading)
    }

    /// Was the pool asked to stop?
    pub(super) fn is_ending(self) -> bool {
        matches!(self, Self::Finishing | Self::Terminating | Self::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event::*, Phase::*, Step::*, *};

    const PHASES: [Phase; 7] =
        [Starting, Serving, Reloading, Finishing, Terminating, Ended, Failed];
    const EVENTS: [Event; 7] = [Reload, Stop, Signal, Loaded, NotLoaded, Died, Empty];

    /// Every pair: a row for each phase, a column for each event in the order of [`EVENTS`].
    const TABLE: [[(Phase, Step); 7]; 7] = [
        [
            (Starting, Load),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, TakeOver),
            (Failed, GiveUp),
            (Starting, Nothing),
            (Starting, Nothing),
        ],
        [
            (Reloading, Load),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, TakeOver),
            (Serving, LoadAgain),
            (Serving, LoadAgain),
            (Serving, Nothing),
        ],
        [
            (Reloading, Load),
            (Finishing, Finish),
            (Finishing, Finish),
            (Serving, TakeOver),
            (Serving, KeepOld),
            (Reloading, LoadAgain),
            (Reloading, Nothing),
        ],
        [
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Terminating, Kill),
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Finishing, Nothing),
            (Ended, Nothing),
        ],
        [
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Terminating, Kill),
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Terminating, Nothing),
            (Ended, Nothing),
        ],
        [(Ended, Nothing); 7],
        [(Failed, Nothing); 7],
    ];

    #[test]
    fn every_event_in_every_phase_does_what_the_table_says() {
        for (phase, row) in PHASES.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(phase.after(event), expected, "{event:?} while {phase:?}");
            }
        }
    }

    #[test]
    fn an_end_that_was_begun_is_never_taken_back() {
        let rank = |phase| PHASES.iter().position(|known| *known == phase).unwrap();
        for phase in [Finishing, Terminating, Ended] {
            for event in EVENTS {
                let (next, step) = phase.after(event);
                assert!(
                    rank(next) >= rank(phase) && matches!(step, Nothing | Kill),
                    "{event:?} while {phase:?}"
                );
                assert!(!next.may_fork());
            }
        }
    }
}
