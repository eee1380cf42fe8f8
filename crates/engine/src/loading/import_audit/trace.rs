//! Finds the code that opened or started something while an application was loaded.
//!
//! Audit events alone do not suffice: a client library in C opens connections and starts threads
//! without an event. So the trace checks for changes whenever Python calls its profiler. Between
//! two such calls only one function has run.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyString, PyTuple},
};
use rustix::{fs::fstat, io::fcntl_dupfd_cloexec};
use wire::check::CodeLocation;

use crate::{loading::import_audit::state::ProcessState, stdlib};

/// Audit events of calls that open no descriptor and start no thread.
const SILENT_EVENTS: [&str; 4] = ["mmap.__new__", "os.fork", "os.posix_spawn", "subprocess.Popen"];

/// Prefixes of audit events that announce something which may stay open or running, besides `open`.
const ANNOUNCEMENTS: [&str; 9] = [
    "socket.",
    "sqlite3.",
    "fcntl.",
    "subprocess.",
    "os.fork",
    "os.posix_spawn",
    "mmap.",
    "_thread.start",
    "tempfile.",
];

/// How often the trace looks for an announced change before giving up. `subprocess.Popen` makes
/// about twenty calls for each directory of PATH between its event and the new process.
const LOOKS_PER_ANNOUNCEMENT: u32 = 2048;

/// The code that opened or started each thing.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    pub(crate) descriptors: BTreeMap<(i32, OsString), CodeLocation>,
    pub(crate) threads: BTreeMap<i32, CodeLocation>,
    pub(crate) children: BTreeMap<i32, CodeLocation>,
    pub(crate) mappings: BTreeMap<OsString, CodeLocation>,
}

/// Watches the main thread while the application is loaded.
pub(crate) struct Trace {
    seen: Arc<Mutex<TraceState>>,
}

struct TraceState {
    /// The open thread directory of this process. The kernel counts the threads as links of the
    /// directory.
    threads: Option<File>,
    thread_links: u64,
    /// The lowest unused descriptor number.
    free: i32,
    state: ProcessState,
    origins: Origins,
    stdlib: PathBuf,
    /// How many more times the trace looks for an announced change.
    looks: Arc<AtomicU32>,
    /// The code that has announced to open or start something.
    expected: Option<CodeLocation>,
    is_over: bool,
}

impl Trace {
    /// Starts a trace that lasts until the application replaces Python's profiler. This process
    /// must not serve requests, since the audit hook stays.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub(crate) fn begin(py: Python<'_>) -> PyResult<Self> {
        let seen = TraceState::now(py)?;
        let seen = Arc::new(Mutex::new(seen));
        let shared = Arc::clone(&seen);
        let look =
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.is_changed() {
                    let (frame, event) = (arguments.get_item(0)?, arguments.get_item(1)?);
                    // A function that was just entered has done nothing yet.
                    let actor = if event.eq("call")? { frame.getattr("f_back")? } else { frame };
                    seen.take_note(&actor);
                }
                Ok(())
            };
        let look = PyCFunction::new_closure(py, Some(c"look"), None, look)?;
        let sys = py.import("sys")?;
        sys.call_method1("addaudithook", (Self::hook(py, &seen)?,))?;
        sys.call_method1("setprofile", (look,))?;
        Ok(Self { seen })
    }

    /// Notes a possible change that affects neither descriptors nor the number of threads.
    fn hook<'py>(
        py: Python<'py>,
        seen: &Arc<Mutex<TraceState>>,
    ) -> PyResult<Bound<'py, PyCFunction>> {
        let looks = Arc::clone(&seen.lock().unwrap_or_else(PoisonError::into_inner).looks);
        let note =
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                let event = arguments.get_item(0)?;
                if SILENT_EVENTS.iter().any(|silent| event.eq(silent).unwrap_or(false)) {
                    looks.store(LOOKS_PER_ANNOUNCEMENT, Ordering::Relaxed);
                }
                Ok(())
            };
        PyCFunction::new_closure(py, Some(c"note"), None, note)
    }

    /// Starts a trace that checks only after audit events, and so misses C code without events. The
    /// trace is cheap, for a process that serves one request. The hook stays.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub(crate) fn of_audit_events(py: Python<'_>) -> PyResult<Self> {
        let seen = Arc::new(Mutex::new(TraceState::now(py)?));
        let (shared, sys) = (Arc::clone(&seen), py.import("sys")?);
        let current_frame = sys.getattr("_getframe")?.unbind();
        let note =
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                // Getting the frame raises an audit event, too, while this event is handled.
                if is_announcement(arguments).unwrap_or(false)
                    && let Ok(frame) = current_frame.bind(arguments.py()).call0()
                    && let Ok(mut seen) = shared.try_lock()
                    && !seen.is_over
                {
                    seen.expect(&frame);
                }
                Ok(())
            };
        sys.call_method1(
            "addaudithook",
            (PyCFunction::new_closure(py, Some(c"note"), None, note)?,),
        )?;
        Ok(Self { seen })
    }

    /// Also checks whenever Python code starts a thread. Python has an audit event for that only
    /// from version 3.12 on. This process must not serve requests, since the function that starts
    /// threads stays replaced.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn look_at_thread_starts(&self, py: Python<'_>) -> PyResult<()> {
        let module = py.import("_thread")?;
        let start = module.getattr("start_new_thread")?;
        let (shared, current_frame) =
            (Arc::clone(&self.seen), py.import("sys")?.getattr("_getframe")?.unbind());
        let original = start.clone().unbind();
        let note = move |arguments: &Bound<'_, PyTuple>,
                         named: Option<&Bound<'_, PyDict>>|
              -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            if let Ok(frame) = current_frame.bind(py).call0()
                && let Ok(mut seen) = shared.try_lock()
                && !seen.is_over
            {
                seen.expect(&frame);
            }
            Ok(original.bind(py).call(arguments, named)?.unbind())
        };
        let note = PyCFunction::new_closure(py, Some(c"start_new_thread"), None, note)?;
        module.setattr("start_new_thread", &note)?;
        let Ok(threading) = stdlib::import(py, "threading") else {
            return Ok(());
        };
        // Until Python 3.12, `threading` has a second name for the same function.
        if threading.getattr("_start_new_thread").is_ok_and(|known| known.is(&start)) {
            threading.setattr("_start_new_thread", note)?;
        }
        Ok(())
    }

    /// Stops the trace, and returns the findings.
    pub(crate) fn end(self, py: Python<'_>) -> Origins {
        if let Err(error) =
            py.import("sys").and_then(|sys| sys.call_method1("setprofile", (py.None(),)))
        {
            error.print(py);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.settle_expected();
        (seen.is_over, seen.threads) = (true, None);
        std::mem::take(&mut seen.origins)
    }
}

/// Does the audit event announce something that may stay open or running? Files of modules are
/// excluded: the import closes them.
fn is_announcement(arguments: &Bound<'_, PyTuple>) -> PyResult<bool> {
    let event = arguments.get_item(0)?;
    let event: &Bound<'_, PyString> = event.cast()?;
    let event = event.to_cow()?;
    if event != "open" {
        return Ok(ANNOUNCEMENTS.iter().any(|prefix| event.starts_with(prefix)));
    }
    let path = arguments
        .get_item(1)
        .and_then(|arguments| arguments.get_item(0))
        .and_then(|path| path.extract::<OsString>());
    Ok(!path
        .is_ok_and(|path| [&b".py"[..], b".pyc"].iter().any(|end| path.as_bytes().ends_with(end))))
}

impl TraceState {
    fn now(py: Python<'_>) -> PyResult<Self> {
        let os: PathBuf = py.import("os")?.getattr("__file__")?.extract()?;
        let threads = Some(File::open("/proc/self/task")?);
        let mut seen = Self {
            thread_links: links(&threads),
            threads,
            free: lowest_free().unwrap_or_default(),
            state: ProcessState::now(),
            origins: Origins::default(),
            stdlib: os.parent().unwrap_or(Path::new("/")).to_owned(),
            looks: Arc::default(),
            expected: None,
            is_over: false,
        };
        seen.thread_links = links(&seen.threads);
        Ok(seen)
    }

    /// Attributes present changes to the code that was expected to make them. Then expects the next
    /// change from the code in `frame`.
    fn expect(&mut self, frame: &Bound<'_, PyAny>) {
        self.settle_expected();
        self.looks.store(LOOKS_PER_ANNOUNCEMENT, Ordering::Relaxed);
        self.expected = origin(frame, &self.stdlib);
    }

    fn settle_expected(&mut self) {
        if let Some(expected) = self.expected.take() {
            self.attribute(Some(&expected));
        }
    }

    /// Was a descriptor opened or closed, or has the number of threads changed? Runs at every call,
    /// so a check takes only a few system calls.
    fn is_changed(&self) -> bool {
        lowest_free().ok() != Some(self.free)
            || links(&self.threads) != self.thread_links
            || self.looks.load(Ordering::Relaxed) > 0
    }

    fn take_note(&mut self, actor: &Bound<'_, PyAny>) {
        let origin = origin(actor, &self.stdlib);
        self.attribute(origin.as_ref());
    }

    fn attribute(&mut self, origin: Option<&CodeLocation>) {
        self.thread_links = links(&self.threads);
        let mut now = ProcessState::of_descriptors_and_threads();
        let looks = self.looks.load(Ordering::Relaxed);
        if looks > 0 {
            self.looks.store(looks - 1, Ordering::Relaxed);
            now.look_at_children_and_mappings();
        } else {
            (now.children, now.mappings) =
                (self.state.children.clone(), std::mem::take(&mut self.state.mappings));
        }
        self.free = lowest_free().unwrap_or_default();
        if let Some(origin) = origin {
            for (&number, name) in &now.descriptors {
                if self.state.descriptors.get(&number) != Some(name) {
                    self.origins.descriptors.insert((number, name.clone()), origin.clone());
                }
            }
            for &thread in now.threads.difference(&self.state.threads) {
                self.origins.threads.insert(thread, origin.clone());
            }
            for &child in now.children.difference(&self.state.children) {
                self.origins.children.insert(child, origin.clone());
            }
            // Unchanged mappings were moved to `now` above.
            let mappings =
                now.mappings.shared.difference(&self.state.mappings.shared).filter(|_| looks > 0);
            for name in mappings {
                self.origins.mappings.insert(name.clone(), origin.clone());
            }
        }
        if looks > 0 && self.has_less_than(&now) {
            self.looks.store(0, Ordering::Relaxed);
        }
        self.state = now;
    }

    /// Does `now` have a child process or a shared mapping that this snapshot lacks?
    fn has_less_than(&self, now: &ProcessState) -> bool {
        now.children.difference(&self.state.children).next().is_some()
            || now.mappings.shared.difference(&self.state.mappings.shared).next().is_some()
    }
}

fn lowest_free() -> io::Result<i32> {
    Ok(fcntl_dupfd_cloexec(io::stdin(), 0)?.as_raw_fd())
}

fn links(directory: &Option<File>) -> u64 {
    // The type differs between architectures.
    #[allow(
        clippy::allow_attributes,
        clippy::useless_conversion,
        reason = "on some it is this one"
    )]
    directory
        .as_ref()
        .and_then(|directory| fstat(directory).ok())
        .map_or(0, |found| found.st_nlink.into())
}

/// The innermost code that is responsible for `frame`: preferably code of the application,
/// otherwise of a package, never of the standard library.
fn origin(frame: &Bound<'_, PyAny>, stdlib: &Path) -> Option<CodeLocation> {
    let mut package: Option<CodeLocation> = None;
    let mut next = frame.clone();
    while !next.is_none() {
        let file: OsString =
            next.getattr("f_code").ok()?.getattr("co_filename").ok()?.extract().ok()?;
        let is_package = [&b"/site-packages/"[..], b"/dist-packages/"]
            .iter()
            .any(|part| file.as_bytes().windows(part.len()).any(|window| window == *part));
        let is_python = !is_package
            && (file.as_bytes().starts_with(b"<") || Path::new(&file).starts_with(stdlib));
        if !is_python && (!is_package || package.is_none()) {
            let found = CodeLocation {
                module: next
                    .getattr("f_globals")
                    .ok()?
                    .get_item("__name__")
                    .ok()?
                    .extract()
                    .ok()?,
                file: file.into_encoded_bytes(),
                line: next.getattr("f_lineno").ok()?.extract().ok()?,
                through: package.as_ref().map(|package| package.module.clone()),
            };
            if !is_package {
                return Some(found);
            }
            package = Some(found);
        }
        next = next.getattr("f_back").ok()?;
    }
    package
}
