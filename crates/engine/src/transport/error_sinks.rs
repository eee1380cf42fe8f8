//! The destinations of `wsgi.errors`, `sys.stdout` and `sys.stderr`.

use std::sync::Arc;

use crate::{
    log::{self, Transcript},
    wsgi::ErrorSink,
};

/// The destination of `sys.stdout` and `sys.stderr`.
pub(crate) struct PrintedOutput;

impl ErrorSink for PrintedOutput {
    fn write(&self, bytes: &[u8]) {
        log::print(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}

/// The destination of `wsgi.errors`.
pub(crate) struct StandardError;

impl ErrorSink for StandardError {
    fn write(&self, bytes: &[u8]) {
        log::write_errors(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}

/// The destination of `wsgi.errors`, with a copy for the web server.
pub(crate) struct CopiedErrors(pub(crate) Arc<Transcript>);

impl ErrorSink for CopiedErrors {
    fn write(&self, bytes: &[u8]) {
        log::write_errors(bytes);
        self.0.add(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}
