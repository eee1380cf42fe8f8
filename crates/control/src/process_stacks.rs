//! Python stacks of the processes of a pool: what the pool answers, and what a process has written.

use serde::{Deserialize, Serialize};

use crate::pool_status::WorkerStatus;

/// A Python process of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolProcess {
    /// Process id.
    pub pid: i32,
    /// What the process does.
    pub role: ProcessRole,
}

/// What a Python process of a pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessRole {
    /// It serves requests.
    Worker,
    /// It is a worker that loads the application.
    Loading,
    /// Workers are forked from it.
    Template,
}

/// The stacks of one process, as its pool sends them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StacksAnswer {
    /// Process id.
    pub pid: i32,
    /// Has the process answered?
    pub outcome: StacksOutcome,
    /// The threads of a worker that serve requests, with their requests.
    pub threads: Vec<WorkerStatus>,
    /// The text that the process has written.
    pub dump: String,
}

/// Has a process answered a request for its stacks?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StacksOutcome {
    /// The stacks are complete.
    Complete,
    /// The process has not answered in time.
    NoAnswer,
    /// The process is stopped by SIGSTOP or a debugger, and was not asked.
    Stopped,
    /// The process has exited, or is none of the pool's.
    NoProcess,
}

/// The stacks of one process: the output of `wsgate stacks --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessStacks {
    /// Process id.
    pub pid: i32,
    /// What the process does.
    pub role: ProcessRole,
    /// Has the process answered?
    pub outcome: StacksOutcome,
    /// The threads that run Python.
    pub threads: Vec<ThreadStack>,
}

/// The stack of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadStack {
    /// `threading.get_ident()` of the thread, in hexadecimal.
    pub identifier: String,
    /// Name of the thread, which Python 3.14 and later write.
    pub name: Option<String>,
    /// Number of the thread among those that serve requests.
    pub number: Option<u32>,
    /// Status of a thread that serves requests, with its request.
    pub status: Option<WorkerStatus>,
    /// The frames, the most recent call first.
    pub frames: Vec<Frame>,
}

/// A frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Name of the function, or a remark in place of a frame.
    pub function: String,
    /// File of its code.
    pub file: Option<String>,
    /// Line that is being executed.
    pub line: Option<u32>,
}

impl ProcessStacks {
    /// The stacks in the answer about a process.
    pub fn new(role: ProcessRole, answer: StacksAnswer) -> Self {
        let mut serving = Vec::new();
        let mut threads: Vec<ThreadStack> = Vec::new();
        for line in answer.dump.lines() {
            if let Some((number, identifier)) =
                line.strip_prefix("serving ").and_then(|rest| rest.split_once(' '))
            {
                serving.push((number.parse().ok(), identifier_of(identifier)));
            } else if let Some(thread) = ThreadStack::from_title(line) {
                threads.push(thread);
            } else if let (Some(thread), Some(line)) = (threads.last_mut(), line.strip_prefix("  "))
            {
                thread.frames.extend(Frame::from_line(line));
            }
        }
        for thread in &mut threads {
            let known = serving.iter().find(|(_, identifier)| *identifier == thread.identifier);
            thread.number = known.and_then(|(number, _)| *number);
            let mut statuses = answer.threads.iter();
            thread.status = statuses.find(|status| Some(status.thread) == thread.number).cloned();
        }
        // `faulthandler` begins with the thread that was started last.
        threads.sort_by_key(|thread| thread.number.unwrap_or(u32::MAX));
        Self { pid: answer.pid, role, outcome: answer.outcome, threads }
    }
}

/// An identifier as all are compared: without leading zeros.
fn identifier_of(text: &str) -> String {
    format!("0x{}", text.trim_start_matches("0x").trim_start_matches('0'))
}

impl ThreadStack {
    /// The thread whose stack follows on the line `title`.
    fn from_title(title: &str) -> Option<Self> {
        let rest = title.strip_prefix("Current thread ").or(title.strip_prefix("Thread "))?;
        let rest = rest.strip_suffix(" (most recent call first):")?;
        let (identifier, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        Some(Self {
            identifier: identifier_of(identifier),
            name: name.map(str::to_owned),
            ..Self::default()
        })
    }
}

impl Frame {
    fn from_line(line: &str) -> Option<Self> {
        let remark = |text: &str| Self { function: text.to_owned(), file: None, line: None };
        let Some(place) = line.strip_prefix("File ") else {
            return (line != "<no Python frame>").then(|| remark(line));
        };
        let Some((file, rest)) = place.rsplit_once(", line ") else { return Some(remark(place)) };
        let (number, function) = rest.split_once(" in ").unwrap_or((rest, ""));
        let file = file.strip_prefix('"').and_then(|file| file.strip_suffix('"')).unwrap_or(file);
        Some(Self {
            function: function.to_owned(),
            file: Some(file.to_owned()),
            line: number.parse().ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(dump: &str) -> Vec<ThreadStack> {
        let answer = StacksAnswer {
            pid: 1,
            outcome: StacksOutcome::Complete,
            threads: Vec::new(),
            dump: dump.to_owned(),
        };
        ProcessStacks::new(ProcessRole::Worker, answer).threads
    }

    #[test]
    fn threads_and_frames_are_read_from_what_faulthandler_writes() {
        let dump = "serving 0 0x7f01\nserving 1 0x7f02\n\
            Thread 0x00007f0000009999 [helper] (most recent call first):\n  <no Python frame>\n\n\
            Thread 0x0000000000007f02 (most recent call first):\n\
            \x20 File \"/a, line 1 in b/c\\xe9.py\", line 12 in <lambda>\n  ...\n\n\
            Current thread 0x0000000000007f01 (most recent call first):\n  Garbage-collecting\n\
            \x20 File \"app.wsgi\", line 3 in application\n";
        let threads = parsed(dump);
        let numbers: Vec<_> = threads.iter().map(|thread| thread.number).collect();
        assert_eq!(numbers, [Some(0), Some(1), None]);
        let frame = |function: &str, file: &str, line| Frame {
            function: function.to_owned(),
            file: Some(file.to_owned()),
            line: Some(line),
        };
        let remark = |text: &str| Frame { function: text.to_owned(), file: None, line: None };
        let application = frame("application", "app.wsgi", 3);
        assert_eq!(threads[0].frames, [remark("Garbage-collecting"), application]);
        let lambda = frame("<lambda>", "/a, line 1 in b/c\\xe9.py", 12);
        assert_eq!(threads[1].frames, [lambda, remark("...")]);
        assert_eq!(threads[2].name.as_deref(), Some("helper"));
        assert_eq!((&*threads[2].identifier, threads[2].frames.len()), ("0x7f0000009999", 0));
    }

    #[test]
    fn a_dump_of_anything_is_read_without_a_failure() {
        for dump in [
            "",
            "\n\n",
            "Thread",
            "Thread  (most recent call first):\n  File \n  File \"",
            "  File x",
        ] {
            let _ = parsed(dump);
        }
    }
}
