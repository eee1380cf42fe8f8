//! Request bodies that are read before the application asks for them.

use std::{
    collections::VecDeque,
    io::{self, Read as _},
};

use rustix::io::{Errno, pread, pwrite};

use crate::process::forks::Descriptor;

/// Maximum size of a spool in memory in bytes. A larger spool continues in an unlinked file.
const MAX_MEMORY_BYTES: usize = 1 << 20;

/// The part of a request body that the application has not read yet.
pub(super) enum Spool {
    Memory(VecDeque<u8>),
    File { file: Descriptor, read: u64, written: u64 },
}

impl Default for Spool {
    fn default() -> Self {
        Self::Memory(VecDeque::new())
    }
}

impl Spool {
    /// Were all bytes read?
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Memory(bytes) => bytes.is_empty(),
            Self::File { read, written, .. } => read == written,
        }
    }

    /// Do `count` more bytes fit into memory?
    pub(super) fn has_room(&self, count: usize) -> bool {
        matches!(self, Self::Memory(bytes) if bytes.len() + count <= MAX_MEMORY_BYTES)
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// If the file cannot be created or written.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Self::Memory(spooled) = self
            && spooled.len() + bytes.len() > MAX_MEMORY_BYTES
        {
            let file = Descriptor::made(|| tempfile::tempfile().map(Into::into))?;
            write_all_at(&file, spooled.make_contiguous(), 0)?;
            *self = Self::File { file, read: 0, written: spooled.len() as u64 };
        }
        match self {
            Self::Memory(spooled) => spooled.extend(bytes),
            Self::File { file, written, .. } => {
                write_all_at(file, bytes, *written)?;
                *written += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Reads the first bytes; 0 if there are none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn pop(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(spooled) => spooled.read(into),
            Self::File { file, read, .. } => {
                let count = pread(&*file, into, *read)?;
                *read += count as u64;
                Ok(count)
            }
        }
    }
}

/// Writes all of `bytes` to `file` at `position`.
fn write_all_at(file: &Descriptor, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                position += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
