//! Requests: builds the exchange for the application from the variables of a request.

use std::{
    ffi::c_long,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use diagnostics::{
    escape,
    message::{Code, LogMessage},
    request_id::{self, Ids},
};
use pyo3::prelude::*;
use wire::{
    launch::{Launch, Service, Work},
    request::ResponseFormat,
};

use crate::{
    log::{Log, Transcript},
    pool::{
        access_log::{self, AccessRecord},
        serving::request_start,
        worker_status::WorkerStatus,
    },
    process::{ApplicationTimers, ServingRequest},
    transport::{
        Connection, Request,
        error_sinks::{CopiedErrors, StandardError},
    },
    wsgi::{
        BadVariable, BodyLength, DuplicatePolicy, Exchange, KnownVariable, Refusal, RequestOutcome,
        Response, Server, ServerSettings, Variables, refuse, trust_proxies,
    },
};

/// The state that one thread of a worker needs to call the application.
pub(super) struct Caller<'a, 'py> {
    /// The number of the thread.
    thread: u32,
    /// Python's name of the thread, unless it is the main thread.
    python_thread: Option<c_long>,
    application: &'a Bound<'py, PyAny>,
    server: Server,
}

impl<'a, 'py> Caller<'a, 'py> {
    /// The state of this thread, which has the number `thread`.
    ///
    /// # Errors
    /// If Python is short of memory.
    pub(super) fn new(
        application: &'a Bound<'py, PyAny>,
        thread: u32,
        setting: &ServerSettings,
    ) -> PyResult<Self> {
        let py = application.py();
        Ok(Self {
            thread,
            python_thread: if thread == 0 { None } else { python_thread(py) },
            application,
            server: Server::new(py, setting.clone(), Arc::new(StandardError))?,
        })
    }

    pub(super) fn py(&self) -> Python<'py> {
        self.application.py()
    }

    /// The number of the thread.
    pub(super) fn thread(&self) -> u32 {
        self.thread
    }
}

/// Python's name of this thread. Without a name, requests of the thread cannot be interrupted, and
/// the supervisor kills the process instead.
fn python_thread(py: Python<'_>) -> Option<c_long> {
    py.import("_thread").and_then(|module| module.call_method0("get_ident")?.extract()).ok()
}

/// The parts of the environ that are the same for every request of the pool.
pub(crate) fn setting(launch: &Launch, service: &Service) -> ServerSettings {
    ServerSettings {
        multithread: service.threads > 1,
        // Another process manager does not report how many processes it starts.
        multiprocess: service.workers > 1 || matches!(launch.work, Work::Worker(_)),
        run_once: false,
        debug: launch.debug,
        timeout_seconds: launch.request.timeout_seconds,
        response_timeout_seconds: launch.request.response_timeout_seconds,
        socket_timeout_seconds: service.socket_timeout_seconds,
        is_cgi: service.warm,
        script_name: launch.script_name.as_deref().map(Into::into),
        proxies: Arc::new(launch.proxies.clone()),
        offload: launch.offload.clone().map(Arc::new),
    }
}

/// The state that all requests of a worker share.
pub(super) struct Requests {
    status: Arc<WorkerStatus>,
    setting: ServerSettings,
    ids: Ids,
    /// Error messages go to the web server, too.
    copies_errors: bool,
    timers: ApplicationTimers,
    /// Why the application could not be loaded.
    failure: Option<Refusal>,
    /// Number of requests that are being served.
    active: AtomicU32,
    served: AtomicU64,
    /// A request was served since [`Requests::take_idle`].
    is_used: AtomicBool,
}

impl Requests {
    /// The requests of a worker of `service`. With `failure`, every request gets its error page.
    pub(super) fn new(
        launch: &Launch,
        service: &Service,
        status: &Arc<WorkerStatus>,
        failure: Option<Refusal>,
    ) -> Self {
        Self {
            status: status.clone(),
            setting: setting(launch, service),
            ids: Ids::new(),
            copies_errors: service.logs.to_server,
            timers: ApplicationTimers::default(),
            failure,
            active: AtomicU32::new(0),
            served: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
        }
    }

    pub(super) fn setting(&self) -> &ServerSettings {
        &self.setting
    }

    /// Was the application loaded?
    pub(super) fn has_application(&self) -> bool {
        self.failure.is_none()
    }

    /// A log message if loading the application has left a timer running.
    pub(super) fn timer_after_loading(&self) -> Option<LogMessage> {
        self.timers.after_loading()
    }

    /// Was a request served since [`Requests::take_idle`]?
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Was a request served since the last call? If no request is being served, logs a timer that a
    /// request has left running.
    pub(super) fn take_idle(&self) -> bool {
        let is_used = self.is_used.swap(false, Ordering::Relaxed);
        if is_used
            && self.active.load(Ordering::Relaxed) == 0
            && let Some(message) = self.timers.when_idle()
        {
            Log::without_request("worker").write(&message);
        }
        is_used
    }

    /// Serves `request` of `connection`. Returns the number of requests that the worker has served.
    pub(super) fn serve<C: Connection>(
        &self,
        caller: &mut Caller<'_, '_>,
        connection: &C,
        request: &C::Request,
        settings: &C::Settings,
    ) -> u64 {
        let py = caller.py();
        let _serving = self.status.is_alone().then(ServingRequest::begin);
        self.active.fetch_add(1, Ordering::Relaxed);
        // If a name repeats, the last value counts: FastCGI 1.0, 5.2 does not define the order, and
        // in web servers later settings win.
        let mut variables = Variables::new(request.variables(), DuplicatePolicy::Last);
        if let (Some(script_name), Ok(variables)) = (&self.setting.script_name, &mut variables) {
            variables.mount_at(script_name);
        }
        let log = self.log(&variables, request);
        let own_log = log.clone();
        let path = || variables.as_ref().map_or_else(|_| Vec::new(), Variables::path);
        let interruptible = self.status.interruptible(caller.thread, caller.python_thread, path);
        let record = AccessRecord::begin(log.request_id());
        // Not earlier: a timeout for a path does not depend on the prefix that a proxy has removed.
        if let Ok(variables) = &mut variables {
            trust_proxies(variables, &self.setting.proxies);
        }
        let client = variables.as_ref().ok().filter(|_| record.is_some());
        let client = client.and_then(|variables| variables.named("REMOTE_ADDR").map(Vec::from));
        self.status.begin_request(caller.thread, log.line(), &interruptible);
        let start = request.get(b"HTTP_X_REQUEST_START");
        let waited = start.and_then(|start| request_start::waited(start, SystemTime::now()));
        if let Some(waited) = waited {
            self.status.observe_waiting(caller.thread, waited);
        }
        let transcript = self.copies_errors.then(Arc::<Transcript>::default);
        let log = log.copied_to(transcript.clone());
        let length =
            variables.as_ref().map_or(BodyLength::UntilEnd, Variables::body_length_in_stream);
        let (body, response) =
            connection.begin(request, length, interruptible.clone(), transcript.clone(), settings);
        let response = access_log::counted(record.as_ref(), response);
        let served = match self.checked(request, variables) {
            Ok(variables) => {
                let exchange = Exchange {
                    variables,
                    body: Box::new(body),
                    response,
                    errors: transcript.map(|transcript| Arc::new(CopiedErrors(transcript)) as _),
                    form: C::FORM,
                    log,
                    interruptible,
                };
                caller.server.serve(caller.application, exchange)
            }
            Err(refusal) => {
                let method = request.get(KnownVariable::RequestMethod.name().as_bytes());
                let is_head = method == Some(b"HEAD");
                let response =
                    Response::new(response, ResponseFormat::Cgi, is_head, log, interruptible);
                refuse(py, response, self.setting.debug, &refusal)
            }
        };
        if served.outcome == RequestOutcome::Abandoned {
            self.status.count_aborted();
        }
        if let Some(record) = record {
            record.write(py, request, client, waited);
        }
        self.status.record_response(caller.thread, served.status);
        self.status.end_request(py, caller.thread);
        // A timer may belong to any request that is being served.
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(message) = self.timers.after_request()
        {
            own_log.write(&message);
        }
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        self.is_used.store(true, Ordering::Relaxed);
        served
    }

    /// The variables of a request for the application, or why they are invalid.
    fn checked<'a>(
        &self,
        request: &impl Request,
        variables: Result<Variables<'a>, BadVariable>,
    ) -> Result<Variables<'a>, Refusal> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if request.has_nul() {
            let message =
                LogMessage::new(Code::BadRequest, "a variable of the request contains a NUL byte")
                    .hint("the request was answered with 400");
            return Err(Refusal::bad_request(message));
        }
        variables.map_err(|bad| Refusal::bad_request(bad.log_message()))
    }

    /// The log of a request, with the web server's request id or a new one.
    fn log(&self, variables: &Result<Variables<'_>, BadVariable>, request: &impl Request) -> Log {
        let value = |variable: KnownVariable| match variables {
            Ok(variables) => variables.get(variable),
            Err(_) => request.get(variable.name().as_bytes()),
        };
        let [unique_id, method, target] =
            [KnownVariable::UniqueId, KnownVariable::RequestMethod, KnownVariable::RequestUri]
                .map(|variable| value(variable).unwrap_or_default());
        let (method, target) = (escape::text(method), escape::text(target));
        match std::str::from_utf8(unique_id) {
            Ok(id) if request_id::is_request_id(id) => Log::for_target(id, &method, &target),
            _ => Log::for_target(&self.ids.next(), &method, &target),
        }
    }
}
