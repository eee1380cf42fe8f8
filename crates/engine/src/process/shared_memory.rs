//! Memory that a process shares with the processes that it forks, and pages that the kernel
//! prepares in advance.

use std::{io, ptr, slice, sync::atomic::AtomicU64};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// `count` counters with the value 0, which all processes forked later share. The memory stays
/// mapped until the process exits.
///
/// # Errors
/// If memory is short.
pub(crate) fn shared_counters(count: usize) -> io::Result<&'static [AtomicU64]> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // A mapping of this length starts at a page, which satisfies the alignment of the counters.
    let length = count.saturating_mul(size_of::<AtomicU64>());
    // SAFETY: the kernel chooses the address of this new mapping, which has `count` counters and
    // is never unmapped. Zero is a valid value. Other processes change the counters only as
    // atomics.
    unsafe {
        let memory = mmap_anonymous(ptr::null_mut(), length, access, MapFlags::SHARED)?;
        Ok(slice::from_raw_parts(memory.cast::<AtomicU64>(), count))
    }
}

/// How memory is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstUse {
    Read,
    Write,
}

/// Has the kernel do the work of the first use of `length` bytes at `address` now. Both are
/// multiples of the page size. Returns `false` if memory is missing or unsuitable, or if the kernel
/// is older than Linux 5.14.
pub(crate) fn prepare_pages(address: usize, length: usize, first_use: FirstUse) -> bool {
    let advice = match first_use {
        FirstUse::Read => Advice::LinuxPopulateRead,
        FirstUse::Write => Advice::LinuxPopulateWrite,
    };
    // SAFETY: the call changes no byte and removes no page. The kernel only does the work of the
    // first use of each page.
    unsafe { madvise(ptr::without_provenance_mut(address), length, advice) }.is_ok()
}
