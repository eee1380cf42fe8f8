//! The file in memory into which a process of a pool writes its Python stacks for the supervisor.
//!
//! All processes of a pool have the same open file, and with it one offset. The supervisor asks one
//! process at a time. The file begins with a header of four numbers of 4 bytes each, in the byte
//! order of the machine:
//!
//! | number | written by | meaning |
//! |---|---|---|
//! | 0 | supervisor | process id of the process that is asked; 0 for none |
//! | 1 | supervisor | number of the request |
//! | 2 | process | number of the request whose stacks are complete |
//! | 3 | process | length of the stacks in bytes |
//!
//! The stacks follow. The supervisor never maps the file, so no process can harm it by changing the
//! file's size.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek},
    io::{Errno, pread, pwrite},
};

/// Where the stacks begin.
const TEXT_AT: u64 = 16;

/// Longest stacks that the supervisor reads, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Creates the file.
///
/// # Errors
/// If memory or descriptors are short.
pub fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("wsgate-stacks", MemfdFlags::CLOEXEC)?)
}

/// Asks the process `pid` for its stacks, which a signal has to follow on.
///
/// # Errors
/// If the file cannot be written.
pub fn ask(file: impl AsFd, pid: i32, request: u32) -> Result<(), Errno> {
    seek(&file, SeekFrom::Start(TEXT_AT))?;
    write_numbers(&file, 0, [pid.cast_unsigned(), request, 0, 0])
}

/// Withdraws the request, and releases the memory of the stacks. A process that answers late finds
/// that it is not asked.
pub fn withdraw(file: impl AsFd) {
    // Without the truncation the file only keeps its memory.
    let _ = write_numbers(&file, 0, [0; 4]);
    let _ = ftruncate(&file, TEXT_AT);
}

/// The stacks that the asked process has written for `request`; `None` until they are complete.
pub fn answer(file: impl AsFd, request: u32) -> Option<Vec<u8>> {
    let [_, _, complete, length] = numbers(&file)?;
    if complete != request {
        return None;
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_TEXT_BYTES);
    let mut text = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match pread(&file, &mut text[filled..], TEXT_AT + filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    text.truncate(filled);
    Some(text)
}

/// The number of the request for the stacks of the process `pid`, if the supervisor asks this
/// process. Async-signal-safe, like [`complete`].
pub fn requested(file: impl AsFd, pid: i32) -> Option<u32> {
    let [asked, request, ..] = numbers(file)?;
    (asked == pid.cast_unsigned()).then_some(request)
}

/// Tells the supervisor that the stacks for `request` are complete.
pub fn complete(file: impl AsFd, request: u32) {
    let end = seek(&file, SeekFrom::Current(0)).unwrap_or(TEXT_AT);
    let length = u32::try_from(end.saturating_sub(TEXT_AT)).unwrap_or(u32::MAX);
    // The supervisor waits for a limited time.
    let _ = write_numbers(&file, 8, [request, length]);
}

fn numbers(file: impl AsFd) -> Option<[u32; 4]> {
    let mut bytes = [0; TEXT_AT as usize];
    if pread(file, &mut bytes, 0) != Ok(bytes.len()) {
        return None;
    }
    let (numbers, _) = bytes.as_chunks::<4>();
    Some([0, 1, 2, 3].map(|position| u32::from_ne_bytes(numbers[position])))
}

fn write_numbers<const COUNT: usize>(
    file: impl AsFd,
    offset: u64,
    numbers: [u32; COUNT],
) -> Result<(), Errno> {
    let mut bytes = [[0; 4]; COUNT];
    for (piece, number) in bytes.iter_mut().zip(numbers) {
        *piece = number.to_ne_bytes();
    }
    pwrite(file, bytes.as_flattened(), offset).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_process_answers_and_only_the_present_request() {
        let file = create().unwrap();
        assert_eq!((requested(&file, 7), answer(&file, 1)), (None, None));
        ask(&file, 7, 1).unwrap();
        assert_eq!((requested(&file, 7), requested(&file, 8)), (Some(1), None));
        assert_eq!(answer(&file, 1), None);
        rustix::io::write(&file, b"stacks").unwrap();
        complete(&file, 1);
        assert_eq!(answer(&file, 1).as_deref(), Some(&b"stacks"[..]));
        withdraw(&file);
        assert_eq!(requested(&file, 7), None);
        ask(&file, 8, 2).unwrap();
        assert_eq!(answer(&file, 2), None);
        rustix::io::write(&file, b"x").unwrap();
        complete(&file, 1);
        assert_eq!(answer(&file, 2), None, "a late answer to another request");
        complete(&file, 2);
        assert_eq!(answer(&file, 2).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_file_that_a_process_has_cut_or_filled_with_anything_is_read_within_the_limit() {
        let file = create().unwrap();
        ask(&file, 7, u32::MAX).unwrap();
        ftruncate(&file, 3).unwrap();
        assert_eq!(answer(&file, 1), None);
        rustix::io::pwrite(&file, &[0xff; 64], 0).unwrap();
        assert_eq!(answer(&file, u32::MAX).map(|text| text.len()), Some(48));
        ftruncate(&file, 16 << 20).unwrap();
        assert_eq!(answer(&file, u32::MAX).map(|text| text.len()), Some(MAX_TEXT_BYTES));
    }
}
