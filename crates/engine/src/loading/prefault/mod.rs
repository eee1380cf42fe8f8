//! Prepares memory pages in a forked process before its request comes.
//!
//! A forked process shares memory with its template. Python counts references in the objects
//! themselves, so a request writes to hundreds of loaded pages. Each first write interrupts the
//! request while the kernel copies the page. The first use of each program page interrupts the
//! request as well. With a framework these interruptions take longer than the request's own work. A
//! process that has served a request finds out which pages these are (`pagemap`, proc(5)). In
//! processes that are forked later, the kernel prepares all these pages at once, while no client
//! waits.

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

/// How many pages are copied in advance: 16 MiB with the usual page size. The limit bounds the
/// memory of an idle process.
const MOST_COPIES: u64 = 4096;

/// How many page ranges are recorded.
const MOST_RANGES: usize = 4096;

/// How many `pagemap` entries are read at once.
const LOOKED_AT: u64 = 4096;

/// The length in pages of the largest area that is examined: 16 GiB with the usual page size.
/// Larger areas are mostly reserved address space.
const LONGEST_AREA: u64 = 1 << 22;

/// How many bytes of a file the kernel maps together (`fault_around_bytes`).
const AROUND: u64 = 64 * 1024;

/// How many bits of an encoded range hold the length in pages. The next bit says whether the pages
/// are written to. The other bits hold the number of the first page.
const LENGTH_BITS: u32 = 16;
const LONGEST: u64 = (1 << LENGTH_BITS) - 1;
const FIRST: u32 = LENGTH_BITS + 1;

/// Bits of a `pagemap` entry: the page is in memory, belongs to a file or shared mapping, or is
/// mapped once.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;

/// The page ranges that all processes of one template share.
pub(crate) struct Pages(&'static Shared);

/// All fields are atomic, since processes write them concurrently. A list that two processes wrote
/// is harmless.
struct Shared {
    /// The number of served requests.
    served: AtomicU32,
    /// The number of recorded ranges.
    count: AtomicU32,
    ranges: [AtomicU64; MOST_RANGES],
}

impl Pages {
    /// An empty record. Must be created before forking the processes.
    ///
    /// # Errors
    /// If memory is short.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the kernel chooses the address of this new mapping, which lasts as long as the
        // process. All fields are valid as zero. A mapping starts at a page, which satisfies their
        // alignment. The fields are atomic, since other processes share them.
        let shared = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            &*mmap_anonymous(ptr::null_mut(), size_of::<Shared>(), access, MapFlags::SHARED)?
                .cast::<Shared>()
        };
        Ok(Self(shared))
    }

    /// Prepares the recorded pages in a process that was just forked. Returns whether any page is
    /// recorded.
    pub(crate) fn meet(&self) -> bool {
        let count = usize::try_from(self.0.count.load(Ordering::Acquire)).unwrap_or(0);
        for range in self.0.ranges.iter().take(count) {
            let Range { first, length, written } = Range::decode(range.load(Ordering::Relaxed));
            let advice =
                if written { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
            let bytes = |pages: u64| usize::try_from(pages * page_size() as u64);
            let (Ok(first), Ok(length)) = (bytes(first), bytes(length)) else { return false };
            // SAFETY: the call changes no byte and removes no page. The kernel only does the work
            // of the first use of each page. For a missing or unsuitable page the kernel returns an
            // error and does nothing.
            let met = unsafe { madvise(ptr::without_provenance_mut(first), length, advice) };
            // The kernel is older than Linux 5.14.
            if met == Err(Errno::INVAL) {
                return false;
            }
        }
        count > 0
    }

    /// Examines the pages of a process that has served a request. Runs after the first request of
    /// all processes, the second, the fourth, and so on. Each examination replaces the earlier
    /// record.
    pub(crate) fn note(&self) {
        if (self.0.served.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            // If `pagemap` cannot be read, requests only take longer.
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
            // The last areas belong to the kernel and have no entries.
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
                    // Mapping one page of a file also maps the pages around it.
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

/// A range of adjacent pages.
struct Range {
    /// The number of the first page.
    first: u64,
    /// The number of pages.
    length: u64,
    /// The pages are written to.
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

/// Was the page of this entry written to (and so copied), or only read? `None` if the page was not
/// used, or already belonged to the process after the fork.
fn is_written(entry: [u8; 8]) -> Option<bool> {
    match u64::from_ne_bytes(entry) & (PRESENT | OF_FILE | EXCLUSIVE) {
        entry if entry == PRESENT | EXCLUSIVE => Some(true),
        entry if entry & (PRESENT | OF_FILE) == PRESENT | OF_FILE => Some(false),
        _ => None,
    }
}

/// Splits an area into pieces that are read at once. An area of the application may be larger than
/// the free memory.
fn pieces(first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let beginnings =
        (0..).map(move |number| first + number * LOOKED_AT).take_while(move |begin| *begin < end);
    beginnings.map(move |begin| (begin, end.min(begin + LOOKED_AT)))
}

/// The first page and the end of a private memory area, from its line in `maps`.
fn private(line: &str) -> Option<(u64, u64)> {
    let (area, rest) = line.split_once(' ')?;
    if !rest.starts_with('r') || rest.as_bytes().get(3) != Some(&b'p') {
        return None;
    }
    let (first, end) = area.split_once('-')?;
    let page = |address: &str| Some(u64::from_str_radix(address, 16).ok()? / page_size() as u64);
    Some((page(first)?, page(end)?))
}
