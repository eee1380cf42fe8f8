//! Log messages of the supervisor about its processes.

use std::{fmt, io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
    process_exit::ExitText,
};
use rustix::process::{Pid, Signal};

use crate::{
    guard::start_error,
    pool::{
        listeners::Listener,
        supervisor::slots::LimitReached,
        template::{Loading, Template},
    },
    python::{engine, identify},
    system::signals,
};

/// Addresses of a pool.
pub(super) struct Addresses<'a>(pub(super) &'a [Listener]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, listener) in self.0.iter().enumerate() {
            write!(f, "{}`{}`", if position > 0 { ", " } else { "" }, listener.address)?;
        }
        Ok(())
    }
}

/// Another build of wsgate was installed, and a FastCGI pool loads new code.
pub(super) fn engine_replaced() -> LogMessage {
    let sentence = "another build of wsgate was installed; this pool keeps using its own build";
    LogMessage::new(Code::EngineReplaced, sentence)
        .hint("`wsgate reload --binary POOL` changes to the new build")
}

/// Another build of wsgate was installed, and a warm pool stops.
pub(super) fn engine_replaced_warm() -> LogMessage {
    LogMessage::new(
        Code::EngineReplaced,
        "stopping the pool: another build of wsgate was installed; the next request starts a pool \
         of that build",
    )
}

/// New code cannot be loaded. `has_code`: the pool has other code.
pub(super) fn reload_failed(has_code: bool) -> LogMessage {
    let hint = if has_code {
        "the pool keeps serving the old code; fix the cause above, and reload again"
    } else {
        "no code is loaded; fix the cause above, and the next connection loads it"
    };
    LogMessage::new(Code::ReloadFailed, "cannot load the new code").hint(hint)
}

/// A worker exited although it was not asked to stop. `may_be_abandoned`: when a client
/// disconnects, the web server may kill the gateway, and the gateway its worker.
pub(super) fn worker_died(
    pid: Pid,
    status: ExitStatus,
    age: Duration,
    requests: &[String],
    may_be_abandoned: bool,
) -> LogMessage {
    let pid = pid.as_raw_nonzero();
    let sentence = format!("worker {pid} {} after {:.1} s", ExitText(status), age.as_secs_f32());
    let message = if may_be_abandoned && status.signal() == Some(Signal::KILL.as_raw()) {
        LogMessage::new(Code::WorkerKilled, sentence).hint(
            "most likely the client disconnected and the web server ended the request; an error \
             message about that request means otherwise: look in the system's log then",
        )
    } else {
        LogMessage::new(Code::WorkerDied, sentence).hint(
            status.signal().and_then(signals::cause).unwrap_or(
                "the pool starts another worker; look for the cause just above, and in the \
                 system's log",
            ),
        )
    };
    let Some(first) = requests.first() else { return message };
    let detail = requests.iter().map(|request| format!("it was serving `{request}`"));
    message.detail(detail.collect::<Vec<_>>().join("\n")).request(first)
}

/// No worker could be forked.
pub(super) fn fork_failed(errno: i32) -> LogMessage {
    let error = io::Error::from_raw_os_error(errno);
    let hint = start_error::limit_hint(&error).unwrap_or_else(|| {
        "a security policy, or a filter of system calls, may forbid fork(2)".to_owned()
    });
    LogMessage::new(Code::ForkFailed, format!("cannot fork a worker: {error}"))
        .hint(format!("{hint}; the pool tries again"))
}

/// A worker is killed since it did not exit after its last request.
pub(super) fn worker_stays(pid: Pid) -> LogMessage {
    LogMessage::new(
        Code::WorkerNotExiting,
        format!("killing worker {}: it did not exit after its last request", pid.as_raw_nonzero()),
    )
    .hint("it may wait for an exit handler or a thread of the application")
}

/// A worker is killed since its requests did not end in time; `None` if it serves none.
pub(super) fn requests_killed(pid: Pid, requests: &[String]) -> Option<LogMessage> {
    let first = requests.first()?;
    let detail = requests.iter().map(|request| format!("it was serving `{request}`"));
    let message = LogMessage::new(
        Code::RequestKilled,
        format!(
            "killing worker {}: it still serves after it was asked to stop",
            pid.as_raw_nonzero()
        ),
    )
    .detail(detail.collect::<Vec<_>>().join("\n"))
    .hint("--drain says how long requests may take then; a second signal does not wait");
    Some(message.request(first))
}

/// A worker is replaced since it has reached a limit.
pub(super) fn worker_replaced(pid: Pid, limit: LimitReached, age: Duration) -> LogMessage {
    let reason = match limit {
        LimitReached::Age => format!("--max-age reached (it is {:.0} s old)", age.as_secs_f32()),
        LimitReached::Memory(bytes) => {
            format!("--max-rss reached (it has {} MiB of memory)", bytes >> 20)
        }
    };
    LogMessage::new(
        Code::WorkerReplaced,
        format!("replacing worker {}: {reason}", pid.as_raw_nonzero()),
    )
}

/// A template is killed since it did not exit in time.
pub(super) fn template_stays() -> LogMessage {
    LogMessage::new(
        Code::TemplateNotExiting,
        "killing a template process: it did not exit when asked to stop",
    )
    .hint(
        "it may wait for an exit handler, or for a thread that the application started while it \
         was loaded",
    )
}

/// Why a template has exited or cannot be used; `None` if it has logged the reason itself.
pub(super) fn template_died(template: &Template, status: Option<ExitStatus>) -> Option<LogMessage> {
    let settings = template.settings();
    let (engine, python) = (&settings.engine, &settings.interpreter.program);
    if let Some(reason) = template.engine_error() {
        return Some(engine::unfit(engine, python, reason));
    }
    if template.loading() == Loading::Failed {
        return None;
    }
    let status = ExitText(status?);
    let message = |sentence| LogMessage::new(Code::TemplateDied, sentence);
    if template.loading() == Loading::Ready {
        return Some(
            message(format!("the template process {status}"))
                .hint("its workers exited with it; the pool starts another template process"),
        );
    }
    let how = || format!("{status} while it loaded the application");
    let reason = engine::damaged(engine, python).or_else(|| identify::not_python(python, &how()));
    Some(reason.unwrap_or_else(|| {
        message(format!("the template process {status} while it loaded the application"))
            .hint(limit_hints::or_memory("look for the cause just above, and in the system's log"))
    }))
}
