//! Decides which processes may share a file descriptor that an import left open.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
};

use pyo3::prelude::*;
use wire::check::Sharing;

use crate::{
    loading::import_audit::{sockets, state::Mappings},
    process::forks,
};

/// The first bytes of a SQLite database.
const SQLITE: (i64, &[u8]) = (0, b"SQLite format 3\0");

/// Magic numbers of LMDB: in a database after the page header, in a lock file at the start.
const LMDB: [(i64, &[u8]); 2] = [(16, b"\xde\xc0\xef\xbe"), (0, b"\xde\xc0\xef\xbe")];

/// Major numbers of devices without state for each open file: memory devices (`/dev/null`,
/// `/dev/urandom`) and terminals.
const PLAIN_DEVICES: [u32; 3] = [1, 4, 5];
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// All open descriptors of this process, with lookups for a single descriptor.
pub(crate) struct Descriptors<'a, 'py> {
    py: Python<'py>,
    names: &'a BTreeMap<i32, OsString>,
    mappings: &'a Mappings,
    python_files: OnceCell<BTreeSet<i32>>,
    connections: OnceCell<BTreeSet<i32>>,
}

/// The kernel's description of an open descriptor (proc(5), fdinfo).
struct DescriptorInfo {
    flags: i32,
    position: u64,
    /// The descriptor holds locks that exclude other processes, or other writers.
    write_locks: bool,
    read_locks: bool,
}

impl<'a, 'py> Descriptors<'a, 'py> {
    pub(crate) fn new(
        py: Python<'py>,
        names: &'a BTreeMap<i32, OsString>,
        mappings: &'a Mappings,
    ) -> Self {
        Self { py, names, mappings, python_files: OnceCell::new(), connections: OnceCell::new() }
    }

    /// Does a Python file object use this descriptor? A descriptor from `os.open` has no file
    /// object.
    fn is_python_file(&self, number: i32) -> bool {
        self.python_files
            .get_or_init(|| python_files(self.py).unwrap_or_default())
            .contains(&number)
    }

    /// Does a connection of `multiprocessing` use this descriptor? If several processes share such
    /// a connection, their messages mix. Both ends may be in one process, as in a queue or an
    /// executor, and the connection must still not be shared.
    fn is_connection(&self, number: i32) -> bool {
        self.connections.get_or_init(|| connections(self.py).unwrap_or_default()).contains(&number)
    }

    /// Are both ends of this pipe open in this process?
    fn has_both_ends(&self, name: &OsStr) -> bool {
        let ends = self.names.iter().filter(|(_, other)| *other == name);
        let modes: BTreeSet<i32> = ends
            .filter_map(|(&end, _)| Some(DescriptorInfo::of(end)?.flags & libc::O_ACCMODE))
            .collect();
        modes.contains(&libc::O_RDWR)
            || modes.contains(&libc::O_RDONLY) && modes.contains(&libc::O_WRONLY)
    }
}

impl DescriptorInfo {
    fn of(number: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let locks = || text.lines().filter(|line| line.starts_with("lock:"));
        Some(Self {
            flags: i32::from_str_radix(field("flags:")?, 8).ok()?,
            position: field("pos:")?.parse().ok()?,
            write_locks: locks().any(|line| line.contains(" WRITE ")),
            read_locks: locks().any(|line| line.contains(" READ ")),
        })
    }

    fn is_read_only(&self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDONLY
    }

    fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

/// Describes how the descriptor was opened, and decides which processes may share it. `None` if
/// sharing is harmless.
pub(crate) fn judge(
    number: i32,
    name: &OsStr,
    all: &Descriptors<'_, '_>,
) -> Option<(String, Sharing)> {
    use Sharing::{EachProcess, OneProcess};
    let shown = name.to_string_lossy();
    if all.is_connection(number) {
        return Some((
            format!("opened a connection of `multiprocessing`, descriptor {number}"),
            EachProcess,
        ));
    }
    if name.as_bytes().starts_with(b"socket:") {
        return sockets::judge(number, all.names)
            .map(|(what, sharing)| (format!("opened a socket, {what}"), sharing));
    }
    let found = fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
    let info = DescriptorInfo::of(number)?;
    let kind = found.file_type();
    if (kind.is_dir() || kind.is_char_device()) && (info.write_locks || info.read_locks) {
        let sharing = if info.write_locks { OneProcess } else { EachProcess };
        return Some((format!("locked `{shown}`"), sharing));
    }
    if kind.is_dir() || info.has(libc::O_PATH) {
        return None;
    }
    if kind.is_char_device() {
        let major = libc::major(found.rdev());
        let is_plain = PLAIN_DEVICES.contains(&major) || PSEUDO_TERMINALS.contains(&major);
        return (!is_plain).then(|| (format!("opened the device `{shown}`"), EachProcess));
    }
    if kind.is_fifo() && !name.as_bytes().starts_with(b"pipe:") {
        // Other processes open a named pipe by its path, so both ends here prove nothing.
        return Some((
            format!("opened the named pipe `{shown}`, descriptor {number}"),
            EachProcess,
        ));
    }
    if kind.is_fifo() && all.has_both_ends(name) {
        return None;
    }
    if kind.is_fifo() {
        return Some((
            format!("opened one end of a pipe, descriptor {number}, `{shown}`"),
            EachProcess,
        ));
    }
    if !kind.is_file() && !kind.is_block_device() {
        // epoll, inotify, eventfd, timerfd, signalfd, io_uring and similar objects hold state. A
        // pidfd does not: every process sees the same process through it.
        let is_process = name == "anon_inode:[pidfd]" || name.as_bytes().starts_with(b"pidfd:");
        return (!is_process)
            .then(|| (format!("opened descriptor {number}, `{shown}`"), EachProcess));
    }
    let is_deleted = found.nlink() == 0;
    judge_file(number, name, &info, is_deleted, all)
}

/// As [`judge`], for a regular file or a block device.
fn judge_file(
    number: i32,
    name: &OsStr,
    info: &DescriptorInfo,
    is_deleted: bool,
    all: &Descriptors<'_, '_>,
) -> Option<(String, Sharing)> {
    use Sharing::{EachProcess, Forked, OneProcess};
    let shown = name.to_string_lossy();
    let locked = if info.write_locks { " and locked it" } else { "" };
    let by_lock = if info.write_locks { OneProcess } else { EachProcess };
    // SQLite and LMDB support several processes, but not an open database across a fork.
    if is_database(number, &[SQLITE]) {
        return Some((format!("opened the SQLite database `{shown}`{locked}"), by_lock));
    }
    if is_database(number, &LMDB)
        && (all.mappings.shared.contains(name) || all.mappings.private.contains(name))
    {
        return Some((format!("opened the LMDB database `{shown}`"), EachProcess));
    }
    let belongs_to_sqlite = [&b"-wal"[..], b"-shm", b"-journal"].iter().any(|end| {
        let database = name.as_bytes().strip_suffix(*end).map(OsStr::from_bytes);
        database.is_some_and(|database| all.names.values().any(|other| other == database))
    });
    if belongs_to_sqlite {
        return None;
    }
    if info.write_locks || info.read_locks {
        return Some((format!("opened the file `{shown}` and locked it"), by_lock));
    }
    if all.mappings.shared.contains(name) {
        return Some((
            format!("opened the file `{shown}` and mapped it into memory that processes share"),
            EachProcess,
        ));
    }
    if info.is_read_only() {
        // The shared position does not matter if the file is read through a mapping or by `pread`.
        let is_without_position = all.mappings.private.contains(name)
            || info.position == 0 && !all.is_python_file(number);
        return (!is_without_position).then(|| {
            (
                format!("opened the file `{shown}` to read it, at a position that processes share"),
                EachProcess,
            )
        });
    }
    if info.has(libc::O_APPEND) {
        // Appending writes at the end of the file, whatever the shared position is.
        return Some((format!("opened the file `{shown}` to append to it"), Forked));
    }
    // A deleted file or one opened with O_NOFOLLOW is a private temporary file, or an empty SQLite
    // database.
    if is_deleted || info.has(libc::O_NOFOLLOW) {
        return Some((format!("opened the file `{shown}` to write to it"), EachProcess));
    }
    Some((format!("opened the file `{shown}` to write to it"), OneProcess))
}

/// Does the file contain one of `marks` at its offset?
fn is_database(number: i32, marks: &[(i64, &[u8])]) -> bool {
    marks.iter().any(|(offset, mark)| {
        let mut bytes = [0_u8; 16];
        let bytes = &mut bytes[..mark.len().min(16)];
        // Reads by the descriptor number: closing a duplicate would release SQLite's locks.
        forks::read_at(number, bytes, *offset) == Some(bytes.len()) && bytes == *mark
    })
}

/// The descriptors that Python file objects use.
fn python_files(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let class = py.import("_io")?.getattr("FileIO")?;
    numbers_of(py, |object| object.get_type().is(&class))
}

/// The descriptors that connections of `multiprocessing` use, if that module is loaded.
fn connections(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let Ok(module) = py.import("sys")?.getattr("modules")?.get_item("multiprocessing.connection")
    else {
        return Ok(BTreeSet::new());
    };
    let class = module.getattr("Connection")?;
    numbers_of(py, |object| object.get_type().is(&class))
}

/// The descriptors of all objects whose type `is_one` accepts. Only the type is checked, since
/// other objects may be incomplete.
fn numbers_of(
    py: Python<'_>,
    is_one: impl Fn(&Bound<'_, PyAny>) -> bool,
) -> PyResult<BTreeSet<i32>> {
    let mut numbers = BTreeSet::new();
    for object in py.import("gc")?.call_method0("get_objects")?.try_iter()? {
        let object = object?;
        if is_one(&object)
            && let Ok(number) = object.call_method0("fileno").and_then(|number| number.extract())
        {
            numbers.insert(number);
        }
    }
    Ok(numbers)
}
