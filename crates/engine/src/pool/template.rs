//! The template of a pool: forks a worker whenever the supervisor asks for one, and loads the
//! application once before that.
//!
//! Where the application is not to be loaded before a fork, the template is the engine alone, and
//! its workers load for themselves.

use std::{
    mem::ManuallyDrop,
    os::fd::AsFd as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::{Pid, WaitOptions, WaitStatus, getpid, waitpid},
};
use wire::{
    check::{Sharing, SideEffect},
    launch::{Launch, Preload, Service},
    template::{PACKET_BYTES, TemplateCommand, TemplateEvent},
};

use crate::{
    cgi::warm,
    loading::{
        application,
        import_audit::{
            Tracing, {self},
        },
        loaded_state,
        prefault::{Pages, rehearsal},
        staleness::{
            Fresh, executed,
            modules::{
                Modules, {self},
            },
        },
        warm_up,
    },
    log::{Log, files},
    pool::{
        pending_workers::{LoadOutcome, PendingWorkers, TemplateSocket},
        serving::{self, Sockets},
        template_signals::TemplateSignals,
        worker_status::StatusDescriptors,
    },
    process::{
        Inherited, Mask, Ownership,
        fork::{
            Side, {self},
        },
        forks::Descriptor,
        gateway_pipe::{Cable, Tie},
        {self},
    },
    stdlib,
};

/// What to do when a worker cannot load what another has loaded before it.
const OTHER_WORKER_LOADED_HINT: &str = "another worker of this pool has loaded the application: if that holds \
    what this one needs, such as a locked file or an address, run one worker with threads: \
    --workers 1 --threads 8";

/// How this process ends.
pub(crate) struct ProcessExit {
    /// The exit status.
    pub(crate) status: i32,
    /// Which objects are its own to finalise.
    pub(crate) ownership: Ownership,
}

impl ProcessExit {
    fn with(status: i32) -> Self {
        Self { status, ownership: Ownership::All }
    }
}

/// Forks workers until the supervisor closes `channel` and the last has ended. Returns how this
/// process ends, which may by then be a worker.
pub(crate) fn run(
    py: Python<'_>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    status: StatusDescriptors,
    channel: Descriptor,
) -> PyResult<ProcessExit> {
    let log = Log::new(&launch.request_id, &launch.request);
    let setting = serving::setting(launch, service);
    let load = |hint: Option<&str>| {
        let before = loaded_state::Before::now(py).map_err(|error| error.print(py))?;
        let loaded = application::load_for_pool(py, launch, &setting).map_err(|failure| {
            let entry = failure.entry;
            log.entry(&hint.map_or_else(|| entry.clone(), |hint| entry.clone().hint(hint)));
        })?;
        warm_up::run(py, &loaded.application, launch, &setting, &log);
        let state = before.changes(py).map_err(|error| error.print(py))?;
        Ok::<_, ()>((loaded.application, state))
    };
    let mut modules = Modules::watched(launch, service);
    if service.warm || modules.is_some() {
        executed::take_note(py)?;
    }
    let mut loaded = None;
    let mut fresh = None;
    let begun = SystemTime::now();
    if service.preload != Preload::No {
        // A pool waits for this.
        let tracing =
            if service.preload == Preload::Trace { Tracing::Announced } else { Tracing::Off };
        let (application, remains) = import_audit::audit(py, tracing, || load(None))?;
        let Ok(application) = application else {
            send_news(&channel, News::Unfit);
            return Ok(ProcessExit::with(1));
        };
        if let Some(news) = not_forkable(&remains, launch, service, &log) {
            send_news(&channel, news);
            return Ok(ProcessExit::with(0));
        }
        loaded = Some(application);
        let Ok(watched) = watch(py, service, &log, begun) else {
            send_news(&channel, News::Unfit);
            return Ok(ProcessExit::with(1));
        };
        fresh = watched;
    }
    if service.warm {
        rehearsal::of_template(py, &setting);
    }
    // Without it requests take longer.
    let pages = if service.warm && !service.resident && loaded.is_some() {
        Pages::new().ok()
    } else {
        None
    };
    let inherited = loaded.is_some().then(|| Inherited::collect(py)).transpose()?;
    if loaded.is_some() {
        // The first exception needs it, and each worker would load it for itself. Where the
        // application hides it, none does. Before an application is loaded it would hide the
        // application's own modules.
        let _ = stdlib::import(py, "traceback");
    }
    // Frozen objects are found no more.
    if let (Some(modules), Some(_)) = (&modules, &loaded) {
        modules.look(py);
    }
    // What is there now stays for ever: a collection in a worker then leaves these pages shared.
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    let template = Template {
        channel,
        signals: TemplateSignals::register(py)?,
        pid: getpid(),
        workers: Vec::new(),
        pending: PendingWorkers::default(),
        cable: ManuallyDrop::new(Cable::new()?),
        loads: loaded.is_some(),
        retired: false,
    };
    let (start, tie) = match template.run_loop(py, &log, modules.as_ref())? {
        LoopExit::Template(status) => {
            let ownership = if loaded.is_some() { Ownership::Template } else { Ownership::All };
            return Ok(ProcessExit { status, ownership });
        }
        LoopExit::Worker(start, tie) => (start, tie),
    };
    let ((application, state), slot) = match (start, loaded) {
        (WorkerStart::Loaded { slot }, Some(loaded)) => {
            inherited.iter().try_for_each(|inherited| inherited.leave_to_template(py))?;
            let is_ready = pages.as_ref().is_some_and(Pages::meet);
            if service.warm && !is_ready {
                rehearsal::once(py, &setting);
            }
            (loaded, slot)
        }
        (WorkerStart::Loading { slot, socket }, _) => {
            // What the application starts while it is loaded must not inherit that signals are
            // blocked.
            process::unblock_signals(&Mask::none());
            modules = Modules::watched(launch, service);
            let hint = (slot.is_some() && service.workers > 1 && !service.warm)
                .then_some(OTHER_WORKER_LOADED_HINT);
            let (begun, loaded) = (SystemTime::now(), load(hint));
            let (Ok(loaded), Ok(watched)) = (loaded, watch(py, service, &log, begun)) else {
                socket.report(News::Unfit);
                return Ok(ProcessExit::with(1));
            };
            fresh = watched;
            socket.report(News::Ready);
            match slot.or_else(|| py.detach(|| socket.wait_for_slot())) {
                Some(slot) => (loaded, slot),
                None => return Ok(ProcessExit::with(0)),
            }
        }
        (WorkerStart::Loaded { .. }, None) => return Ok(ProcessExit::with(1)),
    };
    let status = match fresh {
        Some(fresh) => {
            let watched = (&state, fresh, pages, Arc::new(tie));
            warm::run(py, &application, launch, service, sockets.listeners, (status, slot), watched)
        }
        None => serving::run(
            py,
            &application,
            launch,
            service,
            sockets,
            (status, slot),
            (&state.mask, modules),
        ),
    }?;
    Ok(ProcessExit { status, ownership: inherited.map_or(Ownership::All, Ownership::Forked) })
}

/// What the supervisor is to hear if no worker may be forked from this process, which has left
/// `remains` when it loaded the application.
fn not_forkable(
    remains: &[SideEffect],
    launch: &Launch,
    service: &Service,
    log: &Log,
) -> Option<TemplateEvent> {
    match service.preload {
        // Another template then looks which code does that, when this one has ended and whatever it
        // has open is free again.
        Preload::Auto => {
            (Sharing::of(remains) > Sharing::Forked).then_some(TemplateEvent::NotForkable)
        }
        Preload::Trace => {
            log.entry(&import_audit::not_forked(remains, launch, service));
            let is_for_one = Sharing::of(remains) == Sharing::OneProcess;
            Some(if is_for_one { TemplateEvent::OneProcess } else { TemplateEvent::NotForkable })
        }
        Preload::Yes | Preload::No => {
            import_audit::forked_all_the_same(remains, launch)
                .iter()
                .for_each(|entry| log.entry(entry));
            None
        }
    }
}

/// For a warm pool: watches what was loaded since `begun`. If that cannot be watched, the log says
/// so.
fn watch(
    py: Python<'_>,
    service: &Service,
    log: &Log,
    begun: SystemTime,
) -> Result<Option<Fresh>, ()> {
    if !service.warm {
        return Ok(None);
    }
    Fresh::watch(py, begun).map(Some).map_err(|error| {
        log.entry(
            &LogMessage::error(
                Code::NotWatched,
                format!("the files of the application cannot be watched: {error}"),
            )
            .hint(
                "raise fs.inotify.max_user_watches or max_user_instances; meanwhile requests are \
                 served cold",
            ),
        );
    })
}

/// A process that forks workers.
struct Template {
    channel: Descriptor,
    signals: TemplateSignals,
    pid: Pid,
    /// Workers that live, of those that the supervisor knows.
    workers: Vec<Pid>,
    /// Workers that load the application by themselves.
    pending: PendingWorkers,
    /// Workers end when this process does, and not before.
    cable: ManuallyDrop<Cable>,
    /// The application is loaded here, and workers have it from the beginning.
    loads: bool,
    /// The supervisor has closed the channel.
    retired: bool,
}

/// What this process has become.
enum LoopExit {
    /// The template, which ends with this status.
    Template(i32),
    /// A worker, which ends with its template.
    Worker(WorkerStart, Tie),
}

/// What a worker begins with.
enum WorkerStart {
    /// The application, and its place.
    Loaded { slot: u32 },
    /// It loads the application, and tells the template how that went.
    Loading { slot: Option<u32>, socket: TemplateSocket },
}

impl Template {
    /// Does what the supervisor wants, in this process; returns in each worker, too.
    fn run_loop(
        mut self,
        py: Python<'_>,
        log: &Log,
        modules: Option<&Modules>,
    ) -> PyResult<LoopExit> {
        if self.loads {
            send_news(&self.channel, News::Ready);
        } else {
            match self.fork(py, None)? {
                Some(start) => return self.begin_worker(py, start),
                None if self.pending.len() == 0 => {
                    log.entry(
                        &LogMessage::error(
                            Code::ForkFailed,
                            "the first worker could not be forked",
                        )
                        .hint(
                            "this user has as many processes as it may have, or memory is \
                                 short",
                        ),
                    );
                    send_news(&self.channel, News::Unfit);
                    return Ok(LoopExit::Template(1));
                }
                None => {}
            }
        }
        while !(self.retired && self.workers.is_empty() && self.pending.len() == 0) {
            // Before the first wait, too: what changes from now on is compared with what there is
            // now.
            if let Some(modules) = modules {
                modules.look(py);
            }
            self.wait(py, modules.map(|_| modules::PERIOD))?;
            while let Some(order) = self.next_order() {
                match order {
                    Order::Fork { slot } => {
                        if let Some(start) = self.fork(py, Some(slot))? {
                            return self.begin_worker(py, start);
                        }
                    }
                    Order::Abandon => self.pending.kill_all(),
                    Order::ReopenLogs => files::look(),
                }
            }
            if self.retired {
                self.pending.kill_all();
            }
            // In this order: what a worker has said comes before its end.
            let ended = self.reap();
            let said = self.pending.read_news();
            let mut has_first_failed = said.contains(&LoadOutcome::FirstFailed);
            said.into_iter().for_each(|outcome| self.report(outcome));
            for (pid, status) in ended {
                if let Some((outcome, entry)) = self.pending.on_exit(pid, status) {
                    entry.iter().for_each(|entry| log.entry(entry));
                    has_first_failed |= outcome == Some(LoadOutcome::FirstFailed);
                    outcome.into_iter().for_each(|outcome| self.report(outcome));
                } else {
                    self.workers.retain(|worker| *worker != pid);
                    let status = status.map_or(0, WaitStatus::as_raw);
                    send_news(
                        &self.channel,
                        News::Gone { pid: pid.as_raw_nonzero().get(), status },
                    );
                }
            }
            if has_first_failed {
                // The kernel ends what is left of the first worker with this process.
                return Ok(LoopExit::Template(1));
            }
        }
        Ok(LoopExit::Template(0))
    }

    /// Waits for something to do, or until `patience` is over.
    fn wait(&self, py: Python<'_>, patience: Option<Duration>) -> PyResult<()> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        py.detach(|| {
            // A channel that is closed would be readable for ever.
            let channel = (!self.retired).then(|| self.channel.as_fd());
            let watched = self.pending.sockets().chain([self.signals.as_fd()]).chain(channel);
            let mut watched: Vec<_> =
                watched.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            match poll(&mut watched, patience.as_ref()) {
                // It would be so for ever.
                Ok(_)
                    if watched
                        .iter()
                        .any(|watched| watched.revents().contains(PollFlags::NVAL)) =>
                {
                    Err(std::io::Error::other(
                        "the application has closed a descriptor that is not its own",
                    ))
                }
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(std::io::Error::from(error)),
            }
        })?;
        self.signals.take();
        // Handlers of the application's run here. What they raise is not about the template.
        if let Err(error) = py.check_signals() {
            error.write_unraisable(py, None);
        }
        Ok(())
    }

    /// Workers that have ended. Other children are those of the application, which waits for them
    /// itself.
    fn reap(&self) -> Vec<(Pid, Option<WaitStatus>)> {
        let pids = self.workers.iter().copied().chain(self.pending.pids());
        let ended = |pid| match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(ended) => ended.map(|(pid, status)| (pid, Some(status))),
            // Code of the application, such as a signal handler, has waited for it: how it ended is
            // lost.
            Err(Errno::CHILD) => Some((pid, None)),
            Err(_) => None,
        };
        pids.filter_map(ended).collect()
    }

    /// The next order, if there is one.
    fn next_order(&mut self) -> Option<Order> {
        let mut order = [0; LENGTH];
        while !self.retired {
            match recv(&self.channel, &mut order[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.retired = true,
                Ok((length, _)) => {
                    let order = TemplateCommand::decode(&order[..length]);
                    if order.is_some() {
                        return order;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The application has closed it: nobody can tell this process anything.
                Err(_) => self.retired = true,
            }
        }
        None
    }

    /// Forks a worker for the place `slot`, or the first one, which is given its place later.
    /// `Some` in that worker.
    fn fork(&mut self, py: Python<'_>, slot: Option<u32>) -> PyResult<Option<WorkerStart>> {
        self.pending.kill_failed();
        if let Some(outcome) = slot.and_then(|slot| self.pending.assign_slot(slot)) {
            self.report(outcome);
            return Ok(None);
        }
        let sockets = if self.loads { None } else { PendingWorkers::socket_pair().map(Some)? };
        match (fork::fork(py), slot) {
            (Ok(Side::Child), slot) => Ok(match (sockets, slot) {
                (Some((_, socket)), slot) => Some(WorkerStart::Loading { slot, socket }),
                (None, slot) => slot.map(|slot| WorkerStart::Loaded { slot }),
            }),
            (Ok(Side::Parent(pid)), slot) => {
                match (sockets, slot) {
                    (Some((socket, _)), slot) => self.pending.add(pid, slot, socket),
                    (None, Some(slot)) => self.report(LoadOutcome::Started { slot, pid }),
                    (None, None) => {}
                }
                Ok(None)
            }
            (Err(_), Some(slot)) => {
                send_news(&self.channel, News::Unborn { slot });
                Ok(None)
            }
            (Err(_), None) => Ok(None),
        }
    }

    /// Tells the supervisor.
    fn report(&mut self, outcome: LoadOutcome) {
        let news = match outcome {
            LoadOutcome::FirstLoaded => News::Ready,
            LoadOutcome::FirstFailed => News::Unfit,
            LoadOutcome::Started { slot, pid } => {
                self.workers.push(pid);
                TemplateEvent::WorkerStarted { slot, pid: pid.as_raw_nonzero().get() }
            }
            LoadOutcome::StartFailed { slot } => News::Stillborn { slot },
        };
        send_news(&self.channel, news);
    }

    /// What a worker does first, in this order: it belongs to the template's life, leaves the
    /// template's signals and sockets behind, and only then lets signals through.
    fn begin_worker(self, py: Python<'_>, start: WorkerStart) -> PyResult<LoopExit> {
        let tie = ManuallyDrop::into_inner(self.cable).tie(self.pid)?;
        self.signals.give_back(py)?;
        Ok(LoopExit::Worker(start, tie))
    }
}

/// The supervisor reads these; if it is gone, the kernel ends this process.
fn send_news(channel: &Descriptor, news: News) {
    let _ = send(channel, &news.encode(), SendFlags::NOSIGNAL);
}
