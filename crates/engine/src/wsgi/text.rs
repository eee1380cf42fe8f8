//! The bytes of a `str`, without a copy.

use std::ffi::c_char;

use pyo3::{ffi, prelude::*, types::PyString};

unsafe extern "C" {
    /// Of the stable ABI since 3.10, and exported by 3.9 with the same meaning, so that one engine
    /// finds it in either.
    fn PyUnicode_AsUTF8AndSize(
        unicode: *mut ffi::PyObject,
        size: *mut ffi::Py_ssize_t,
    ) -> *const c_char;
}

/// The text as UTF-8, unless it holds lone surrogates, which have none.
pub(super) fn utf8<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    let mut length = 0;
    // SAFETY: a live `str`, and a place for the length. What is returned belongs to the `str`,
    // which does not change and outlives the borrow; it is valid UTF-8 of that length, or null with
    // an exception set.
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
