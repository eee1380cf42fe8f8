//! `wsgi.file_wrapper` (PEP 3333 *Optional Platform-Specific File Handling*).
//!
//! To an application and its middleware it is an iterable like any other. When the very object
//! comes back to the server, and it wraps an unread part of a real file, the kernel sends that part
//! by itself.

use std::{os::fd::BorrowedFd, sync::Mutex};

use pyo3::{exceptions::PyStopIteration, intern, prelude::*, sync::MutexExt, types::PyTuple};
use rustix::{
    fs::{FileType, fstat},
    io::fcntl_dupfd_cloexec,
};

use crate::process::forks::Descriptor;

/// Bytes that iteration reads at a time, unless the application chooses.
const BLOCK: isize = 8192;

/// An iterable over the blocks of a file-like object.
#[pyclass(frozen, module = "wsgate", name = "FileWrapper")]
pub(super) struct FileWrapper {
    file: Py<PyAny>,
    block: isize,
    /// Iteration has begun; what it has taken must not be sent again.
    begun: Mutex<bool>,
}

/// The part of a real file that the kernel can send.
#[derive(Debug)]
pub(super) struct FilePart {
    /// A descriptor of our own, since the application may close its file meanwhile.
    pub(super) file: Descriptor,
    pub(super) offset: u64,
    pub(super) length: u64,
}

#[pymethods]
impl FileWrapper {
    /// The names are those that `wsgiref` gave the arguments.
    #[new]
    #[pyo3(signature = (filelike, blksize = BLOCK))]
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

    /// Middleware that answers for a part of the file goes there (Werkzeug does).
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
    /// The part of a real file that is still to be sent; nothing if this is no plain file of
    /// Python's own, so that what its `read` gives may differ from what the descriptor holds (a
    /// `GzipFile` has a descriptor, too).
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
        // A file written to and not flushed holds less than `read` would give.
        if file.getattr(intern!(py, "closed"))?.is_truthy()? {
            return Ok(None);
        }
        if file.hasattr(intern!(py, "flush"))? {
            file.call_method0(intern!(py, "flush"))?;
        }
        let descriptor: i32 = raw.call_method0(intern!(py, "fileno"))?.extract()?;
        // SAFETY: the file object is open, so it holds this descriptor; the borrow ends in the same
        // statement, under the GIL.
        let copy = || fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(descriptor) }, 3);
        let Ok(file_of_ours) = Descriptor::made(copy) else {
            return Ok(None);
        };
        let size = match fstat(&file_of_ours) {
            // Files of the kernel's own have no blocks, and content of another length than they
            // say.
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
