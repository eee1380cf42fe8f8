//! Request bodies that must make way for a response.

use std::{
    collections::VecDeque,
    io::{
        Read as _, {self},
    },
};

use rustix::io::{Errno, pread, pwrite};

use crate::process::forks::Descriptor;

/// Bytes of an unread body that are kept in memory; more go to a file without a name.
const IN_MEMORY: usize = 1 << 20;

/// Body that was read ahead of the application.
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
    /// Is nothing kept that was not taken?
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Memory(kept) => kept.is_empty(),
            Self::File { read, written, .. } => read == written,
        }
    }

    /// May so many bytes more be kept without a file?
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        matches!(self, Self::Memory(kept) if kept.len() + bytes <= IN_MEMORY)
    }

    /// Keeps `bytes` behind what is kept already.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Self::Memory(kept) = self
            && kept.len() + bytes.len() > IN_MEMORY
        {
            let file = Descriptor::made(|| tempfile::tempfile().map(Into::into))?;
            write_all_at(&file, kept.make_contiguous(), 0)?;
            *self = Self::File { file, read: 0, written: kept.len() as u64 };
        }
        match self {
            Self::Memory(kept) => kept.extend(bytes),
            Self::File { file, written, .. } => {
                write_all_at(file, bytes, *written)?;
                *written += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Takes the first bytes out; 0 if there are none.
    pub(super) fn pop(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(kept) => kept.read(into),
            Self::File { file, read, .. } => {
                let got = pread(&*file, into, *read)?;
                *read += got as u64;
                Ok(got)
            }
        }
    }
}

/// Writes `bytes` to `file`, from `position` on.
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
