//! Owner of an upgrade to another build of wsgate.
//!
//! A trial process of the installed program first loads the application ([`super::trial`]). Only if
//! that succeeds, this process executes the program (execve(2)). It keeps its number, its children
//! and its sockets ([`crate::pool::handover`]), loads the code, and replaces the workers as a
//! reload does.

use std::{
    env,
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use control::pool_status::{FailedLoad, PoolStatus};
use diagnostics::{
    escape,
    message::{Code as LogCode, LogMessage},
    process_exit::ExitText,
    shorten::shorten,
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
};
use wire::running_clock;

use crate::{
    guard::start::cleared_environment,
    pool::{
        address::Address,
        error_log::ErrorLog,
        handover::{Draft, Inheritance, READY, VARIABLE, contents},
        supervisor::{
            code::Code,
            control::Control,
            failed_attempt::FailedAttempt,
            lifecycle::Phase,
            request_queue::RequestQueue,
            resources::PoolResources,
            workers::{Workers, handover},
        },
        template::Template,
    },
    system::{
        command_line::arguments,
        signals::{block_all, unblock_all},
    },
};

/// Pause before the next look at workers that have been ordered.
pub(super) const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// How long orders, refusals and answers that are under way may take.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of the reason of a failure in bytes.
const MAX_REASON_BYTES: usize = 2000;

/// An upgrade of the program.
pub(super) struct Upgrade {
    program: PathBuf,
    /// The addresses of `--listen`, and those that the pool was started with.
    listen: [Vec<Address>; 2],
    stage: UpgradeStage,
    failed: Option<FailedAttempt>,
}

enum UpgradeStage {
    /// No upgrade was requested.
    Idle,
    /// The upgrade begins when the pool serves and loads no code.
    Requested,
    /// The next program loads the application.
    Trying(Trial),
    /// The trial has succeeded. No more workers are ordered, and the program is executed when
    /// nothing is under way, or at this time.
    Proven(Instant),
}

struct Trial {
    child: Child,
    result: File,
}

/// What an upgrade hands over.
pub(super) struct Running<'a> {
    /// The status of the pool, when that is handed over.
    pub(super) status: PoolStatus,
    pub(super) phase: Phase,
    pub(super) workers: &'a Workers,
    pub(super) code: &'a mut Code,
    pub(super) control: &'a mut Control,
    pub(super) resources: &'a PoolResources,
    /// The pool has `--clear-env`.
    pub(super) clears_environment: bool,
    /// Requests are being refused.
    pub(super) is_refusing: bool,
    pub(super) log: &'a mut ErrorLog,
}

impl Upgrade {
    /// No upgrade yet, of a pool whose `--listen` names the first addresses, and that was started
    /// with the second.
    pub(super) fn new(listen: [Vec<Address>; 2]) -> Self {
        Self { program: program(), listen, stage: UpgradeStage::Idle, failed: None }
    }

    /// Begins an upgrade as soon as possible. A trial that is running is given up.
    pub(super) fn request(&mut self) {
        self.cancel();
        self.stage = UpgradeStage::Requested;
    }

    /// Was an upgrade requested that has not ended?
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.stage, UpgradeStage::Idle)
    }

    /// Must no more workers be ordered?
    pub(super) fn is_handing_over(&self) -> bool {
        matches!(self.stage, UpgradeStage::Proven(_))
    }

    /// The last attempt, if that failed.
    pub(super) fn failed(&self) -> Option<FailedLoad> {
        self.failed.as_ref().map(FailedAttempt::status)
    }

    /// Time of the next look.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.is_handing_over().then(|| running_clock::instant() + CHECK_PAUSE)
    }

    /// Takes the next step. If all goes well, the last step executes the next program, and does not
    /// return.
    pub(super) fn proceed(&mut self, mut pool: Running<'_>) {
        if pool.phase.is_stopping() {
            self.cancel();
            pool.control.cancel_upgrade();
            return;
        }
        let failed = match &mut self.stage {
            UpgradeStage::Idle => None,
            UpgradeStage::Requested if pool.phase == Phase::Serving => {
                match self.begin_trial(&pool) {
                    Ok(trial) => {
                        self.stage = UpgradeStage::Trying(trial);
                        None
                    }
                    Err(reason) => Some(reason),
                }
            }
            UpgradeStage::Requested => None,
            UpgradeStage::Trying(trial) => match trial.result() {
                Some(Ok(())) => {
                    let due = running_clock::instant() + QUIET_TIMEOUT;
                    self.stage = UpgradeStage::Proven(due);
                    None
                }
                result => result.and_then(Result::err),
            },
            &mut UpgradeStage::Proven(due) if pool.phase == Phase::Serving => {
                self.hand_over(&mut pool, due)
            }
            UpgradeStage::Proven(_) => None,
        };
        if let Some(reason) = failed {
            let reason = shorten(&reason, MAX_REASON_BYTES).into_owned();
            self.stage = UpgradeStage::Idle;
            self.failed = Some(FailedAttempt::now(reason.clone()));
            let program = self.program.display();
            let sentence = format!("cannot upgrade the pool to `{program}`: {reason}");
            pool.log.log(&LogMessage::new(LogCode::UpgradeFailed, sentence).hint(
                "the pool keeps serving with its own build; fix the cause and try again, or \
                 restart the pool",
            ));
            pool.control.report_failed_upgrade(format!("`{program}`: {reason}"));
        }
    }

    fn cancel(&mut self) {
        if let UpgradeStage::Trying(trial) = &mut self.stage {
            // The trial may have exited a moment ago. Its template exits with it.
            let _ = trial.child.kill().and_then(|()| trial.child.wait());
        }
        self.stage = UpgradeStage::Idle;
    }

    fn begin_trial(&self, pool: &Running<'_>) -> Result<Trial, String> {
        let failed = |error: io::Error| format!("cannot execute the program: {error}");
        let result = memfd_create("wsgate-upgrade-result", MemfdFlags::CLOEXEC);
        let result = File::from(result.map_err(|error| failed(error.into()))?);
        let mut draft = Draft::default();
        self.add_resources(&mut draft, pool.control, pool.resources);
        let inheritance = draft.pass(Some(result.as_fd())).map_err(failed)?;
        let mut command = self.command(&inheritance, pool.clears_environment);
        let child = command.process_group(0).spawn().map_err(failed)?;
        drop(inheritance);
        Ok(Trial { child, result })
    }

    fn add_resources<'a>(
        &self,
        draft: &mut Draft<'a>,
        control: &Control,
        resources: &'a PoolResources,
    ) {
        [draft.state.listen, draft.state.addresses] = self.listen.clone();
        control.name().clone_into(&mut draft.state.name);
        resources.sockets.hand_over(draft);
        resources.status_server.iter().for_each(|server| server.hand_over(draft));
        resources.request_queue.iter().for_each(|queue| draft.add_relay(queue.relay()));
        resources.logs.files().for_each(|(path, file)| draft.add_log(path, file));
    }

    /// Executes the next program once nothing is under way, or at `due`. Returns the reason if that
    /// fails.
    fn hand_over(&self, pool: &mut Running<'_>, due: Instant) -> Option<String> {
        // A worker that is not running yet would be lost.
        pool.code.templates().current().into_iter().for_each(Template::cancel_pending);
        let queue = pool.resources.request_queue.as_ref();
        let is_refusing = pool.is_refusing || queue.is_some_and(RequestQueue::is_refusing);
        let is_busy = pool.workers.has_order() || is_refusing || !pool.control.has_answered();
        if is_busy && running_clock::instant() < due {
            return None;
        }
        pool.code.give_up_loading();
        pool.log.finish();
        Some(format!("cannot execute the program: {}", self.execute(pool)))
    }

    /// Executes the next program. Returns the error if that fails.
    fn execute(&self, pool: &mut Running<'_>) -> io::Error {
        let mut draft = Draft::default();
        self.add_resources(&mut draft, pool.control, pool.resources);
        pool.control.hand_over(&mut draft);
        let held = pool.resources.request_queue.iter().flat_map(RequestQueue::held);
        held.for_each(|connection| draft.add_held(connection));
        let templates = pool.code.templates();
        for template in templates.all() {
            let (channel, gateway_pipe) = template.ends();
            draft.add_template(template.pid(), template.generation(), channel, gateway_pipe);
        }
        draft.state.workers = handover::hand_over(pool.workers);
        draft.state.started = templates.started();
        draft.state.status = std::mem::take(&mut pool.status);
        // Descriptors that processes inherit stay open otherwise, and no program knows them.
        let mut inherited = pool.resources.inherited().chain(pool.code.engine());
        let is_closed = inherited.try_for_each(|it| Ok(fcntl_setfd(it, FdFlags::CLOEXEC)?));
        if let Err(error) = is_closed.and_then(|()| block_all()) {
            return error;
        }
        let error = match draft.pass(None) {
            // Signals that arrive meanwhile wait for the handlers of the next program.
            Ok(inheritance) => self.command(&inheritance, pool.clears_environment).exec(),
            Err(error) => error,
        };
        unblock_all().err().unwrap_or(error)
    }

    /// The next program, with the arguments of this one.
    fn command(&self, inheritance: &Inheritance<'_>, clears_environment: bool) -> Command {
        let mut command = Command::new(&self.program);
        if clears_environment {
            command.env_clear().envs(cleared_environment());
        }
        if let Some((name, arguments)) = arguments().split_first() {
            command.arg0(name).args(arguments);
        }
        command.env(VARIABLE, inheritance.variable());
        command
    }
}

impl Trial {
    /// The result, once the process has exited.
    fn result(&mut self) -> Option<Result<(), String>> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status,
            Err(error) => return Some(Err(error.to_string())),
        };
        let result = contents(&self.result).unwrap_or_default();
        Some(match &*result {
            result if result == READY.as_bytes() && status.success() => Ok(()),
            b"" => Err(format!(
                "the program {} without having loaded the application",
                ExitText(status)
            )),
            reason => Err(escape::visible(reason)),
        })
    }
}

/// The path that this process was started by. A package replaces the file at this path, or a link
/// on the way to it.
fn program() -> PathBuf {
    let name = arguments().first().cloned().unwrap_or_default();
    let own = fs::metadata("/proc/self/exe").ok();
    let is_own = |path: &PathBuf| match (&own, fs::metadata(path)) {
        (Some(own), Ok(found)) => (own.dev(), own.ino()) == (found.dev(), found.ino()),
        _ => false,
    };
    let named: Vec<PathBuf> = if Path::new(&name).components().count() > 1 {
        std::path::absolute(&name).into_iter().collect()
    } else {
        let directories = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&directories).map(|directory| directory.join(&name)).collect()
    };
    let named = named.into_iter().filter(|path| path.is_absolute()).find(is_own);
    named.or_else(|| env::current_exe().ok()).unwrap_or_else(|| name.into())
}
