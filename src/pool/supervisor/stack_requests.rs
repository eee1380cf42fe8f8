//! Owner of the requests for Python stacks: asks one process after the other, and never waits for
//! one.

use std::{
    collections::VecDeque,
    os::{fd::OwnedFd, unix::net::UnixStream},
    rc::Rc,
    time::{Duration, Instant},
};

use control::{
    pool_status::WorkerStatus,
    process_stacks::{PoolProcess, ProcessRole, ProcessStacks, StacksAnswer, StacksOutcome},
    process_state::StopCause,
};
use diagnostics::message::LogMessage;
use rustix::process::{Pid, Signal, getpid};
use wire::{running_clock, stacks_file};

use crate::{
    pool::{
        stacks_command::Shown,
        supervisor::{action::Action, workers::Workers},
    },
    system::processes::children_of,
};

/// How long a process may take to write its stacks. `docs/operate.md` and the message of the
/// command name it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the answer is looked for. The process rings no bell: its signal handler must touch no
/// other file of the pool.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Maximum number of waiting requests. Above the limit, the oldest is dropped.
const MAX_WAITING: usize = 64;

/// Requests for Python stacks.
pub(super) struct StackRequests {
    /// The file that processes write their stacks to.
    file: Rc<OwnedFd>,
    /// Who waits, each with the process id that it asks about; `None` asks for the list of
    /// processes.
    waiting: VecDeque<(Asker, Option<i32>)>,
    asked: Option<AskedProcess>,
    /// Number of the last request.
    last: u32,
}

/// Who asks for stacks.
pub(super) enum Asker {
    /// A client of the control socket.
    Command(UnixStream),
    /// The log message about a slow request of a worker.
    SlowLog(LogMessage),
}

/// The process that was asked for its stacks.
struct AskedProcess {
    asker: Asker,
    pid: i32,
    due: Instant,
}

impl StackRequests {
    /// No request yet. Processes write their stacks to `file`.
    pub(super) fn new(file: Rc<OwnedFd>) -> Self {
        Self { file, waiting: VecDeque::new(), asked: None, last: 0 }
    }

    /// Adds the request of `asker` for the stacks of the process `pid`, or for the list of
    /// processes. A message whose request is dropped is logged without stacks.
    pub(super) fn add(&mut self, asker: Asker, pid: Option<i32>) -> Option<Action> {
        let is_full = self.waiting.len() == MAX_WAITING;
        let dropped = if is_full { self.waiting.pop_front() } else { None };
        self.waiting.push_back((asker, pid));
        match dropped {
            Some((Asker::SlowLog(message), _)) => Some(Action::WriteSlow(
                message.hint("its stacks are missing: the pool has too many slow requests"),
            )),
            Some((Asker::Command(_), _)) | None => None,
        }
    }

    /// Time of the next look for an answer.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let is_waiting = self.asked.is_some() || !self.waiting.is_empty();
        is_waiting.then(|| running_clock::instant() + CHECK_INTERVAL)
    }

    /// Takes the answer of the asked process, and asks the next one.
    pub(super) fn proceed(&mut self, workers: &Workers) -> Vec<Action> {
        if self.asked.is_none() && self.waiting.is_empty() {
            return Vec::new();
        }
        let threads =
            |pid| workers.status().into_iter().filter(|thread| thread.pid == pid).collect();
        self.proceed_with(&processes(workers), threads)
    }

    /// As [`StackRequests::proceed`], for these processes of the pool. `threads` returns the
    /// threads of a worker.
    fn proceed_with(
        &mut self,
        processes: &[PoolProcess],
        threads: impl Fn(i32) -> Vec<WorkerStatus>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let find = |pid| {
            let is_known = processes.iter().any(|process| process.pid == pid);
            Pid::from_raw(pid).filter(|_| is_known)
        };
        let answer = |asker, pid, outcome, text: &[u8]| {
            let dump = String::from_utf8_lossy(text).into_owned();
            let answer = StacksAnswer { pid, outcome, threads: threads(pid), dump };
            match asker {
                // The types of an answer cannot make serialization fail.
                Asker::Command(client) => {
                    Action::Answer(client, serde_json::to_string(&answer).unwrap_or_default())
                }
                Asker::SlowLog(message) => Action::WriteSlow(with_stacks(message, answer)),
            }
        };
        if let Some(asked) = self.asked.take() {
            let text = stacks_file::answer(&self.file, self.last);
            let outcome = match &text {
                Some(_) => StacksOutcome::Complete,
                None if find(asked.pid).is_none() => StacksOutcome::NoProcess,
                None if running_clock::instant() >= asked.due => StacksOutcome::NoAnswer,
                None => {
                    self.asked = Some(asked);
                    return actions;
                }
            };
            stacks_file::withdraw(&self.file);
            actions.push(answer(asked.asker, asked.pid, outcome, &text.unwrap_or_default()));
        }
        while let Some((asker, pid)) = self.waiting.pop_front() {
            let (asker, pid) = match (asker, pid) {
                (Asker::Command(client), None) => {
                    let list = serde_json::to_string(processes).unwrap_or_default();
                    actions.push(Action::Answer(client, list));
                    continue;
                }
                (asker, pid) => (asker, pid.unwrap_or_default()),
            };
            let outcome = match find(pid) {
                None => StacksOutcome::NoProcess,
                Some(_) if StopCause::of(pid).is_some() => StacksOutcome::Stopped,
                Some(process) => {
                    // A request number is never zero, as in a file that nobody has written.
                    self.last = self.last.checked_add(1).unwrap_or(1);
                    if stacks_file::ask(&self.file, pid, self.last).is_ok() {
                        actions.push(Action::Signal(process, Signal::URG));
                        let due = running_clock::instant() + ANSWER_TIMEOUT;
                        self.asked = Some(AskedProcess { asker, pid, due });
                        return actions;
                    }
                    StacksOutcome::NoAnswer
                }
            };
            actions.push(answer(asker, pid, outcome, &[]));
        }
        actions
    }
}

/// `message` about a slow request with the stacks in `answer`, as `wsgate stacks` shows them.
fn with_stacks(message: LogMessage, answer: StacksAnswer) -> LogMessage {
    let stacks = ProcessStacks::new(ProcessRole::Worker, answer);
    message
        .detail(Shown(&stacks).to_string())
        .hint("the lines above are the stacks of the worker's threads, the innermost call first")
}

/// The Python processes of the pool, in the order in which they were started.
fn processes(workers: &Workers) -> Vec<PoolProcess> {
    let mut found = Vec::new();
    // The children of the supervisor are its templates. A worker that loads the application is
    // known to its template alone.
    for template in children_of(getpid().as_raw_nonzero().get()) {
        found.push(PoolProcess { pid: template, role: ProcessRole::Template });
        found.extend(children_of(template).into_iter().map(|pid| {
            let serves = Pid::from_raw(pid).is_some_and(|pid| workers.contains(pid));
            let role = if serves { ProcessRole::Worker } else { ProcessRole::Loading };
            PoolProcess { pid, role }
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn outcome(action: Action, mut client: UnixStream) -> (StacksOutcome, String) {
        let Action::Answer(stream, text) = action else { panic!("no answer") };
        drop(stream);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let answer: StacksAnswer = serde_json::from_str(&text).unwrap();
        (answer.outcome, answer.dump)
    }

    #[test]
    fn processes_are_asked_one_after_the_other_and_each_gets_its_answer() {
        let pid = getpid().as_raw_nonzero().get();
        let file = Rc::new(stacks_file::create().unwrap());
        let mut requests = StackRequests::new(file.clone());
        let [(one, first), (two, second), (three, third)] =
            [0; 3].map(|_| UnixStream::pair().unwrap());
        for (client, pid) in [(one, pid), (two, pid), (three, 1)] {
            assert!(requests.add(Asker::Command(client), Some(pid)).is_none());
        }
        let ours = [PoolProcess { pid, role: ProcessRole::Worker }];
        let proceed = |requests: &mut StackRequests| requests.proceed_with(&ours, |_| Vec::new());
        let asked = proceed(&mut requests);
        assert!(matches!(asked[..], [Action::Signal(_, Signal::URG)]));
        assert!(proceed(&mut requests).is_empty(), "the process has not answered yet");
        let number = stacks_file::requested(&file, pid).unwrap();
        rustix::io::write(&file, b"stacks").unwrap();
        stacks_file::complete(&file, number);
        let mut answered = proceed(&mut requests);
        assert!(matches!(answered[1..], [Action::Signal(..)]));
        let stacks = (StacksOutcome::Complete, "stacks".to_owned());
        assert_eq!(outcome(answered.remove(0), first), stacks);
        requests.asked.as_mut().unwrap().due = running_clock::instant();
        let mut late = proceed(&mut requests);
        assert_eq!(outcome(late.remove(0), second), (StacksOutcome::NoAnswer, String::new()));
        assert_eq!(outcome(late.remove(0), third), (StacksOutcome::NoProcess, String::new()));
        assert!(stacks_file::requested(&file, pid).is_none());
    }

    #[test]
    fn no_message_about_a_slow_request_is_lost() {
        let mut requests = StackRequests::new(Rc::new(stacks_file::create().unwrap()));
        let message = || LogMessage::slow_request("id GET /", 1, Duration::from_secs(1));
        let text = |action| match action {
            Action::WriteSlow(message) => LogMessage::for_client(&message),
            _ => panic!("no message"),
        };
        for _ in 0..MAX_WAITING {
            assert!(requests.add(Asker::SlowLog(message()), Some(1)).is_none());
        }
        assert!(requests.next_due().is_some());
        let dropped = text(requests.add(Asker::SlowLog(message()), Some(1)).unwrap());
        assert!(dropped.contains("hint: its stacks are missing"), "{dropped}");
        let written: Vec<_> = requests.proceed_with(&[], |_| Vec::new());
        assert_eq!(written.len(), MAX_WAITING);
        assert!(written.into_iter().all(|action| text(action).contains("process 1 has exited")));
    }
}
