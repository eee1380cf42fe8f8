//! Safe wrappers for functions of Python's C API that pyo3 lacks.

use std::ffi::{CStr, c_char, c_long};

use pyo3::{
    ffi,
    prelude::*,
    types::{PyString, PyType},
};

unsafe extern "C" {
    /// Part of the stable ABI since 3.10. Python 3.9 exports the function with the same meaning, so
    /// one engine works in all versions.
    fn PyUnicode_AsUTF8AndSize(
        unicode: *mut ffi::PyObject,
        size: *mut ffi::Py_ssize_t,
    ) -> *const c_char;
}

/// The text as UTF-8 without a copy. `None` for text with lone surrogates, which UTF-8 lacks.
pub(crate) fn utf8<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    let mut length = 0;
    // SAFETY: the arguments are a live `str` and a live variable for the length. The result belongs
    // to the `str`, which does not change and outlives the borrow. The result is valid UTF-8 of
    // that length, or null with an exception set.
    unsafe {
        let start = PyUnicode_AsUTF8AndSize(text.as_ptr(), &raw mut length);
        if start.is_null() {
            drop(PyErr::take(text.py()));
            return None;
        }
        let bytes = std::slice::from_raw_parts(start.cast::<u8>(), usize::try_from(length).ok()?);
        Some(std::str::from_utf8_unchecked(bytes))
    }
}

/// Decodes bytes as a native string of PEP 3333: each byte is one character (*Unicode Issues*).
///
/// # Errors
/// If memory is short.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: pointer and length are those of a live slice, whose length fits `Py_ssize_t` as every
    // slice's does. The call copies, and returns a new reference to a `str` or null with an
    // exception set.
    let string = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeLatin1(
                bytes.as_ptr().cast(),
                bytes.len().cast_signed(),
                std::ptr::null(),
            ),
        )
    }?;
    Ok(string.cast_into()?)
}

/// Compiles the source of a module. Python's `compile()` would first create all types of the `ast`
/// module, which takes longer than all other work for a small request.
///
/// # Errors
/// `SyntaxError`, or any other exception of the compiler.
pub(crate) fn compile<'py>(
    py: Python<'py>,
    source: &CStr,
    path: &CStr,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both strings end with NUL and outlive the call, which returns a new reference or null
    // with an exception set.
    unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::Py_CompileString(source.as_ptr(), path.as_ptr(), ffi::Py_file_input),
        )
    }
}

/// Raises `exception` in the thread with Python's identifier `thread`. `None` withdraws an
/// exception that was not raised yet. Does nothing if that thread has exited.
pub(crate) fn set_async_exception(
    _py: Python<'_>,
    thread: c_long,
    exception: Option<&Bound<'_, PyType>>,
) {
    let exception = exception.map_or(std::ptr::null_mut(), |class| class.as_ptr());
    // SAFETY: this thread is attached, which the token shows; the exception is a live class, of
    // which the call takes its own reference, or null.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception) };
}
