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
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::param::page_size;

use crate::process::shared_memory::{FirstUse, prepare_pages, shared_counters};

/// How many pages are copied in advance: 16 MiB with the usual page size. The limit bounds the
/// memory of an idle process.
const MAX_COPIES: u64 = 4096;

/// How many page ranges are recorded.
const MAX_RANGES: usize = 4096;

/// How many `pagemap` entries are read at once.
const ENTRIES_PER_READ: u64 = 4096;

/// The length in pages of the largest area that is examined: 16 GiB with the usual page size.
/// Larger areas are mostly reserved address space.
const MAX_AREA_PAGES: u64 = 1 << 22;

/// How many bytes of a file the kernel maps together (`fault_around_bytes`).
const FAULT_AROUND_BYTES: u64 = 64 * 1024;

/// How many bits of an encoded range hold the length in pages. The next bit says whether the pages
/// are written to. The other bits hold the number of the first page.
const LENGTH_BITS: u32 = 16;
const MAX_LENGTH: u64 = (1 << LENGTH_BITS) - 1;
const FIRST_SHIFT: u32 = LENGTH_BITS + 1;

/// Bits of a `pagemap` entry: the page is in memory, belongs to a file or shared mapping, or is
/// mapped once.
const PRESENT: u64 = 1 << 63;
const OF_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;

/// The page ranges that all processes of one template share. Processes write them concurrently. A
/// list that two processes wrote is harmless.
pub(crate) struct Pages {
    /// The number of served requests.
    served: &'static AtomicU64,
    /// The number of recorded ranges.
    count: &'static AtomicU64,
    ranges: &'static [AtomicU64],
}

impl Pages {
    /// An empty record. Must be created before forking the processes.
    ///
    /// # Errors
    /// If memory is short.
    pub(crate) fn new() -> io::Result<Self> {
        match shared_counters(2 + MAX_RANGES)? {
            [served, count, ranges @ ..] => Ok(Self { served, count, ranges }),
            _ => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Prepares the recorded pages in a process that was just forked. Returns whether the kernel
    /// has prepared any.
    pub(crate) fn prepare(&self) -> bool {
        let count = usize::try_from(self.count.load(Ordering::Acquire)).unwrap_or(0);
        let mut is_prepared = false;
        for range in self.ranges.iter().take(count) {
            let Range { first, length, written } = Range::decode(range.load(Ordering::Relaxed));
            let bytes = |pages: u64| usize::try_from(pages * page_size() as u64);
            let (Ok(address), Ok(length)) = (bytes(first), bytes(length)) else { continue };
            let first_use = if written { FirstUse::Write } else { FirstUse::Read };
            // A range may be missing or unsuitable in this process. The others still help.
            is_prepared |= prepare_pages(address, length, first_use);
        }
        is_prepared
    }

    /// Examines the pages of a process that has served a request. Runs after the first request of
    /// all processes, the second, the fourth, and so on. Each examination replaces the earlier
    /// record.
    pub(crate) fn record(&self) {
        if (self.served.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
            // If `pagemap` cannot be read, requests only take longer.
            let _ = self.examine();
        }
    }

    fn examine(&self) -> io::Result<()> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let pagemap = File::open("/proc/self/pagemap")?;
        let around = (FAULT_AROUND_BYTES / page_size() as u64).max(1);
        let mut ranges: Vec<Range> = Vec::new();
        let mut copies = 0;
        let mut buffer = [0; ENTRIES_PER_READ as usize * size_of::<u64>()];
        let areas = maps
            .lines()
            .filter_map(private_area)
            .filter(|(first, end)| end - first <= MAX_AREA_PAGES);
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
                    is_written(*entry).filter(|written| !written || copies < MAX_COPIES)
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
        for (range, recorded) in ranges.iter().zip(self.ranges) {
            recorded.store(range.encode(), Ordering::Relaxed);
        }
        self.count.store(ranges.len().min(MAX_RANGES) as u64, Ordering::Release);
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
        self.first << FIRST_SHIFT
            | u64::from(self.written) << LENGTH_BITS
            | self.length.min(MAX_LENGTH)
    }

    fn decode(code: u64) -> Self {
        Self {
            first: code >> FIRST_SHIFT,
            length: code & MAX_LENGTH,
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
    let beginnings = (0..)
        .map(move |number| first + number * ENTRIES_PER_READ)
        .take_while(move |begin| *begin < end);
    beginnings.map(move |begin| (begin, end.min(begin + ENTRIES_PER_READ)))
}

/// The first page and the end of a private memory area, from its line in `maps`.
fn private_area(line: &str) -> Option<(u64, u64)> {
    let (area, rest) = line.split_once(' ')?;
    if !rest.starts_with('r') || rest.as_bytes().get(3) != Some(&b'p') {
        return None;
    }
    let (first, end) = area.split_once('-')?;
    let page = |address: &str| Some(u64::from_str_radix(address, 16).ok()? / page_size() as u64);
    Some((page(first)?, page(end)?))
}
