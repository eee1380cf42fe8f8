//! The loop that watches the process of a request.

use std::{
    borrow::Cow,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use nix::sys::signal::Signal as ChildSignal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::Signal,
};
use wire::{
    launch::{RequestFds, Work},
    report::StopReason,
    running_clock,
};

use crate::{
    config::settings::Settings,
    exit::Exit,
    guard::{
        Audit, Channels, ServingProcess,
        channels::is_client_disconnected,
        process_failure::{ProcessFailure, close_stopped},
        progress::Progress,
        serving_process::ProcessExit,
        start::Start,
        stop::{StopSequence, stop_reason, stop_signals},
        terminal::Terminal,
    },
    request::Request,
    system::signals::SignalPipe,
};

/// The guard of one request.
pub(super) struct Guard<'a> {
    request: &'a Request,
    settings: Cow<'a, Settings>,
    process: ServingProcess,
    reports: OwnedFd,
    stop_signals: SignalPipe,
    started: Instant,
    progress: Progress,
    stop: Option<StopSequence>,
    /// The terminal that python may read from.
    terminal: Option<Terminal>,
}

impl<'a> Guard<'a> {
    /// Starts python for `work`.
    pub(super) fn start(
        settings: &'a Settings,
        work: impl FnOnce(RequestFds) -> Work,
        request: &'a Request,
        channels: Channels,
    ) -> io::Result<Self> {
        let child_signal = SignalPipe::of(&[ChildSignal::SIGCHLD])?;
        let stop_signals = stop_signals()?;
        let work = work(RequestFds {
            body_fd: channels.body.as_raw_fd(),
            response_fd: channels.response.as_raw_fd(),
        });
        let is_call = matches!(work, Work::Cgi(_)) && !request.is_from_web_server;
        let mut start = Start::new(
            settings,
            work,
            request,
            &[channels.body.as_fd(), channels.response.as_fd()],
        )?;
        let terminal = Terminal::of_this_process().filter(|_| is_call);
        if terminal.is_some() {
            Terminal::inherit(&mut start.command);
        }
        // With a process group of its own, the descendants of python can be killed, too.
        let child = start.command.process_group(0).spawn()?;
        Ok(Self {
            request,
            settings: Cow::Borrowed(settings),
            process: ServingProcess::Child {
                child,
                child_signal,
                _gateway_pipe: start.gateway_pipe,
            },
            reports: start.channel,
            stop_signals,
            started: running_clock::instant(),
            progress: Progress::default(),
            stop: None,
            terminal,
        })
    }

    /// The guard of a request that `process`, a worker of a warm pool, has taken.
    pub(super) fn of_pool_worker(
        settings: &'a Settings,
        request: &'a Request,
        process: ServingProcess,
        reports: OwnedFd,
        stop_signals: SignalPipe,
    ) -> Self {
        Self {
            request,
            settings: Cow::Borrowed(settings),
            process,
            reports,
            stop_signals,
            started: running_clock::instant(),
            progress: Progress::of_pool_worker(),
            stop: None,
            terminal: None,
        }
    }

    /// Waits until the process has exited, and completes an unfinished response. `response` is the
    /// file descriptor of the response.
    pub(super) fn watch(mut self, response: OwnedFd, audited: &mut dyn FnMut(Audit)) -> Exit {
        let mut response = Some(response);
        loop {
            if let Err(error) = self.wait() {
                // The wait fails only without memory. A process that cannot be watched must not
                // continue.
                self.request
                    .log(&LogMessage::new(Code::Internal, format!("waiting failed: {error}")));
                self.stop(StopReason::Terminated);
                self.process.signal_group(Signal::KILL);
            }
            self.read_reports(audited);
            if self.progress.released {
                return self.conclude(ProcessExit::Unknown, response);
            }
            let is_pool_worker = self.process.is_pool_worker();
            if self.progress.response_ended.is_some() && !is_pool_worker {
                // The web server sees the end of the response when its last holder closes it.
                response = None;
            }
            if self.progress.channel_closed && is_pool_worker {
                if self.progress.done.is_some() {
                    return self.conclude(ProcessExit::Unknown, response);
                }
                // The worker has exited, or the application has closed its file descriptors,
                // including the response.
                self.process.signal(Signal::KILL);
            }
            if self.stop_signals.received() {
                let reason = stop_reason(&self.stop_signals);
                let is_web_servers =
                    self.request.is_from_web_server && reason == StopReason::Terminated;
                if is_web_servers && self.progress.is_closing() && self.stop.is_none() {
                    // The web server has the response. The engine gives `close()` its time.
                    return self.conclude(ProcessExit::Unknown, response);
                }
                self.stop(reason);
            }
            if let Some((limit, reason)) = self.limit()
                && running_clock::elapsed(self.started) >= limit
            {
                self.stop(reason);
            }
            if let Some(stop) = &mut self.stop {
                stop.escalate(&self.process, response.as_ref());
            }
            if let Some(terminal) = &mut self.terminal
                && terminal.attend(&self.process)
            {
                // A person has no time limit.
                self.settings.to_mut().load_timeout = None;
            }
            if self.process.may_have_exited() {
                if self.stop.is_some() {
                    // The kernel cannot reuse the group ID before the leader is reaped.
                    self.process.signal_group(Signal::KILL);
                }
                if let Some(exit) = self.process.exit() {
                    // The last reports may have arrived after the last read.
                    self.read_reports(audited);
                    return self.conclude(exit, response);
                }
            }
        }
    }

    fn read_reports(&mut self, audited: &mut dyn FnMut(Audit)) {
        self.progress.read(&self.reports, &self.process);
        if let Some(audit) = self.progress.take_audit() {
            audited(audit);
        }
        if let Some(time) = self.progress.take_more_time() {
            self.extend(time);
        }
    }

    /// Lets the request take at least so much `time` from now.
    fn extend(&mut self, time: Duration) {
        let until = running_clock::elapsed(self.started) + time;
        let settings = self.settings.to_mut();
        for limit in [&mut settings.timeout, &mut settings.response_timeout].into_iter().flatten() {
            *limit = until.max(*limit);
        }
    }

    fn wait(&self) -> io::Result<()> {
        let now = running_clock::instant();
        let due = match (&self.stop, self.limit()) {
            (Some(stop), _) => Some(stop.due()),
            (None, limit) => limit.map(|(limit, _)| self.started + limit),
        };
        let left = due.map(|due| due.saturating_duration_since(now));
        let mut watched = [
            PollFd::from_borrowed_fd(self.process.exit_event(), PollFlags::IN),
            PollFd::new(&self.stop_signals, PollFlags::IN),
            PollFd::new(&self.reports, PollFlags::IN),
        ];
        let count = if self.progress.channel_closed { 2 } else { 3 };
        let polled = running_clock::wait(left, |timeout| {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            poll(&mut watched[..count], timeout.as_ref())
        });
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The time from the start of the process to the deadline of its current work, and the reason
    /// to stop then.
    fn limit(&self) -> Option<(Duration, StopReason)> {
        let of_loading = self.settings.load_timeout.filter(|_| !self.progress.app_loaded);
        let of_response = self.settings.response_timeout.filter(|_| !self.progress.headers_sent);
        let of_request = self.settings.timeout.into_iter().chain(of_loading);
        of_request
            .map(|limit| (limit, StopReason::Timeout))
            .chain(of_response.map(|limit| (limit, StopReason::ResponseTimeout)))
            .min_by_key(|(limit, _)| *limit)
            .filter(|_| self.progress.done.is_none())
    }

    /// Stops the request, unless it is being stopped.
    fn stop(&mut self, reason: StopReason) {
        if self.stop.is_none() {
            self.stop = Some(if self.progress.done.is_some() {
                StopSequence::after_request(reason)
            } else {
                StopSequence::begin(reason, &self.process, &self.reports)
            });
        }
    }

    fn conclude(self, exit: ProcessExit, response: Option<OwnedFd>) -> Exit {
        let is_interrupted =
            self.stop.as_ref().is_some_and(|stop| stop.reason() == StopReason::Interrupted);
        let exit = self.complete(exit, response);
        if is_interrupted { Exit::Interrupted } else { exit }
    }

    /// Sends the response and logs the failure, unless the process has done so.
    fn complete(self, exit: ProcessExit, response: Option<OwnedFd>) -> Exit {
        let stopped = self.stop.as_ref().map(StopSequence::reason);
        if let Some(reason) = stopped.filter(|_| self.progress.is_closing()) {
            self.request.log(&close_stopped(reason, &self.settings));
        }
        let response = match (self.progress.response_ended, response) {
            (Some(true), _) => return Exit::Success,
            (Some(false), _) | (None, None) => return Exit::Failure,
            (None, Some(response)) => response,
        };
        if stopped == Some(StopReason::Terminated) && is_client_disconnected(&response) {
            return Exit::Failure;
        }
        let failure = ProcessFailure {
            settings: &self.settings,
            exit,
            after: running_clock::elapsed(self.started),
            stopped,
            engine_loaded: self.progress.engine_loaded,
            app_loaded: self.progress.app_loaded,
            descriptors_lost: self.progress.descriptors_lost,
            unfit: self.progress.unfit,
        };
        if self.progress.headers_sent {
            self.request.log(&failure.after_headers());
            Exit::Failure
        } else {
            let (page, message) = failure.before_headers();
            self.request.refuse(page, &message, response)
        }
    }
}
