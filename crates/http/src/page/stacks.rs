//! The page with the Python stacks of one worker.

use control::process_stacks::{Frame, ProcessStacks, StacksOutcome, ThreadStack};
use maud::{Markup, html};

use crate::page::{pool::request, seconds, shown};

/// Maximum number of threads and of frames that are shown.
const MAX_SHOWN: usize = 256;

/// The stacks of all threads of a worker.
pub(super) fn stacks(stacks: &ProcessStacks) -> Markup {
    html! {
        header {
            h1 { "Stacks of worker " (stacks.pid) }
            p { a href="." { "All pools" } }
        }
        main {
            @if let Some(problem) = problem(stacks.outcome) {
                section { p.problem { (problem) } }
            }
            @for stack in stacks.threads.iter().take(MAX_SHOWN) {
                section {
                    h2 { (title(stack)) }
                    @if let Some(status) = stack.status.as_ref().filter(|status| status.busy) {
                        p.app { (request(status)) ", running for " (seconds(status.milliseconds)) }
                    }
                    ol {
                        @for frame in stack.frames.iter().take(MAX_SHOWN) {
                            li { code { (place(frame)) } }
                        }
                    }
                }
            }
        }
    }
}

fn problem(outcome: StacksOutcome) -> Option<&'static str> {
    match outcome {
        StacksOutcome::Complete => None,
        StacksOutcome::NoAnswer => Some("The worker has not answered in time."),
        StacksOutcome::Stopped => Some("The worker is stopped by SIGSTOP or a debugger."),
        StacksOutcome::NoProcess => Some("The worker has exited."),
    }
}

fn title(stack: &ThreadStack) -> String {
    let name = stack.name.as_deref().unwrap_or(&stack.identifier);
    match stack.number {
        Some(number) => format!("Thread {number}, {}", shown(name)),
        None => format!("Thread {}", shown(name)),
    }
}

/// A frame as a traceback shows it.
fn place(frame: &Frame) -> String {
    let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
    match &frame.file {
        Some(file) => format!("{} {}{line}", shown(&frame.function), shown(file)),
        None => shown(&frame.function),
    }
}
