//! Pages of memory that requests use, made ready before the request of a process.
//!
//! A process that was just forked shares its memory with its template. Python counts references in
//! the objects themselves, so that a request writes to hundreds of pages that were loaded before
//! it, and at each the kernel interrupts it for a copy; it does so, too, at each page of a program
//! that is run for the first time. With a framework that takes longer than its own work. Which
//! pages these are is looked up in a process that has served (`pagemap`, proc(5)), and for the
//! processes that are forked from then on the kernel does it all in one go, while nobody waits.

pub(crate) mod rehearsal;

use std::{
    fs::{
        File, {self},
    },
    io,
    os::unix::fs::FileExt as _,
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous},
    param::page_size,
};

/// Pages that are copied beforehand: 16 MiB of the usual size. What a process that may never be
/// asked has for itself has a limit.
const MOST_COPIES: u64 = 4096;

/// Ranges of pages that are remembered.
const MOST_RANGES: usize = 4096;

/// Pages that are looked at in one go.
const LOOKED_AT: u64 = 4096;

/// Pages of the longest area that is looked at: 16 GiB of the usual size. A longer one is hardly
/// more than reserved.
const LONGEST_AREA: u64 = 1 << 22;

/// Bytes that the kernel maps together where a page of a file is used (`fault_around_bytes`).
const AROUND: u64 = 64 * 1024;

/// Bits of a range that hold its length in pages. The next tells whether they are written to, the
/// others are the number of the first.
const LENGTH_BITS: u32 = 16;
const LONGEST: u64 = (1 << LENGTH_BITS) - 1;
const FIRST: u32 = LENGTH_BITS + 1;

/// An entry of `pagemap`: the page is in memory, belongs to a file or is shared on purpose, is
/// mapped once.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;

/// What the processes of one template know together.
pub(crate) struct Pages(&'static Shared);

/// All of it atomic: processes write it as they come to it, and a list that is half another one
/// does no harm.
struct Shared {
    /// Requests that were served.
    served: AtomicU32,
    /// Ranges that are listed.
    count: AtomicU32,
    ranges: [AtomicU64; MOST_RANGES],
}

impl Pages {
    /// Nothing is known yet. To be made before the processes are forked.
    ///
    /// # Errors
    /// If memory is short.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice, which stays for as long as the
        // process. It is all zero, for which all fields are made, and begins at a page, which is
        // enough for their alignment; they are atomic, as other processes have it, too.
        let shared = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            &*mmap_anonymous(ptr::null_mut(), size_of::<Shared>(), access, MapFlags::SHARED)?
                .cast::<Shared>()
        };
        Ok(Self(shared))
    }

    /// In a process that was just forked: makes the pages ready. Returns whether any are known.
    pub(crate) fn meet(&self) -> bool {
        let count = usize::try_from(self.0.count.load(Ordering::Acquire)).unwrap_or(0);
        for range in self.0.ranges.iter().take(count) {
            let Range { first, length, written } = Range::decode(range.load(Ordering::Relaxed));
            let advice =
                if written { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
            let bytes = |pages: u64| usize::try_from(pages * page_size() as u64);
            let (Ok(first), Ok(length)) = (bytes(first), bytes(length)) else { return false };
            // SAFETY: no byte is changed, and no page is taken away: the kernel does what it would
            // do at the first use of each of these pages. Where there is none, or none that may be
            // used so, it says so and does nothing.
            let met = unsafe { madvise(ptr::without_provenance_mut(first), length, advice) };
            // Older than Linux 5.14.
            if met == Err(Errno::INVAL) {
                return false;
            }
        }
        count > 0
    }

    /// In a process that has served a request: looks which pages have become its own, after the
    /// first request of all, the second, the fourth, and so on. The last that looked is right.
    pub(crate) fn note(&self) {
        if (self.0.served.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            // Where this cannot be read, requests take longer.
            let _ = self.look();
        }
    }

    fn look(&self) -> io::Result<()> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let pagemap = File::open("/proc/self/pagemap")?;
        let around = (AROUND / page_size() as u64).max(1);
        let mut ranges: Vec<Range> = Vec::new();
        let mut copies = 0;
        let mut buffer = [0; LOOKED_AT as usize * size_of::<u64>()];
        let areas =
            maps.lines().filter_map(private).filter(|(first, end)| end - first <= LONGEST_AREA);
        for (first, end) in areas.flat_map(|(first, end)| pieces(first, end)) {
            let length = usize::try_from(end - first).map_err(io::Error::other)? * size_of::<u64>();
            // The last areas are the kernel's, and have none.
            let Ok(length) =
                pagemap.read_at(&mut buffer[..length], first * size_of::<u64>() as u64)
            else {
                continue;
            };
            let (entries, _) = buffer[..length].as_chunks();
            for (page, entry) in (first..).zip(entries) {
                let Some(written) =
                    is_written(*entry).filter(|written| !written || copies < MOST_COPIES)
                else {
                    continue;
                };
                copies += u64::from(written);
                match ranges.last_mut() {
                    // With one page of a file come those around it.
                    Some(last)
                        if !written && !last.written && last.first / around == page / around => {}
                    Some(last) if written && last.written && last.first + last.length == page => {
                        last.length += 1
                    }
                    _ => ranges.push(Range { first: page, length: 1, written }),
                }
            }
        }
        for (range, place) in ranges.iter().zip(&self.0.ranges) {
            place.store(range.encode(), Ordering::Relaxed);
        }
        self.0
            .count
            .store(u32::try_from(ranges.len().min(MOST_RANGES)).unwrap_or(0), Ordering::Release);
        Ok(())
    }
}

/// Pages that lie beside each other.
struct Range {
    /// The number of the first.
    first: u64,
    /// How many they are.
    length: u64,
    /// They are written to.
    written: bool,
}

impl Range {
    fn encode(&self) -> u64 {
        self.first << FIRST | u64::from(self.written) << LENGTH_BITS | self.length.min(LONGEST)
    }

    fn decode(code: u64) -> Self {
        Self {
            first: code >> FIRST,
            length: code & LONGEST,
            written: code & (1 << LENGTH_BITS) > 0,
        }
    }
}

/// Whether a page with this entry was written to, so that it has become the process's own, or only
/// read. `None` if it was not used, or if the process has had it since it was forked.
fn is_written(entry: [u8; 8]) -> Option<bool> {
    match u64::from_ne_bytes(entry) & (PRESENT | OF_FILE | EXCLUSIVE) {
        entry if entry == PRESENT | EXCLUSIVE => Some(true),
        entry if entry & (PRESENT | OF_FILE) == PRESENT | OF_FILE => Some(false),
        _ => None,
    }
}

/// An area in pieces that are looked at in one go: what the application has mapped may be longer
/// than the memory that it has left.
fn pieces(first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let beginnings =
        (0..).map(move |number| first + number * LOOKED_AT).take_while(move |begin| *begin < end);
    beginnings.map(move |begin| (begin, end.min(begin + LOOKED_AT)))
}

/// First page and end of an area of memory that is private to a process, from its line in `maps`.
fn private(line: &str) -> Option<(u64, u64)> {
    let (area, rest) = line.split_once(' ')?;
    if !rest.starts_with('r') || rest.as_bytes().get(3) != Some(&b'p') {
        return None;
    }
    let (first, end) = area.split_once('-')?;
    let page = |address: &str| Some(u64::from_str_radix(address, 16).ok()? / page_size() as u64);
    Some((page(first)?, page(end)?))
}
