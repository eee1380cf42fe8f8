//! `--warm-up`: the process that loads the application serves one request before forking workers.
//! Workers then inherit everything that the application loads or creates at its first request.

use std::time::Duration;

use diagnostics::{
    message::{Code, LogMessage},
    request_id,
};
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::{Signal, getpid};
use wire::launch::{Launch, WarmUp};

use crate::{
    loading::synthetic_request::{
        SyntheticResponse, {self},
    },
    log::Log,
    wsgi::{Interrupted, Interruptible, ServerSettings},
};

/// The interval timer that counts real time (setitimer(2)).
const ITIMER_REAL: i32 = 0;

/// Serves the warm-up request, if `launch` names one. A failure only writes a message to `log`.
pub(crate) fn run(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    setting: &ServerSettings,
    log: &Log,
) {
    let Some(warm_up) = &launch.warm_up else {
        return;
    };
    let ourselves = getpid();
    let answer = answer(py, application, launch, warm_up, setting);
    if getpid() != ourselves {
        // A child that the application forked must not become a second template.
        std::process::exit(0);
    }
    let target = &warm_up.target;
    let message = match answer {
        Ok(SyntheticResponse { messages, is_complete, .. })
            if !is_complete || !messages.is_empty() =>
        {
            LogMessage::new(
                Code::WarmUpFailed,
                format!("the warm-up request for `{target}` failed"),
            )
            .detail(messages)
        }
        Ok(SyntheticResponse { status, .. }) if !status.starts_with(['4', '5']) => return,
        Ok(SyntheticResponse { status, .. }) => LogMessage::new(
            Code::WarmUpFailed,
            format!("the warm-up request for `{target}` was answered with `{status}`"),
        ),
        Err(error) => LogMessage::new(
            Code::WarmUpFailed,
            format!("no warm-up request could be made: {error}"),
        ),
    };
    log.write(
        &message.hint("requests are served all the same; `wsgate call` repeats it from a shell"),
    );
}

fn answer(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    warm_up: &WarmUp,
    setting: &ServerSettings,
) -> PyResult<SyntheticResponse> {
    let (scheme, host, target) = warm_up.parts(launch.script_name.as_deref().unwrap_or_default());
    let interruptible = Interruptible::without_deadline();
    let limit =
        WarmUpLimit::begin(py, Duration::from_secs(warm_up.seconds), interruptible.clone())?;
    let setting = ServerSettings { timeout_seconds: warm_up.seconds, ..setting.clone() };
    let answer = synthetic_request::ask(
        application,
        setting,
        &request_id::new(),
        (scheme, host, target),
        interruptible,
    );
    limit.end(py)?;
    answer
}

/// Interrupts the warm-up request by SIGALRM at its time limit, since no gateway limits this
/// request.
struct WarmUpLimit<'py> {
    signal: Bound<'py, PyModule>,
    handler: Bound<'py, PyCFunction>,
    before: Bound<'py, PyAny>,
}

impl<'py> WarmUpLimit<'py> {
    fn begin(py: Python<'py>, limit: Duration, interruptible: Interruptible) -> PyResult<Self> {
        let interrupt =
            move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                if interruptible.may_be_interrupted() {
                    Err(Interrupted::new_err("timeout"))
                } else {
                    Ok(())
                }
            };
        let handler = PyCFunction::new_closure(py, Some(c"interrupt"), None, interrupt)?;
        let signal = py.import("_signal")?;
        let before = signal.call_method1("signal", (Signal::ALARM.as_raw(), &handler))?;
        signal.call_method1("setitimer", (ITIMER_REAL, limit.as_secs_f64()))?;
        Ok(Self { signal, handler, before })
    }

    fn end(self, py: Python<'_>) -> PyResult<()> {
        let now = self.signal.call_method1("getsignal", (Signal::ALARM.as_raw(),))?;
        if !now.is(&self.handler) {
            // The application has installed its own handler, and perhaps a timer for it.
            return Ok(());
        }
        self.signal.call_method1("setitimer", (ITIMER_REAL, 0))?;
        // Handles a signal that has just arrived. The handler has no effect after the request.
        py.check_signals()?;
        let before = if self.before.is_none() {
            0_i32.into_pyobject(py)?.into_any()
        } else {
            self.before.into_any()
        };
        self.signal.call_method1("signal", (Signal::ALARM.as_raw(), before))?;
        Ok(())
    }
}
