//! Reads the machine of an ELF file, and checks that the file is complete (System V ABI, *Object
//! Files*).

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Maximum size of the program header table in bytes.
const MAX_TABLE_BYTES: usize = 64 * 1024;

/// `PT_LOAD`: a segment that is mapped from the file.
const LOAD: u32 = 1;

/// The header of an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// The class (32 or 64 bits), the byte order, and the machine number (`e_machine`).
    pub(crate) machine: (u8, u8, u16),
    /// Minimum length of a complete file in bytes, if known.
    pub(crate) least_length: Option<u64>,
}

impl Elf {
    /// Reads the header of `file`; `None` if `file` is not an ELF file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut header = [0; 64];
        let length = read_at(file, &mut header, 0)?;
        if length < 20 || !header.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let (class, order) = (header[4], header[5]);
        let half = |at: usize| {
            let bytes = [header[at], header[at + 1]];
            if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let machine = (class, order, half(18));
        // The dynamic loader checks tables of another format.
        let is_known = class == 2 && order == 1;
        let least_length = if !is_known {
            None
        } else if length < header.len() {
            Some(header.len() as u64)
        } else {
            let table = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
            least_length(file, table, half(54).into(), half(56).into())?
        };
        Ok(Some(Self { machine, least_length }))
    }

    /// The name of the machine.
    pub(crate) fn machine_name(&self) -> String {
        let (class, _, number) = self.machine;
        let bits = if class == 1 { 32 } else { 64 };
        match number {
            3 => "x86 (32 bits)".to_owned(),
            22 => format!("s390 ({bits} bits)"),
            20 | 21 => format!("PowerPC ({bits} bits)"),
            40 => "ARM (32 bits)".to_owned(),
            62 => format!("x86-64 ({bits} bits)"),
            183 => format!("AArch64 ({bits} bits)"),
            243 => format!("RISC-V ({bits} bits)"),
            other => format!("machine {other} ({bits} bits)"),
        }
    }
}

/// Minimum length of a file whose program header table at `table` has `count` entries of `size`
/// bytes.
fn least_length(file: &File, table: u64, size: usize, count: usize) -> io::Result<Option<u64>> {
    if size < 56 || size * count > MAX_TABLE_BYTES {
        return Ok(None);
    }
    let mut segments = vec![0; size * count];
    let length = read_at(file, &mut segments, table)?;
    let end_of_table = table.saturating_add(segments.len() as u64);
    if length < segments.len() {
        return Ok(Some(end_of_table));
    }
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let ends =
        segments.chunks_exact(size).filter(|segment| segment.starts_with(&LOAD.to_le_bytes()));
    let ends = ends.map(|segment| number(&segment[8..16]).saturating_add(number(&segment[32..40])));
    Ok(ends.max().map(|end| end.max(end_of_table)))
}

/// Reads until `into` is full or the file ends.
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    // The kernel refuses offsets above the maximum file size.
    if i64::try_from(offset.saturating_add(into.len() as u64)).is_err() {
        return Ok(0);
    }
    let mut length = 0;
    while length < into.len() {
        match file.read_at(&mut into[length..], offset.saturating_add(length as u64)) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_program_is_whole_and_a_part_of_it_is_not() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let whole = Elf::read(&file(&program)).unwrap().unwrap();
        assert!(
            whole.least_length.is_none_or(|needed| needed <= program.len() as u64),
            "{whole:?}"
        );
        for length in [20, 63, 64, 100, 1000] {
            let part = Elf::read(&file(&program[..length])).unwrap().unwrap();
            assert_eq!(part.machine, whole.machine);
            assert!(
                whole.least_length.is_none()
                    || part.least_length.is_some_and(|needed| needed > length as u64),
                "{part:?}"
            );
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        for bytes in
            [&b""[..], b"\x7fEL", b"\x7fELF", b"no program at all, but long enough for a header"]
        {
            assert_eq!(Elf::read(&file(bytes)).unwrap(), None);
        }
        let mut header = [255; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert!(Elf::read(&file(&header)).unwrap().is_some());
        header[54..58].copy_from_slice(&[56, 0, 1, 0]);
        let strange = Elf::read(&file(&header)).unwrap().unwrap();
        assert!(strange.least_length.is_some_and(|needed| needed > 64), "{strange:?}");
    }
}
