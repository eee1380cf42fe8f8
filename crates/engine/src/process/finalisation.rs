//! Finalises objects that act when they are destroyed: files with unwritten data, compressors,
//! databases, temporary files, generators suspended in a `try`, any object with `__del__`.
//!
//! The interpreter of a script destroys all objects when the script exits. Visiting all objects
//! would copy most of the memory of a worker. So a worker visits only objects that were created
//! after the fork.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use pyo3::{
    intern,
    prelude::*,
    types::{PyList, PyType},
};

use crate::process::python_modules::loaded;

/// How many objects are searched for the references of one object.
const MAX_REFERENTS: usize = 100;

/// How an object is finalised. Unrelated objects are finalised in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ObjectKind {
    /// `__del__` of an ordinary object, or of a generator.
    Finalizer,
    /// A text stream in Python code, which may write to another stream.
    TextWrapper,
    /// `io.TextIOWrapper`.
    Text,
    /// A compressed file, which closes with a trailer.
    Compressor,
    /// Any other stream in Python code.
    Wrapper,
    /// A buffered byte stream.
    Buffer,
    /// An unbuffered stream in Python code.
    Raw,
    /// A database of `dbm` or `sqlite3`, which has no `__del__`.
    Database,
}

/// Does any object exist whose destruction has an effect outside this process?
pub(super) fn is_needed(py: Python<'_>) -> PyResult<bool> {
    let mut search = ObjectSearch::new(py)?;
    for generation in generations(py)? {
        for object in generation.iter() {
            if search.kind(&object)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Finalises all objects created since the heap was frozen before the fork.
pub(super) fn finalise(py: Python<'_>) -> PyResult<()> {
    finalise_kinds(py, |_| true)
}

/// Finalises databases and objects with a finalizer that a template has loaded, once for all its
/// workers. Streams were flushed before the first fork. Each process closes the compressed files
/// that it has written to.
pub(super) fn finalise_template(py: Python<'_>) -> PyResult<()> {
    py.import("gc")?.call_method0("unfreeze")?;
    finalise_kinds(py, |kind| matches!(kind, ObjectKind::Finalizer | ObjectKind::Database))
}

fn finalise_kinds(py: Python<'_>, is_wanted: impl Fn(ObjectKind) -> bool) -> PyResult<()> {
    let mut search = ObjectSearch::new(py)?;
    let mut found = Vec::new();
    for object in objects(py)? {
        if let Some(kind) = search.kind(&object)?.filter(|kind| is_wanted(*kind)) {
            found.push((kind, object));
        }
    }
    // The sort is stable: within one kind, older objects come first.
    found.sort_by_key(|(kind, _)| *kind);
    for (kind, object) in owners_first(py, found)? {
        let done = match kind {
            // Python also calls the method of the type.
            ObjectKind::Finalizer => object
                .get_type()
                .getattr(intern!(py, "__del__"))
                .and_then(|finalizer| finalizer.call1((&object,)))
                .map(drop),
            _ => search.close(&object),
        };
        if let Err(error) = done {
            error.write_unraisable(py, Some(&object));
        }
    }
    Ok(())
}

/// Orders each object before those that it refers to, as reference counting destroys them: an
/// archive before its file, a text stream before its buffer. Other objects keep their order.
fn owners_first<'py>(
    py: Python<'py>,
    found: Vec<(ObjectKind, Bound<'py, PyAny>)>,
) -> PyResult<Vec<(ObjectKind, Bound<'py, PyAny>)>> {
    let positions: HashMap<_, _> = found
        .iter()
        .enumerate()
        .map(|(position, (_, object))| (object.as_ptr(), position))
        .collect();
    let gc = py.import("gc")?;
    let mut owned = Vec::with_capacity(found.len());
    let mut owners = vec![0_usize; found.len()];
    for (position, (_, object)) in found.iter().enumerate() {
        let below = referred(&gc, object, &positions)?;
        let below: Vec<usize> = below.into_iter().filter(|other| *other != position).collect();
        below.iter().for_each(|other| owners[*other] += 1);
        owned.push(below);
    }
    let mut next: VecDeque<usize> =
        (0..found.len()).filter(|position| owners[*position] == 0).collect();
    let mut order = Vec::with_capacity(found.len());
    while let Some(position) = next.pop_front() {
        order.push(position);
        for other in &owned[position] {
            owners[*other] -= 1;
            if owners[*other] == 0 {
                next.push_back(*other);
            }
        }
    }
    // Objects in reference cycles come last.
    order.extend((0..found.len()).filter(|position| owners[*position] > 0));
    let mut found: Vec<_> = found.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|position| found[position].take()).collect())
}

/// The positions of the objects that `object` refers to, also through containers.
fn referred<'py>(
    gc: &Bound<'py, PyModule>,
    object: &Bound<'py, PyAny>,
    positions: &HashMap<*mut pyo3::ffi::PyObject, usize>,
) -> PyResult<HashSet<usize>> {
    let mut referred = HashSet::new();
    let mut seen = HashSet::new();
    let mut next = VecDeque::from([object.clone()]);
    while let Some(container) = next.pop_front() {
        for referent in gc.call_method1("get_referents", (container,))?.cast_into::<PyList>()? {
            if seen.len() >= MAX_REFERENTS || !seen.insert(referent.as_ptr()) {
                continue;
            }
            if let Some(position) = positions.get(&referent.as_ptr()) {
                referred.insert(*position);
            } else if !(referent.is_instance_of::<PyModule>()
                || referent.is_instance_of::<PyType>())
            {
                next.push_back(referent);
            }
        }
    }
    Ok(referred)
}

/// All objects that Python's garbage collector knows and that are not frozen, the oldest generation
/// first.
pub(super) fn objects(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    Ok(generations(py)?.iter().flat_map(|generation| generation.iter()).collect())
}

/// The objects of [`objects`], by generation.
fn generations(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyList>>> {
    let gc = py.import("gc")?;
    let list = |generation: u8| {
        Ok(gc.call_method1("get_objects", (generation,))?.cast_into::<PyList>()?)
    };
    [2, 1, 0].into_iter().map(list).collect()
}

/// Hashes addresses. The default hash resists chosen keys, and would take most of the time of a
/// walk through all objects.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_usize(&mut self, address: usize) {
        // Objects are aligned to 16 bytes; the table takes the bucket from the low bits, and a mark
        // from the high ones.
        self.0 = (address as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Classifies objects, and examines each type once.
pub(super) struct ObjectSearch<'py> {
    kinds: HashMap<usize, Option<ObjectKind>, BuildHasherDefault<AddressHasher>>,
    /// The standard streams and the streams below them, which are flushed and never closed.
    standard: HashSet<*mut pyo3::ffi::PyObject>,
    /// The kind of the subclasses of each class. The first class that matches counts.
    streams: Vec<(Bound<'py, PyAny>, ObjectKind)>,
    /// Types of streams that hold no unwritten data.
    inert: Vec<Bound<'py, PyAny>>,
    /// `sqlite3.Connection`, if that is loaded. Closing the last connection ends a write-ahead log.
    sqlite: Option<Bound<'py, PyAny>>,
}

impl<'py> ObjectSearch<'py> {
    pub(super) fn new(py: Python<'py>) -> PyResult<Self> {
        let io = py.import("_io")?;
        let class = |name: &str| io.getattr(name);
        let streams = [
            ("TextIOWrapper", ObjectKind::Text),
            ("BufferedWriter", ObjectKind::Buffer),
            ("BufferedRandom", ObjectKind::Buffer),
            ("BufferedRWPair", ObjectKind::Buffer),
            ("_TextIOBase", ObjectKind::TextWrapper),
            ("_RawIOBase", ObjectKind::Raw),
            ("_IOBase", ObjectKind::Wrapper),
        ];
        let streams = streams.map(|(name, kind)| class(name).map(|class| (class, kind)));
        let inert = ["FileIO", "BytesIO", "StringIO", "BufferedReader"].map(class);
        Ok(Self {
            kinds: HashMap::default(),
            standard: standard_streams(py)?,
            streams: streams.into_iter().collect::<PyResult<_>>()?,
            inert: inert.into_iter().collect::<PyResult<_>>()?,
            sqlite: loaded(py, "_sqlite3")?.and_then(|module| module.getattr("Connection").ok()),
        })
    }

    /// Closes a stream or a database.
    fn close(&self, object: &Bound<'py, PyAny>) -> PyResult<()> {
        let close = intern!(object.py(), "close");
        match &self.sqlite {
            // Calls the method of the base class, as destruction does. A connection that belongs to
            // another thread refuses to close, but closes when it is opened for a database in
            // memory.
            Some(sqlite) if object.is_instance(sqlite)? => {
                if sqlite.getattr(close)?.call1((object,)).is_err() {
                    let _ = sqlite
                        .getattr(intern!(object.py(), "__init__"))?
                        .call1((object, ":memory:"));
                }
                Ok(())
            }
            _ => object.call_method0(close).map(drop),
        }
    }

    /// How `object` is finalised; `None` for an object that is not.
    pub(super) fn kind(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Option<ObjectKind>> {
        let address = object.get_type_ptr() as usize;
        let kind = match self.kinds.get(&address) {
            Some(kind) => *kind,
            None => {
                let kind = self.kind_of_type(&object.get_type())?;
                self.kinds.insert(address, kind);
                kind
            }
        };
        Ok(kind.filter(|kind| !self.is_exempt(*kind, object)))
    }

    fn kind_of_type(&self, class: &Bound<'py, PyType>) -> PyResult<Option<ObjectKind>> {
        let module = class.module().map(|module| module.to_string()).unwrap_or_default();
        let is_sqlite =
            |base: &Bound<'py, PyAny>| self.sqlite.as_ref().is_some_and(|sqlite| base.is(sqlite));
        if ["_gdbm", "_dbm"].contains(&module.as_str())
            || class.mro().iter().any(|base| is_sqlite(&base))
        {
            return Ok(Some(ObjectKind::Database));
        }
        if self.inert.iter().any(|inert| class.is(inert)) || module == "wsgate" {
            return Ok(None);
        }
        // Asks `mro` and not the type, whose metaclass may be the application's.
        let bases = class.mro();
        let is_a = |wanted: &Bound<'py, PyAny>| bases.iter().any(|base| base.is(wanted));
        if let Some((_, kind)) = self.streams.iter().find(|(stream, _)| is_a(stream)) {
            let is_compressor =
                *kind == ObjectKind::Wrapper && bases.iter().any(|base| is_of_compressor(&base));
            return Ok(Some(if is_compressor { ObjectKind::Compressor } else { *kind }));
        }
        let name = intern!(class.py(), "__del__");
        if class.get_type().is(class.py().get_type::<PyType>()) {
            return Ok(class.hasattr(name)?.then_some(ObjectKind::Finalizer));
        }
        for base in bases.iter() {
            if base.getattr(intern!(class.py(), "__dict__"))?.contains(name)? {
                return Ok(Some(ObjectKind::Finalizer));
            }
        }
        Ok(None)
    }

    fn is_exempt(&self, kind: ObjectKind, object: &Bound<'py, PyAny>) -> bool {
        match kind {
            ObjectKind::Finalizer | ObjectKind::Database => false,
            _ => self.standard.contains(&object.as_ptr()),
        }
    }
}

/// Is `class` a compressed file of the standard library?
fn is_of_compressor(class: &Bound<'_, PyAny>) -> bool {
    let module = class
        .getattr("__module__")
        .and_then(|module| module.extract::<String>())
        .unwrap_or_default();
    ["gzip", "bz2", "lzma"].contains(&module.as_str()) || module.starts_with("compression.")
}

/// The standard streams of `sys`, with the buffers and files below them.
fn standard_streams(py: Python<'_>) -> PyResult<HashSet<*mut pyo3::ffi::PyObject>> {
    let sys = py.import("sys")?;
    let mut streams = HashSet::new();
    for name in ["stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"] {
        let mut next = sys.getattr(name).ok();
        while let Some(stream) = next.take().filter(|stream| !stream.is_none()) {
            // A stream that is below itself also ends the loop.
            if streams.insert(stream.as_ptr()) {
                next = stream.getattr("buffer").or_else(|_| stream.getattr("raw")).ok();
            }
        }
    }
    Ok(streams)
}
