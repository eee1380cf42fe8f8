//! A cold CGI request, served in its own process, like the CGI gateway in PEP 3333.

use std::{os::unix::ffi::OsStringExt as _, sync::Arc, time::Duration};

use pyo3::prelude::*;
use wire::{
    launch::{EXIT_TIMEOUT_SECONDS, Launch},
    report::Report,
};

use crate::{
    loading::{application, import_audit},
    log::Log,
    process::{self, environment, forks::Descriptor, gateway_pipe},
    reporter::Reporter,
    transport::cgi::{CgiRequest, ResponseEnding, close_hangs},
    wsgi::{Interruptible, ServerSettings},
};

/// Serves the request that the process environment describes. The first request for a future warm
/// pool also reports the import audit.
pub(crate) fn run(
    py: Python<'_>,
    launch: &Launch,
    (body, output): (Descriptor, Descriptor),
    reporter: Reporter,
    interruptible: Interruptible,
    (is_first, gateway_pipe): (bool, Option<Arc<Descriptor>>),
) -> PyResult<()> {
    let load_reporter = reporter.clone();
    let notify = {
        let (reporter, gateway) = (reporter.clone(), launch.gateway_pid);
        let limit = match launch.request.timeout_seconds {
            0 => EXIT_TIMEOUT_SECONDS,
            seconds => seconds,
        };
        let message = Log::new(&launch.request.id, &launch.request.line).text(&close_hangs(limit));
        // Web servers kill the gateway after the response, but `close()` still has to run.
        move |complete| {
            let watched = (gateway, gateway_pipe.as_deref());
            let signal = process::outlive_gateway(watched, Duration::from_secs(limit), &message);
            gateway_pipe
                .iter()
                .for_each(|pipe| drop(gateway_pipe::signal_when_closed(pipe, signal)));
            reporter.send(&Report::ResponseEnded { complete });
        }
    };
    let request = CgiRequest {
        log: Log::new(&launch.request.id, &launch.request.line),
        variables: std::env::vars_os()
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect(),
        body,
        output,
        reporter,
        interruptible,
        response_format: launch.request.response_format,
        ending: ResponseEnding { notify: Box::new(notify), is_guarded: true, exits: true },
    };
    let setting = ServerSettings {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: launch.debug,
        timeout_seconds: launch.request.timeout_seconds,
        response_timeout_seconds: launch.request.response_timeout_seconds,
        socket_timeout_seconds: 0,
        is_cgi: true,
        script_name: launch.script_name.as_deref().map(Into::into),
        proxies: Arc::new(launch.proxies.clone()),
        offload: launch.offload.clone().map(Arc::new),
    };
    let served = request.serve(py, setting, |setting| {
        let load = || {
            // As in any CGI script, `environ` includes the changes that loading made to the
            // environment.
            let loaded = application::load(py, launch, setting);
            load_reporter.send(&Report::Loaded);
            loaded.map(|loaded| (loaded.application, environment::variables(py).ok()))
        };
        if is_first { import_audit::report(py, launch, &load_reporter, load) } else { load() }
    });
    served.map(drop)
}
