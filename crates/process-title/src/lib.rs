//! The title of a process, as ps(1), top(1) and `systemctl status` show it in place of the command
//! line. A leaf: knows neither gateway nor engine.
//!
//! proc(5) reads the command line from the memory where the kernel has put it. If the last byte
//! there is not NUL, the kernel takes the text before the first NUL for a title (setproctitle(3)).
//! So a title is written over the arguments, and ends with NUL; the memory of the environment,
//! which follows, stays as it is. No call of the kernel is needed, and a forked process inherits
//! memory and title.
//!
//! Python and Rust's standard library copy the arguments, or must have done so: after the first
//! title, `std::env::args_os` is of no use.

use std::{
    fs, ptr,
    sync::atomic::{AtomicBool, Ordering},
};

/// Maximum length of a title in bytes.
pub const MAX_TITLE_BYTES: usize = 128;

/// The byte for each byte of a title that is not printable ASCII: a terminal may show the title.
const MASK: u8 = b'?';

/// The last byte of the memory, which tells the kernel that there is a title.
const TITLE_MARK: u8 = b'.';

/// Memory of this process for its title.
#[derive(Debug)]
pub struct ProcessTitle {
    /// Address of the first argument.
    start: usize,
    /// Maximum length of a title, without the NUL at its end.
    room: usize,
    /// Length of the text that [`ProcessTitle::set`] has written before the variable part.
    prefix: usize,
    /// A thread is writing.
    is_locked: AtomicBool,
}

impl ProcessTitle {
    /// The memory of the arguments of this process; `None` if proc(5) does not tell.
    ///
    /// This memory must have no other user: the C library keeps pointers to it, but only programs
    /// that read their arguments late follow them.
    pub fn find() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (start, end) = parse(&stat)?;
        // SAFETY: the kernel has put the arguments there, in writable memory at the bottom of the
        // stack that is never unmapped. Nothing in Rust refers to this memory.
        unsafe { Self::at(start, end) }
    }

    /// A title in the memory from `start` to `end`; `None` if that is too short for any.
    ///
    /// # Safety
    /// The memory is writable as long as the process lives, and no reference points to it.
    unsafe fn at(start: usize, end: usize) -> Option<Self> {
        // The last byte is the mark, and the title ends with NUL.
        let room = end.checked_sub(start)?.checked_sub(2)?.min(MAX_TITLE_BYTES);
        // SAFETY: the byte is in the memory that belongs to the title.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(end - 1).write_volatile(TITLE_MARK) };
        Some(Self { start, room, prefix: 0, is_locked: AtomicBool::new(false) })
    }

    /// Sets the whole title. What follows in [`ProcessTitle::complete`] is put behind it.
    pub fn set(&mut self, title: &str) {
        self.prefix = self.write(0, [title.as_bytes()]);
    }

    /// Puts the pieces of `text` behind the title that [`ProcessTitle::set`] has set, in place of
    /// earlier ones. If another thread does so at this moment, does nothing.
    pub fn complete<const N: usize>(&self, text: [&[u8]; N]) {
        if !self.is_locked.swap(true, Ordering::Acquire) {
            self.write(self.prefix, text);
            self.is_locked.store(false, Ordering::Release);
        }
    }

    /// Writes the pieces of `text` from `offset` on. Returns the end of the text.
    fn write<const N: usize>(&self, offset: usize, text: [&[u8]; N]) -> usize {
        let mut buffer = [0; MAX_TITLE_BYTES + 1];
        let mut length = 0;
        for piece in text {
            let piece = &piece[..piece.len().min(self.room - offset - length)];
            for (byte, &source) in buffer[length..].iter_mut().zip(piece) {
                *byte = if matches!(source, b' '..=b'~') { source } else { MASK };
            }
            length += piece.len();
        }
        let source = &buffer[..=length];
        // SAFETY: offset and length are at most `room`, and a byte is left for the NUL. The memory
        // belongs to this title, and one thread writes at a time.
        unsafe {
            let target = ptr::with_exposed_provenance_mut::<u8>(self.start + offset);
            ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
        }
        offset + length
    }
}

/// The method and path of the request in `line`, `METHOD TARGET`, without query, fragment and
/// parameters, which may be secret.
pub fn method_and_path(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| b"?#;".contains(byte)).unwrap_or(line.len());
    &line[..end]
}

/// Addresses of the beginning and the end of the arguments, from the text of `/proc/PID/stat`.
fn parse(stat: &str) -> Option<(usize, usize)> {
    // The name of the program, in parentheses, may contain spaces and parentheses. The state,
    // behind the name, is field 3 in proc(5); the addresses are the fields 48 and 49.
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace().skip(48 - 3);
    let mut address = || fields.next()?.parse().ok();
    let (start, end) = (address()?, address()?);
    (start > 0 && start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of `length` bytes with arguments, its title, and its text up to the first NUL.
    fn title(length: usize) -> (ProcessTitle, impl Fn() -> Vec<u8>) {
        let memory = Vec::leak(vec![b'a'; length]);
        let start = memory.as_mut_ptr().expose_provenance();
        // SAFETY: the memory was leaked, and is referred to nowhere else.
        let title = unsafe { ProcessTitle::at(start, start + length).unwrap() };
        let text = move || {
            let byte = |offset| {
                // SAFETY: the offset is within the memory.
                unsafe { ptr::with_exposed_provenance::<u8>(start + offset).read_volatile() }
            };
            assert_ne!(byte(length - 1), 0, "the kernel must see a title");
            (0..length).map(byte).take_while(|&byte| byte != 0).collect()
        };
        (title, text)
    }

    #[test]
    fn a_title_is_completed_again_and_again() {
        let (mut title, text) = title(500);
        title.set("wsgate: pool shop, worker 3 ");
        title.complete([b"(", b"GET /a/long/path", b")"]);
        assert_eq!(text(), b"wsgate: pool shop, worker 3 (GET /a/long/path)");
        title.complete([b"(idle)"]);
        assert_eq!(text(), b"wsgate: pool shop, worker 3 (idle)");
    }

    #[test]
    fn a_title_is_cut_where_its_memory_ends() {
        for length in 2..200 {
            let (mut title, text) = title(length);
            title.set("wsgate: pool shop, worker 3 ");
            title.complete([b"(", &[b'x'; 300], b")"]);
            assert_eq!(text().len(), (length - 2).min(MAX_TITLE_BYTES));
        }
        // SAFETY: nothing is written to memory that is too short.
        assert!(unsafe { ProcessTitle::at(0x1000, 0x1001) }.is_none());
    }

    #[test]
    fn bytes_that_a_terminal_would_obey_are_masked_and_secrets_are_left_out() {
        let (mut title, text) = title(500);
        title.set("");
        title.complete([method_and_path(b"GET /\x1b[2J\n\0\xc3\xa9?token=1")]);
        assert_eq!(text(), b"GET /?[2J????");
        for (line, shown) in
            [(&b"GET /a;jsessionid=1/b"[..], &b"GET /a"[..]), (b"GET /a#b", b"GET /a"), (b"", b"")]
        {
            assert_eq!(method_and_path(line), shown);
        }
    }

    #[test]
    fn addresses_are_read_behind_any_name_of_the_program() {
        let fields: Vec<String> = (4..53).map(|number: u32| number.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(parse(&stat), Some((48, 49)));
        for other in ["", "7 (a) S 1", &stat.replace(" 48 49 ", " 0 0 ")] {
            assert_eq!(parse(other), None);
        }
    }
}
