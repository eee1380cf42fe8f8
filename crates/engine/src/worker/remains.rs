//! What loading an application leaves behind, thing by thing, and the code that did it: for whoever asks whether it may be forked.
//!
//! Audit events would not do: a client library in C opens its connections, and starts its threads, without one. So whenever Python's
//! profiler is called it is looked whether something is new; between two such calls one function alone has run.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use link::check::{Origin, Remains};
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::{fs::fstat, io::fcntl_dupfd_cloexec};

use super::forkable;

/// What is open, and what runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Present {
    /// The kernel's name for what each descriptor is open on.
    descriptors: BTreeMap<i32, OsString>,
    threads: BTreeSet<i32>,
}

impl Present {
    /// What there is now.
    pub(super) fn now() -> Self {
        // The directory that is read here is open meanwhile.
        let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
        let descriptors = numbers("/proc/self/fd")
            .filter_map(|number| Some((number, fs::read_link(format!("/proc/self/fd/{number}")).ok()?)))
            .filter(|(_, name)| *name != own)
            .map(|(number, name)| (number, name.into_os_string()));
        Self { descriptors: descriptors.collect(), threads: numbers("/proc/self/task").collect() }
    }

    /// What has come since then and is still there. `origins` tells from where, as far as that is known.
    pub(super) fn remains(&self, py: Python<'_>, origins: &Origins) -> Vec<Remains> {
        py.detach(|| forkable::settle(|| numbers("/proc/self/task").all(|thread| self.threads.contains(&thread))));
        let now = Self::now();
        let mut threads: Vec<(Option<Origin>, usize)> = Vec::new();
        for thread in now.threads.difference(&self.threads) {
            let origin = origins.threads.get(thread).cloned();
            match threads.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, count)) => *count += 1,
                None => threads.push((origin, 1)),
            }
        }
        let threads = threads.into_iter().map(|(origin, count)| Remains {
            what: format!("started {}", forkable::count(count, "thread")),
            is_spoilt: true,
            origin,
        });
        let descriptors = now.descriptors.iter().filter(|(number, name)| self.descriptors.get(number) != Some(*name));
        let descriptors = descriptors.filter_map(|(&number, name)| {
            let (what, is_spoilt) = describe(number, name)?;
            let origin = origins.descriptors.get(&(number, name.clone())).cloned();
            Some(Remains { what, is_spoilt, origin })
        });
        threads.chain(descriptors).collect()
    }
}

/// Entries of a directory of /proc that are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What was done to open it, and whether processes that are forked disturb each other through it. Nothing for what nobody minds.
fn describe(number: i32, name: &OsStr) -> Option<(String, bool)> {
    let shown = name.to_string_lossy();
    if name.as_bytes().starts_with(b"socket:") {
        return Some((format!("opened a socket, {}", forkable::describe(number)), true));
    }
    let kind = fs::metadata(format!("/proc/self/fd/{number}")).ok()?.file_type();
    if kind.is_dir() || std::os::unix::fs::FileTypeExt::is_char_device(&kind) {
        return None;
    }
    if !kind.is_file() {
        return Some((format!("opened descriptor {number}, `{shown}`"), true));
    }
    if is_database(number) {
        return Some((format!("opened the SQLite database `{shown}`"), true));
    }
    // Everybody appends at the end, wherever that is; the position of any other file is one for all.
    if is_appended_to(number) {
        return Some((format!("opened the file `{shown}` to append to it"), false));
    }
    Some((format!("opened the file `{shown}`"), true))
}

/// Does the file begin as all databases of SQLite do?
fn is_database(number: i32) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut begin = [0_u8; 16];
    // Another descriptor of the file must not be closed, not even a copy: that would let go of the locks that SQLite holds.
    // SAFETY: the buffer is as long as the call is told. The descriptor need not be open; then the call fails.
    let read = unsafe { libc::pread(number, begin.as_mut_ptr().cast(), begin.len(), 0) };
    usize::try_from(read) == Ok(begin.len()) && begin == *MAGIC
}

fn is_appended_to(number: i32) -> bool {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = told.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_APPEND != 0)
}

/// Which code opened what, and started what.
#[derive(Debug, Default)]
pub(super) struct Origins {
    descriptors: BTreeMap<(i32, OsString), Origin>,
    threads: BTreeMap<i32, Origin>,
}

/// Looks on while the main thread runs.
pub(super) struct Witness {
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    /// Where the threads of this process are listed: the kernel counts them as links of it.
    threads: File,
    thread_links: u64,
    /// The lowest number that no descriptor has.
    free: i32,
    present: Present,
    origins: Origins,
    stdlib: PathBuf,
}

impl Witness {
    /// Begins to look on, until the application has Python's profiler call somebody else.
    ///
    /// # Errors
    /// If there is no /proc.
    pub(super) fn begin(py: Python<'_>) -> PyResult<Self> {
        let os: PathBuf = py.import("os")?.getattr("__file__")?.extract()?;
        let threads = File::open("/proc/self/task")?;
        let mut seen = Seen {
            thread_links: links(&threads),
            threads,
            free: lowest_free().unwrap_or_default(),
            present: Present::now(),
            origins: Origins::default(),
            stdlib: os.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        seen.thread_links = links(&seen.threads);
        let seen = Arc::new(Mutex::new(seen));
        let shared = Arc::clone(&seen);
        let look = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.is_changed() {
                let (frame, event) = (arguments.get_item(0)?, arguments.get_item(1)?);
                // A function that is just entered has done nothing yet.
                let actor = if event.eq("call")? { frame.getattr("f_back")? } else { frame };
                seen.take_note(&actor);
            }
            Ok(())
        };
        let look = PyCFunction::new_closure(py, Some(c"look"), None, look)?;
        py.import("sys")?.call_method1("setprofile", (look,))?;
        Ok(Self { seen })
    }

    /// Stops looking, and says what was seen.
    ///
    /// # Errors
    /// If Python raises.
    pub(super) fn end(self, py: Python<'_>) -> PyResult<Origins> {
        py.import("sys")?.call_method1("setprofile", (py.None(),))?;
        Ok(std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).origins))
    }
}

impl Seen {
    /// Has a descriptor been opened or closed, a thread begun or ended? Costs a few system calls, as often as anything is called.
    fn is_changed(&self) -> bool {
        lowest_free().ok() != Some(self.free) || links(&self.threads) != self.thread_links
    }

    fn take_note(&mut self, actor: &Bound<'_, PyAny>) {
        self.thread_links = links(&self.threads);
        let now = Present::now();
        self.free = lowest_free().unwrap_or_default();
        if let Some(origin) = origin(actor, &self.stdlib) {
            for (&number, name) in &now.descriptors {
                if self.present.descriptors.get(&number) != Some(name) {
                    self.origins.descriptors.insert((number, name.clone()), origin.clone());
                }
            }
            for &thread in now.threads.difference(&self.present.threads) {
                self.origins.threads.insert(thread, origin.clone());
            }
        }
        self.present = now;
    }
}

fn lowest_free() -> io::Result<i32> {
    Ok(fcntl_dupfd_cloexec(io::stdin(), 0)?.as_raw_fd())
}

fn links(directory: &File) -> u64 {
    // The type differs from one architecture to the next.
    #[allow(clippy::allow_attributes, clippy::useless_conversion, reason = "on some it is this one")]
    fstat(directory).map_or(0, |found| found.st_nlink.into())
}

/// Who called, seen from `frame`: code of the application if there is any, else of a package that it uses, but not the library
/// that comes with Python.
fn origin(frame: &Bound<'_, PyAny>, stdlib: &Path) -> Option<Origin> {
    let mut package: Option<Origin> = None;
    let mut next = frame.clone();
    while !next.is_none() {
        let file: OsString = next.getattr("f_code").ok()?.getattr("co_filename").ok()?.extract().ok()?;
        let is_package = [&b"/site-packages/"[..], b"/dist-packages/"]
            .iter()
            .any(|part| file.as_bytes().windows(part.len()).any(|window| window == *part));
        let is_python = !is_package && (file.as_bytes().starts_with(b"<") || Path::new(&file).starts_with(stdlib));
        if !is_python && (!is_package || package.is_none()) {
            let found = Origin {
                module: next.getattr("f_globals").ok()?.get_item("__name__").ok()?.extract().ok()?,
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
