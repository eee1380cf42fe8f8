//! The template process of a pool, from which workers are forked: loads the application once, and
//! then runs the [loop](Template) that forks. (Android's zygote is the same idea.)
//!
//! Where the application must not be loaded before a fork, the template is the engine alone, and
//! each worker loads the application.

use std::{os::fd::AsFd as _, sync::Arc, time::SystemTime};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use wire::{
    check::{Sharing, SideEffect},
    launch::{Launch, Preload, Service},
    template::TemplateEvent,
};

use crate::{
    loading::{
        after_fork, application,
        import_audit::{self, Tracing},
        loaded_state,
        prefault::{Pages, rehearsal},
        staleness::{SourceWatch, executed, modules::ModuleWatch},
        warm_up,
    },
    log::Log,
    pool::{
        serving::{self, Sockets},
        template_loop::{LoopExit, Template, WorkerStart, send_event},
        warm,
        worker_status::StatusDescriptors,
    },
    process::{
        self, FinalisationScope, SignalMask, forks::Descriptor, registrations::Registrations, title,
    },
    stdlib,
};

/// The hint if a worker cannot load the application although another worker has loaded it.
const OTHER_WORKER_LOADED_HINT: &str = "another worker of this pool has loaded the application: if \
    that holds what this one needs, such as a locked file or an address, run one worker with \
    threads: --workers 1 --threads 8";

/// The way in which this process exits.
pub(crate) struct ProcessExit {
    /// The exit status.
    pub(crate) status: i32,
    /// The objects that this process finalises.
    pub(crate) ownership: FinalisationScope,
}

impl ProcessExit {
    fn with(status: i32) -> Self {
        Self { status, ownership: FinalisationScope::All }
    }
}

/// Forks workers until the supervisor closes `channel` and the last worker has exited. Returns how
/// this process exits, in the template and in each worker.
pub(crate) fn run(
    py: Python<'_>,
    launch: &Launch,
    service: &Service,
    sockets: Sockets,
    status: StatusDescriptors,
    channel: Descriptor,
) -> PyResult<ProcessExit> {
    let log = Log::new(&launch.request.id, &launch.request.line);
    let setting = serving::setting(launch, service);
    let load = |hint: Option<&str>| {
        let printed = |error: PyErr| {
            let reason = error.to_string();
            error.print(py);
            reason
        };
        let before = loaded_state::StateBeforeLoading::now(py).map_err(printed)?;
        let loaded = application::load_for_pool(py, launch, &setting).map_err(|failure| {
            let message = failure.message;
            log.write(&hint.map_or_else(|| message.clone(), |hint| message.clone().hint(hint)));
            message.summary()
        })?;
        warm_up::run(py, &loaded.application, launch, &setting, &log);
        let state = before.changes(py).map_err(printed)?;
        Ok::<_, String>((loaded.application, state))
    };
    let mut modules = ModuleWatch::watched(launch, service, status.scoreboard.as_fd())?;
    if service.warm || modules.is_some() {
        executed::take_note(py)?;
    }
    let mut loaded = None;
    let mut registrations = Registrations::default();
    let mut source_watch = None;
    let begun = SystemTime::now();
    if service.preload != Preload::No {
        // The start of the pool waits for the result of loading.
        let tracing =
            if service.preload == Preload::Trace { Tracing::Announced } else { Tracing::Off };
        let (audited, registered) =
            Registrations::during(py, || import_audit::audit(py, tracing, launch, || load(None)))?;
        registrations = registered;
        let (application, side_effects) = audited?;
        let failed = |reason: &str| {
            send_event(&channel, &TemplateEvent::load_failed(reason));
            Ok(ProcessExit::with(1))
        };
        match application {
            Ok(application) => loaded = Some(application),
            Err(reason) => return failed(&reason),
        }
        if let Some(event) = not_forkable(&side_effects, launch, service, &log) {
            send_event(&channel, &event);
            return Ok(ProcessExit::with(0));
        }
        match watch(py, service, &log, begun) {
            Ok(watched) => source_watch = watched,
            Err(reason) => return failed(&reason),
        }
    }
    if service.warm {
        rehearsal::of_template(py, &setting);
    }
    // Without this preparation, the first requests only take longer.
    let pages = if service.warm && !service.resident && loaded.is_some() {
        Pages::new().ok()
    } else {
        None
    };
    let inherited =
        loaded.is_some().then(|| process::collect_inherited(py, registrations)).transpose()?;
    if loaded.is_some() {
        // The first exception needs this module, so each worker would load it. The import may fail
        // if the application hides the module. An import before the application would hide modules
        // of the application.
        let _ = stdlib::import(py, "traceback");
    }
    // Called before the freeze, after which the garbage collector does not list these objects.
    if let (Some(modules), Some(_)) = (&modules, &loaded) {
        modules.look(py);
    }
    // Frozen objects are never collected, so that a garbage collection in a worker leaves their
    // pages shared.
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    let template = Template::new(py, channel, loaded.is_some())?;
    let (start, template_link) = match template.run(py, &log, modules.as_ref())? {
        LoopExit::Template(status) => {
            let ownership =
                if loaded.is_some() { FinalisationScope::Template } else { FinalisationScope::All };
            return Ok(ProcessExit { status, ownership });
        }
        LoopExit::Worker(start, template_link) => (start, template_link),
    };
    let ((application, state), block) = match (start, loaded) {
        (WorkerStart::Loaded { block }, Some(loaded)) => {
            inherited.iter().try_for_each(|inherited| inherited.leave_to_template(py))?;
            process::unblock_signals(&loaded.1.mask);
            if !after_fork::call(py, launch, &log) {
                return Ok(ProcessExit::with(1));
            }
            let is_ready = pages.as_ref().is_some_and(Pages::prepare);
            if service.warm && !is_ready {
                rehearsal::once(py, &setting);
            }
            (loaded, block)
        }
        (WorkerStart::Loading { block, socket }, _) => {
            // Programs that the application starts while it is loaded must not inherit blocked
            // signals.
            process::unblock_signals(&SignalMask::none());
            title::show_loading_worker();
            modules = ModuleWatch::watched(launch, service, status.scoreboard.as_fd())?;
            let hint = (block.is_some() && service.workers > 1 && !service.warm)
                .then_some(OTHER_WORKER_LOADED_HINT);
            let begun = SystemTime::now();
            let loaded = load(hint).and_then(|loaded| {
                source_watch = watch(py, service, &log, begun)?;
                Ok(loaded)
            });
            let loaded = match loaded {
                Ok(loaded) => loaded,
                Err(reason) => {
                    socket.report(&TemplateEvent::load_failed(&reason));
                    return Ok(ProcessExit::with(1));
                }
            };
            socket.report(&TemplateEvent::Ready);
            match block.or_else(|| py.detach(|| socket.wait_for_block())) {
                Some(block) => (loaded, block),
                None => return Ok(ProcessExit::with(0)),
            }
        }
        (WorkerStart::Loaded { .. }, None) => return Ok(ProcessExit::with(1)),
    };
    let status = match source_watch {
        Some(source_watch) => {
            let watched = (&state, source_watch, pages, Arc::new(template_link));
            warm::run(
                py,
                &application,
                launch,
                service,
                sockets.listeners,
                (status, block),
                watched,
            )
        }
        None => serving::run(
            py,
            &application,
            launch,
            service,
            sockets,
            (status, block),
            (&state.mask, modules),
        ),
    }?;
    Ok(ProcessExit {
        status,
        ownership: inherited.map_or(FinalisationScope::All, FinalisationScope::Forked),
    })
}

/// The event for the supervisor if no worker may be forked from this process: loading the
/// application has had the side effects `side_effects`.
fn not_forkable(
    side_effects: &[SideEffect],
    launch: &Launch,
    service: &Service,
    log: &Log,
) -> Option<TemplateEvent> {
    match service.preload {
        // Another template finds the responsible code, after this one has exited and released its
        // resources.
        Preload::Auto => {
            (Sharing::of(side_effects) > Sharing::Forked).then_some(TemplateEvent::NotForkable)
        }
        Preload::Trace => {
            log.write(&import_audit::not_forked(side_effects, launch, service));
            let is_for_one = Sharing::of(side_effects) == Sharing::OneProcess;
            Some(if is_for_one { TemplateEvent::OneProcess } else { TemplateEvent::NotForkable })
        }
        Preload::Yes | Preload::No => {
            import_audit::forked_anyway(side_effects, launch)
                .iter()
                .for_each(|message| log.write(message));
            None
        }
    }
}

/// Watches, in a warm pool, the files that were loaded since `begun`. If that is impossible, logs
/// and returns the reason.
fn watch(
    py: Python<'_>,
    service: &Service,
    log: &Log,
    begun: SystemTime,
) -> Result<Option<SourceWatch>, String> {
    if !service.warm {
        return Ok(None);
    }
    SourceWatch::watch(py, begun).map(Some).map_err(|error| {
        let message = LogMessage::new(
            Code::NotWatched,
            format!("the files of the application cannot be watched: {error}"),
        )
        .hint(
            "raise fs.inotify.max_user_watches or max_user_instances; meanwhile requests fall \
             back to cold CGI",
        );
        log.write(&message);
        message.summary()
    })
}
