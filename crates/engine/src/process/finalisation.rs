//! Objects that do something when they are destroyed: files with unwritten data, compressors,
//! databases, temporary files, generators that are suspended in a `try`, anything with `__del__`.
//!
//! A script destroys all of them when its interpreter ends. That walks through every object there
//! is, which in a forked process copies most of its memory. So a forked process looks for these
//! objects alone, among those that were made after the fork.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use pyo3::{
    intern,
    prelude::*,
    types::{PyList, PyType},
};

use crate::process::exit::loaded;

/// How many objects are looked at on the way from an object to those that it owns.
const MAX_REFERENTS: usize = 100;

/// What is done to an object before it goes, in the order in which it is done where objects do not
/// refer to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `__del__` of an ordinary object, or of a generator.
    Finalizer,
    /// A stream of text in Python code, which may pass on to another one.
    TextWrapper,
    /// `io.TextIOWrapper`.
    Text,
    /// A compressed file, which ends with something of its own.
    Compressor,
    /// Another stream in Python code.
    Wrapper,
    /// A buffered stream of bytes.
    Buffer,
    /// A stream without a buffer in Python code.
    Raw,
    /// A database of `dbm` or `sqlite3`, which has no `__del__`.
    Database,
}

/// Is there an object whose end would be noticed outside this process?
pub(super) fn is_needed(py: Python<'_>) -> PyResult<bool> {
    let mut search = Search::new(py)?;
    for generation in generations(py)? {
        for object in generation.iter() {
            if search.kind(&object)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Finalises all objects that were made since the heap was frozen for the fork of this process.
pub(super) fn finalise(py: Python<'_>) -> PyResult<()> {
    finalise_kinds(py, |_| true)
}

/// Finalises what a template has loaded, once for all its processes: what has a finalizer, and
/// databases. Streams hold nothing, as they were written out before the first fork; what a
/// compressed file still lacks is for the processes that have written to it.
pub(super) fn finalise_template(py: Python<'_>) -> PyResult<()> {
    py.import("gc")?.call_method0("unfreeze")?;
    finalise_kinds(py, |kind| matches!(kind, Kind::Finalizer | Kind::Database))
}

fn finalise_kinds(py: Python<'_>, is_wanted: impl Fn(Kind) -> bool) -> PyResult<()> {
    let mut search = Search::new(py)?;
    let mut found = Vec::new();
    for object in objects(py)? {
        if let Some(kind) = search.kind(&object)?.filter(|kind| is_wanted(*kind)) {
            found.push((kind, object));
        }
    }
    // Stable: of one kind the older object comes first.
    found.sort_by_key(|(kind, _)| *kind);
    for (kind, object) in owners_first(py, found)? {
        let done = match kind {
            // Called of the type, as Python does.
            Kind::Finalizer => object
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

/// Puts each object before those that it refers to, as counting references destroys them: an
/// archive before its file, a text stream before its buffer. The order stays where it does not
/// matter.
fn owners_first<'py>(
    py: Python<'py>,
    found: Vec<(Kind, Bound<'py, PyAny>)>,
) -> PyResult<Vec<(Kind, Bound<'py, PyAny>)>> {
    let places: HashMap<_, _> =
        found.iter().enumerate().map(|(place, (_, object))| (object.as_ptr(), place)).collect();
    let gc = py.import("gc")?;
    let mut owned = Vec::with_capacity(found.len());
    let mut owners = vec![0_usize; found.len()];
    for (place, (_, object)) in found.iter().enumerate() {
        let below = referred(&gc, object, &places)?;
        let below: Vec<usize> = below.into_iter().filter(|other| *other != place).collect();
        below.iter().for_each(|other| owners[*other] += 1);
        owned.push(below);
    }
    let mut next: VecDeque<usize> = (0..found.len()).filter(|place| owners[*place] == 0).collect();
    let mut order = Vec::with_capacity(found.len());
    while let Some(place) = next.pop_front() {
        order.push(place);
        for other in &owned[place] {
            owners[*other] -= 1;
            if owners[*other] == 0 {
                next.push_back(*other);
            }
        }
    }
    // Those that refer to each other come last.
    order.extend((0..found.len()).filter(|place| owners[*place] > 0));
    let mut found: Vec<_> = found.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|place| found[place].take()).collect())
}

/// The places of the objects that `object` refers to, also through containers.
fn referred<'py>(
    gc: &Bound<'py, PyModule>,
    object: &Bound<'py, PyAny>,
    places: &HashMap<*mut pyo3::ffi::PyObject, usize>,
) -> PyResult<HashSet<usize>> {
    let mut referred = HashSet::new();
    let mut seen = HashSet::new();
    let mut next = VecDeque::from([object.clone()]);
    while let Some(container) = next.pop_front() {
        for referent in gc.call_method1("get_referents", (container,))?.cast_into::<PyList>()? {
            if seen.len() >= MAX_REFERENTS || !seen.insert(referent.as_ptr()) {
                continue;
            }
            if let Some(place) = places.get(&referent.as_ptr()) {
                referred.insert(*place);
            } else if !(referent.is_instance_of::<PyModule>()
                || referent.is_instance_of::<PyType>())
            {
                next.push_back(referent);
            }
        }
    }
    Ok(referred)
}

/// All objects that Python's collector knows and that are not frozen, those of the oldest
/// generation first.
pub(super) fn objects(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    Ok(generations(py)?.iter().flat_map(|generation| generation.iter()).collect())
}

/// The same, as Python gives them.
fn generations(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyList>>> {
    let gc = py.import("gc")?;
    let list = |generation: u8| {
        Ok(gc.call_method1("get_objects", (generation,))?.cast_into::<PyList>()?)
    };
    [2, 1, 0].into_iter().map(list).collect()
}

/// Hashes addresses. The default hash is made against chosen keys, and takes most of the time of a
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

/// Tells what kind of object each one is. Types are looked at once.
pub(super) struct Search<'py> {
    kinds: HashMap<usize, Option<Kind>, BuildHasherDefault<AddressHasher>>,
    /// The standard streams and what they wrap, which are flushed and never closed.
    standard: HashSet<*mut pyo3::ffi::PyObject>,
    /// Which kind of stream the subclasses of each class are. The first that fits counts.
    streams: Vec<(Bound<'py, PyAny>, Kind)>,
    /// Streams that hold nothing unwritten.
    inert: Vec<Bound<'py, PyAny>>,
    /// The connections of `sqlite3`, if that is loaded. Closing the last one ends a write-ahead
    /// log.
    sqlite: Option<Bound<'py, PyAny>>,
}

impl<'py> Search<'py> {
    pub(super) fn new(py: Python<'py>) -> PyResult<Self> {
        let io = py.import("_io")?;
        let class = |name: &str| io.getattr(name);
        let streams = [
            ("TextIOWrapper", Kind::Text),
            ("BufferedWriter", Kind::Buffer),
            ("BufferedRandom", Kind::Buffer),
            ("BufferedRWPair", Kind::Buffer),
            ("_TextIOBase", Kind::TextWrapper),
            ("_RawIOBase", Kind::Raw),
            ("_IOBase", Kind::Wrapper),
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
            // As its destruction does, whatever a subclass makes of closing. One that belongs to
            // another thread refuses that, but closes when it is opened for a database in memory.
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

    /// What is to be done to `object`, if anything.
    pub(super) fn kind(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Option<Kind>> {
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

    fn kind_of_type(&self, class: &Bound<'py, PyType>) -> PyResult<Option<Kind>> {
        let module = class.module().map(|module| module.to_string()).unwrap_or_default();
        let is_sqlite =
            |base: &Bound<'py, PyAny>| self.sqlite.as_ref().is_some_and(|sqlite| base.is(sqlite));
        if ["_gdbm", "_dbm"].contains(&module.as_str())
            || class.mro().iter().any(|base| is_sqlite(&base))
        {
            return Ok(Some(Kind::Database));
        }
        if self.inert.iter().any(|inert| class.is(inert)) || module == "wsgate" {
            return Ok(None);
        }
        // The type itself is not asked: its metaclass may be the application's.
        let bases = class.mro();
        let is_a = |wanted: &Bound<'py, PyAny>| bases.iter().any(|base| base.is(wanted));
        if let Some((_, kind)) = self.streams.iter().find(|(stream, _)| is_a(stream)) {
            let is_compressor =
                *kind == Kind::Wrapper && bases.iter().any(|base| is_of_compressor(&base));
            return Ok(Some(if is_compressor { Kind::Compressor } else { *kind }));
        }
        let name = intern!(class.py(), "__del__");
        if class.get_type().is(class.py().get_type::<PyType>()) {
            return Ok(class.hasattr(name)?.then_some(Kind::Finalizer));
        }
        for base in bases.iter() {
            if base.getattr(intern!(class.py(), "__dict__"))?.contains(name)? {
                return Ok(Some(Kind::Finalizer));
            }
        }
        Ok(None)
    }

    fn is_exempt(&self, kind: Kind, object: &Bound<'py, PyAny>) -> bool {
        match kind {
            Kind::Finalizer | Kind::Database => false,
            _ => self.standard.contains(&object.as_ptr()),
        }
    }
}

/// Is `class` one of the library's compressed files?
fn is_of_compressor(class: &Bound<'_, PyAny>) -> bool {
    let module = class
        .getattr("__module__")
        .and_then(|module| module.extract::<String>())
        .unwrap_or_default();
    ["gzip", "bz2", "lzma"].contains(&module.as_str()) || module.starts_with("compression.")
}

/// The streams of `sys`, with the buffers and files below them.
fn standard_streams(py: Python<'_>) -> PyResult<HashSet<*mut pyo3::ffi::PyObject>> {
    let sys = py.import("sys")?;
    let mut streams = HashSet::new();
    for name in ["stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"] {
        let mut next = sys.getattr(name).ok();
        while let Some(stream) = next.take().filter(|stream| !stream.is_none()) {
            // A stream that is below itself ends this, too.
            if streams.insert(stream.as_ptr()) {
                next = stream.getattr("buffer").or_else(|_| stream.getattr("raw")).ok();
            }
        }
    }
    Ok(streams)
}
