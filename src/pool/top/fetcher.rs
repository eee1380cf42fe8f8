//! Asks pools in a thread of its own, so that a pool that does not answer delays no key.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::mpsc::{
        Receiver, Sender, {self},
    },
    thread,
};

use control::{all_pools, client, pool_error::PoolError, process_stacks::ProcessStacks};

use crate::pool::top::table::Snapshot;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The status of the named pool, or of all pools.
    Status(Option<String>),
    /// The stacks of a process of a pool.
    Stacks(String, i32),
}

/// An answer to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// The status of pools.
    Status(Snapshot),
    /// The stacks, or why there are none.
    Stacks(Result<Vec<ProcessStacks>, String>),
}

/// The thread that asks.
pub(super) struct Fetcher {
    questions: Sender<Question>,
    answers: Receiver<Answer>,
    /// Readable when an answer has come.
    bell: UnixStream,
}

impl Fetcher {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel refuses a thread or a socket.
    pub(super) fn start() -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        let (answering, answers) = mpsc::channel();
        let (bell, mut ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        thread::Builder::new().spawn(move || {
            for question in asked {
                if answering.send(answer(question)).is_err() || ringer.write_all(b"x").is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { questions, answers, bell })
    }

    /// Asks `question`.
    pub(super) fn ask(&self, question: Question) {
        // The thread ends only with this value.
        let _ = self.questions.send(question);
    }

    /// The next answer, if it has come.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let _ = self.bell.read(&mut [0; 1]);
        self.answers.try_recv().ok()
    }
}

impl AsFd for Fetcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Asks the pools, which may take some seconds.
pub(super) fn answer(question: Question) -> Answer {
    match question {
        Question::Status(name) => {
            let found = match name {
                Some(name) => client::named(&name).map(|pools| (pools, Vec::new())),
                None => all_pools::all(),
            };
            let (pools, failures) = found.unwrap_or_else(|error| (Vec::new(), vec![error]));
            let failures = failures.iter().map(sentence).collect();
            Answer::Status(Snapshot { pools, failures })
        }
        Question::Stacks(name, pid) => {
            let stacks = client::stacks(&name, Some(pid));
            Answer::Stacks(stacks.map_err(|error| sentence(&error)))
        }
    }
}

/// The error, and the next step.
fn sentence(error: &anyhow::Error) -> String {
    match error.downcast_ref::<PoolError>() {
        Some(error) => format!("{error}; {}", error.hint()),
        None => format!("{error:#}"),
    }
}
