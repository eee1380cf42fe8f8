//! `wsgate check`: load the application, try one request under the strictest judge there is, say what was found.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use link::{
    check::{Findings, Loaded, Remains},
    launch::Launch,
    page::Form,
    report::Report,
};
use pyo3::{prelude::*, types::PyDict};

use super::remains::{Origins, Present, Witness};
use crate::{
    app,
    log::Log,
    reporter::Reporter,
    transport::cgi::StandardError,
    wsgi::{BodySource, Exchange, Interruptible, Names, Outcome, ReplySink, Server, Setting, Twice, Variables},
};

/// Writes the findings about the application to the reply descriptor.
pub(super) fn run(py: Python<'_>, launch: &Launch, reply: OwnedFd, reporter: &Reporter) -> PyResult<()> {
    let findings = findings(py, launch)?;
    write(findings.encode().map_err(io::Error::other), reply, reporter);
    Ok(())
}

/// Loads the application slowly, to see what does what, and writes to the reply descriptor what that leaves behind.
pub(super) fn trace(py: Python<'_>, launch: &Launch, reply: OwnedFd, reporter: &Reporter) -> PyResult<()> {
    let witness = Witness::begin(py)?;
    let before = Present::now();
    // An application that is loaded is held until it was looked at what it holds.
    let loaded = app::load(py, launch, &setting(launch));
    let remains = before.remains(py, &witness.end(py)?);
    drop(loaded);
    write(Remains::encode(&remains).map_err(io::Error::other), reply, reporter);
    Ok(())
}

fn write(bytes: io::Result<Vec<u8>>, reply: OwnedFd, reporter: &Reporter) {
    reporter.send(&Report::HeadLeaves);
    let written = bytes.and_then(|bytes| File::from(reply).write_all(&bytes));
    reporter.send(&Report::Done { complete: written.is_ok() });
}

fn setting(launch: &Launch) -> Setting {
    Setting {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: true,
        timeout_seconds: launch.timeout_seconds,
    }
}

fn findings(py: Python<'_>, launch: &Launch) -> PyResult<Findings> {
    let setting = setting(launch);
    let before = Present::now();
    let begin = Instant::now();
    let loaded = app::load(py, launch, &setting);
    let import_time = begin.elapsed();
    let sys = py.import("sys")?;
    let text = |name: &str| -> PyResult<String> { sys.getattr(name)?.str()?.extract() };
    let version = sys.getattr("version_info")?;
    let number = |index: usize| -> PyResult<u32> { version.get_item(index)?.extract() };
    Ok(Findings {
        python_version: format!("{}.{}.{}", number(0)?, number(1)?, number(2)?),
        executable: text("executable")?,
        prefix: text("prefix")?,
        in_venv: !sys.getattr("prefix")?.eq(sys.getattr("base_prefix")?)?,
        sys_path: sys.getattr("path")?.try_iter()?.map(|entry| entry?.str()?.extract()).collect::<PyResult<_>>()?,
        import_time,
        loaded: match loaded {
            Err(failure) => Err(failure.entry.for_client()),
            Ok(loaded) => {
                let remains = before.remains(py, &Origins::default());
                let (first_request, request_time) = first_request(py, &loaded.application, setting)?;
                Ok(Loaded {
                    callable: loaded.name,
                    kind: loaded.application.get_type().fully_qualified_name()?.to_string(),
                    files: files(&sys)?,
                    first_request,
                    request_time,
                    remains,
                    threads: std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count).saturating_sub(1),
                })
            }
        },
    })
}

/// Files of every module that is loaded.
fn files(sys: &Bound<'_, PyModule>) -> PyResult<Vec<Vec<u8>>> {
    let modules = sys.getattr("modules")?.cast_into::<PyDict>()?;
    let mut files = Vec::new();
    for (_, module) in modules {
        // Modules may be any object, and their attributes may raise.
        let file = module.getattr("__file__").and_then(|file| file.extract::<std::ffi::OsString>());
        if let Ok(file) = file {
            files.push(std::os::unix::ffi::OsStringExt::into_vec(file));
        }
    }
    Ok(files)
}

/// Status line of the reply to a plain `GET /` under `wsgiref.validate`, or the log entries that came of it.
fn first_request(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    setting: Setting,
) -> PyResult<(Result<String, String>, Duration)> {
    let validated = py.import("wsgiref.validate")?.call_method1("validator", (application,))?;
    let received = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/"),
        ("QUERY_STRING", ""),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("HTTP_HOST", "localhost"),
        ("REMOTE_ADDR", "127.0.0.1"),
    ];
    let received = received.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let variables = Variables::new(received, Twice::First, &mut Names::default())
        .map_err(|bad| pyo3::exceptions::PyRuntimeError::new_err(bad.to_string()))?;
    let (log, entries) = Log::kept();
    let reply = Kept::default();
    let begin = Instant::now();
    let exchange = Exchange {
        variables,
        body: Box::new(Empty),
        data: None,
        errors: None,
        reply: Box::new(reply.clone()),
        form: Form::Cgi,
        log,
        interruptible: Interruptible::yes(),
    };
    let outcome = Server::new(py, setting, Arc::new(StandardError))?.serve(&validated, exchange);
    let time = begin.elapsed();
    let entries = entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let bytes = reply.bytes.lock().unwrap_or_else(PoisonError::into_inner);
    let head = String::from_utf8_lossy(&bytes);
    let status = head.strip_prefix("Status: ").and_then(|rest| rest.lines().next()).unwrap_or_default();
    let verdict = if outcome == Outcome::Replied && entries.is_empty() { Ok(status.to_owned()) } else { Err(entries) };
    Ok((verdict, time))
}

/// A request body without a byte.
struct Empty;

impl BodySource for Empty {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

/// A reply of which the beginning is kept.
#[derive(Clone, Default)]
struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl ReplySink for Kept {
    fn head_leaves(&mut self) {}

    fn write(&mut self, head: &[u8], block: &[u8], _last: bool) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(head);
        Ok(head.len() + block.len())
    }

    fn send_file(&mut self, _: BorrowedFd<'_>, _: u64, count: usize) -> io::Result<usize> {
        Ok(count)
    }

    fn is_whole(&mut self) {}

    fn is_abandoned(&mut self) -> bool {
        false
    }

    fn finish(&mut self, _: bool) {}
}
