//! Serves a synthetic request with a trivial application before the first real request.
//!
//! A forked process shares memory with its template. The kernel interrupts the process at the first
//! write to each page, and at the first use of each program page. One small response causes some
//! hundred interruptions, which take longer than the response itself. The rehearsal causes them
//! while no client waits. In the template, the dynamic linker and the interpreter also do their
//! lazy work once for all processes.

use std::io;

use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyCFunction, PyDict, PyList, PyTuple},
};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    net::SocketType,
};
use wire::{request::ResponseFormat, synthetic_request::SyntheticRequest};

use crate::{
    log::Log,
    process::{
        environment::{
            take_environment, {self},
        },
        forks::{
            Descriptor, {self},
        },
    },
    reporter::Reporter,
    transport::cgi::{CgiRequest, ResponseEnding},
    wsgi::{Interruptible, ServerSettings},
};

/// How often a template repeats the rehearsal: the interpreter specializes code that has run a few
/// times.
const TIMES: usize = 12;

/// The request of the rehearsal.
const REQUEST: SyntheticRequest<'_> = SyntheticRequest {
    method: "GET",
    is_https: false,
    host: "localhost",
    script_name: "/rehearsal",
    path: "/",
    query: "name=value",
};

/// Runs the rehearsal in a template.
pub(crate) fn of_template(py: Python<'_>, setting: &ServerSettings) {
    (0..TIMES).for_each(|_| once(py, setting));
}

/// Runs the rehearsal in a process without other threads, which would see the changed environment.
pub(crate) fn once(py: Python<'_>, setting: &ServerSettings) {
    // The application may have replaced something needed here. Its real requests report that.
    let _ = rehearse(py, setting);
}

fn rehearse(py: Python<'_>, setting: &ServerSettings) -> PyResult<()> {
    let before = environment::variables(py)?;
    // Persistent variables come first, as in the request of a gateway.
    let mut variables = before.clone();
    let request = REQUEST.variables();
    variables.retain(|(name, _)| !request.iter().any(|(known, _)| known.as_bytes() == name));
    variables.extend(request.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)));
    take_environment(py, &variables)?;
    let served = serve(py, setting, variables);
    take_environment(py, &before)?;
    served
}

fn serve(
    py: Python<'_>,
    setting: &ServerSettings,
    variables: Vec<(Vec<u8>, Vec<u8>)>,
) -> PyResult<()> {
    // Nobody reads these reports.
    let (ours, _theirs) = forks::pair(SocketType::SEQPACKET)?;
    let request = CgiRequest {
        log: Log::new("rehearsal", "GET /"),
        variables,
        body: nothing(OFlags::RDONLY)?,
        output: nothing(OFlags::WRONLY)?,
        reporter: Reporter::new(ours),
        interruptible: Interruptible::without_deadline(),
        response_format: ResponseFormat::Cgi,
        ending: ResponseEnding { notify: Box::new(|_| {}), is_guarded: true, exits: false },
    };
    let application = PyCFunction::new_closure(
        py,
        Some(c"rehearsal"),
        None,
        |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            let fields = PyList::new(py, [("Content-Type", "text/plain")])?;
            arguments.get_item(1)?.call1((intern!(py, "200 OK"), fields))?;
            Ok(PyList::new(py, [PyBytes::new(py, b"rehearsal\n")])?.into_any().unbind())
        },
    )?;
    request.serve(py, setting.clone(), |_| Ok((application.into_any(), None))).map(drop)
}

fn nothing(how: OFlags) -> io::Result<Descriptor> {
    Ok(Descriptor::made(|| openat(CWD, c"/dev/null", how | OFlags::CLOEXEC, Mode::empty()))?)
}
