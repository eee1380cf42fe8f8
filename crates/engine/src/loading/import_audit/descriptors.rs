//! Which processes may have a file descriptor that an import left open.

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

/// How SQLite databases begin.
const SQLITE: (i64, &[u8]) = (0, b"SQLite format 3\0");

/// What stands in LMDB databases (behind the head of a page) and in their lock files.
const LMDB: [(i64, &[u8]); 2] = [(16, b"\xde\xc0\xef\xbe"), (0, b"\xde\xc0\xef\xbe")];

/// Major numbers of devices that keep nothing for the process that has opened them: memory
/// (`/dev/null`, `/dev/urandom`) and terminals.
const PLAIN_DEVICES: [u32; 3] = [1, 4, 5];
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// All descriptors of this process, for questions about one of them.
pub(crate) struct Descriptors<'a, 'py> {
    py: Python<'py>,
    pub(crate) names: &'a BTreeMap<i32, OsString>,
    mappings: &'a Mappings,
    python_files: OnceCell<BTreeSet<i32>>,
    connections: OnceCell<BTreeSet<i32>>,
}

/// What the kernel says of an open descriptor (proc(5), fdinfo).
struct DescriptorInfo {
    flags: i32,
    position: u64,
    /// Locks that go with it: no other process may have them at the same time, or only readers may.
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

    /// Does a file object of Python use this descriptor? What was opened by `os.open` alone has
    /// none.
    fn is_python_file(&self, number: i32) -> bool {
        self.python_files
            .get_or_init(|| python_files(self.py).unwrap_or_default())
            .contains(&number)
    }

    /// Does a connection of `multiprocessing` use this descriptor? What processes send each other
    /// by one that they all have is mixed up, though for now both ends are here: a queue has one,
    /// and so has an executor.
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

/// What was done to open a descriptor, and which processes may have it. Nothing for what needs no
/// word.
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
        return sockets::judge(number, all)
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
        // Others open it by its name, whatever ends this process has.
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
        // epoll, inotify, eventfd, timerfd, signalfd, io_uring … But a process shown by a
        // descriptor is the same for everybody.
        let is_process = name == "anon_inode:[pidfd]" || name.as_bytes().starts_with(b"pidfd:");
        return (!is_process)
            .then(|| (format!("opened descriptor {number}, `{shown}`"), EachProcess));
    }
    let is_deleted = found.nlink() == 0;
    judge_file(number, name, &info, is_deleted, all)
}

/// The same, for a regular file or a block device.
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
    // Both databases are made for several processes, but not for being carried across a fork.
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
        // Its position is of no account where the file is read through memory, or by `pread`.
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
        // Everybody appends at the end, wherever that is.
        return Some((format!("opened the file `{shown}` to append to it"), Forked));
    }
    // A temporary file of its own, by a name that nobody else can guess, or a database of SQLite
    // that is still empty.
    if is_deleted || info.has(libc::O_NOFOLLOW) {
        return Some((format!("opened the file `{shown}` to write to it"), EachProcess));
    }
    Some((format!("opened the file `{shown}` to write to it"), OneProcess))
}

/// Does one of `marks` stand in the file, at its place?
fn is_database(number: i32, marks: &[(i64, &[u8])]) -> bool {
    marks.iter().any(|(offset, mark)| {
        let mut bytes = [0_u8; 16];
        let bytes = &mut bytes[..mark.len().min(16)];
        // By the number: closing a copy of the descriptor would release the locks of SQLite.
        forks::read_at(number, bytes, *offset) == Some(bytes.len()) && bytes == *mark
    })
}

/// Descriptors that file objects of Python use.
fn python_files(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let class = py.import("_io")?.getattr("FileIO")?;
    numbers_of(py, |object| object.get_type().is(&class))
}

/// Descriptors that connections of `multiprocessing` use, if that is loaded.
fn connections(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let Ok(module) = py.import("sys")?.getattr("modules")?.get_item("multiprocessing.connection")
    else {
        return Ok(BTreeSet::new());
    };
    let class = module.getattr("Connection")?;
    numbers_of(py, |object| object.get_type().is(&class))
}

/// The descriptors of all objects that `is_one` finds by their type: objects may be in the making,
/// and nothing else is asked of them.
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
