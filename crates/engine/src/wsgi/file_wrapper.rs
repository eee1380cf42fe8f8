//! `wsgi.file_wrapper` (PEP 3333 *Optional Platform-Specific File Handling*).
//!
//! For an application and its middleware the wrapper is an iterable like any other. If the wrapper
//! itself is returned to the server and wraps the unread part of a real file, the kernel sends that
//! part (sendfile).

use std::sync::Mutex;

use pyo3::{exceptions::PyStopIteration, intern, prelude::*, sync::MutexExt, types::PyTuple};
use rustix::fs::{FileType, fstat};

use crate::process::forks::Descriptor;

/// How many bytes iteration reads at a time, unless the application chooses.
const DEFAULT_BLOCK_SIZE: isize = 8192;

/// An iterable over the blocks of a file-like object.
#[pyclass(frozen, module = "wsgate", name = "FileWrapper")]
pub(super) struct FileWrapper {
    file: Py<PyAny>,
    block: isize,
    /// Iteration has begun, so bytes that it has read must not be sent again.
    begun: Mutex<bool>,
}

/// The part of a real file that the kernel can send.
#[derive(Debug)]
pub(super) struct FilePart {
    /// The engine's own descriptor: the application may close its file meanwhile.
    pub(super) file: Descriptor,
    pub(super) offset: u64,
    pub(super) length: u64,
}

#[pymethods]
impl FileWrapper {
    /// `wsgiref` uses the same argument names.
    #[new]
    #[pyo3(signature = (filelike, blksize = DEFAULT_BLOCK_SIZE))]
    fn new(filelike: Py<PyAny>, blksize: isize) -> Self {
        Self { file: filelike, block: blksize, begun: Mutex::new(false) }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        *self.begun.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        let block = self.file.bind(py).call_method1(intern!(py, "read"), (self.block,))?;
        if block.is_truthy()? { Ok(block) } else { Err(PyStopIteration::new_err(())) }
    }

    /// Middleware that sends a part of the file calls `seek` (Werkzeug does).
    #[pyo3(signature = (*arguments))]
    fn seek<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.file.bind(py).call_method1(intern!(py, "seek"), arguments)
    }

    fn tell<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.file.bind(py).call_method0(intern!(py, "tell"))
    }

    fn seekable(&self, py: Python<'_>) -> PyResult<bool> {
        let file = self.file.bind(py);
        if file.hasattr(intern!(py, "seekable"))? {
            return file.call_method0(intern!(py, "seekable"))?.is_truthy();
        }
        Ok(file.hasattr(intern!(py, "seek"))? && file.hasattr(intern!(py, "tell"))?)
    }

    /// The file, under the name that `wsgiref` gave it.
    #[getter]
    fn filelike(&self, py: Python<'_>) -> Py<PyAny> {
        self.file.clone_ref(py)
    }

    #[getter]
    fn blksize(&self) -> isize {
        self.block
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let file = self.file.bind(py);
        if file.hasattr(intern!(py, "close"))? {
            file.call_method0(intern!(py, "close"))?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// The unread part of a real file. `None` unless the object is a plain Python file: `read` of
    /// another object may return other bytes than its descriptor. For example, a `GzipFile` also
    /// has a descriptor.
    pub(super) fn part(&self, py: Python<'_>) -> PyResult<Option<FilePart>> {
        if *self.begun.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Ok(None);
        }
        let io = py.import(intern!(py, "_io"))?;
        let raw_type = io.getattr(intern!(py, "FileIO"))?;
        let file = self.file.bind(py);
        let raw = if file.get_type().is(&raw_type) {
            file.clone()
        } else if file.get_type().is(&io.getattr(intern!(py, "BufferedReader"))?)
            || file.get_type().is(&io.getattr(intern!(py, "BufferedRandom"))?)
        {
            file.getattr(intern!(py, "raw"))?
        } else {
            return Ok(None);
        };
        if !raw.get_type().is(&raw_type) {
            return Ok(None);
        }
        // Unflushed data would be missing in the file.
        if file.getattr(intern!(py, "closed"))?.is_truthy()? {
            return Ok(None);
        }
        if file.hasattr(intern!(py, "flush"))? {
            file.call_method0(intern!(py, "flush"))?;
        }
        let descriptor: i32 = raw.call_method0(intern!(py, "fileno"))?.extract()?;
        let Ok(file_of_ours) = Descriptor::duplicate(descriptor) else {
            return Ok(None);
        };
        let size = match fstat(&file_of_ours) {
            // Files of the kernel (/proc) have no blocks, and report a wrong size.
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_blocks > 0 =>
            {
                stat.st_size.cast_unsigned()
            }
            _ => return Ok(None),
        };
        let offset: u64 = file.call_method0(intern!(py, "tell"))?.extract()?;
        let length = size.saturating_sub(offset);
        Ok((length > 0).then_some(FilePart { file: file_of_ours, offset, length }))
    }
}
