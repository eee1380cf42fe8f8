//! Histograms of the times of requests, in the shared memory behind the lines.
//!
//! Each line has its own histograms, which only the thread of the line writes, so that no two
//! processors share their memory and no lock is needed. They belong to the pool, not to the
//! worker: the next worker on the line goes on counting. The numbers of the pool are the sums of
//! all lines.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Number of buckets that have a bound.
const BOUND_COUNT: usize = 17;

/// Upper bounds of the buckets in microseconds. The last bucket has no bound.
pub const BOUNDS_MICROSECONDS: [u64; BOUND_COUNT] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// How many times took how long.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    counts: [AtomicU64; BOUND_COUNT + 1],
    sum_microseconds: AtomicU64,
}

/// The histograms of one line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct LineHistograms {
    /// Time from the begin of a request to its end.
    pub duration: Histogram,
    /// Time that a request waited before, where that is known.
    pub waiting: Histogram,
}

/// The sum of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// Number of times in each bucket.
    pub counts: [u64; BOUND_COUNT + 1],
    /// All times together in microseconds.
    pub sum_microseconds: u64,
}

impl Histogram {
    /// Counts `time`. Only the thread of the line calls this.
    pub fn observe(&self, time: Duration) {
        let (bucket, microseconds) = bucket_of(time);
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.sum_microseconds, microseconds);
    }
}

/// The bucket of `time`, and its microseconds.
fn bucket_of(time: Duration) -> (usize, u64) {
    let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    (BOUNDS_MICROSECONDS.partition_point(|&bound| bound < microseconds), microseconds)
}

/// Adds without an atomic read and write, since no other thread writes.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl HistogramSum {
    /// Counts `time`.
    pub fn observe(&mut self, time: Duration) {
        let (bucket, microseconds) = bucket_of(time);
        self.counts.iter_mut().skip(bucket).take(1).for_each(|count| *count += 1);
        self.sum_microseconds = self.sum_microseconds.wrapping_add(microseconds);
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.wrapping_add(*count);
        }
        self.sum_microseconds = self.sum_microseconds.wrapping_add(other.sum_microseconds);
    }

    /// Adds the counts of `histogram`.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
        }
        let more = histogram.sum_microseconds.load(Ordering::Relaxed);
        self.sum_microseconds = self.sum_microseconds.wrapping_add(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn times_of_all_lines_and_workers_are_added_up_by_bucket() {
        let (board, descriptor) = Scoreboard::create(3).unwrap();
        let worker = Scoreboard::attach(descriptor).unwrap();
        for line in [0, 2] {
            worker.line(line).unwrap().claim(4711, 0);
            let histograms = worker.histograms(line).unwrap();
            histograms.duration.observe(Duration::from_micros(500));
            histograms.duration.observe(Duration::from_micros(501));
            histograms.waiting.observe(Duration::from_secs(1000));
        }
        worker.line(0).unwrap().release();
        worker.line(0).unwrap().claim(4712, 0);
        worker.histograms(0).unwrap().duration.observe(Duration::ZERO);
        let (duration, waiting) = board.request_times();
        assert_eq!((duration.counts[0], duration.counts[1], duration.counts[2]), (3, 2, 0));
        assert_eq!(duration.sum_microseconds, 2 * 1001);
        assert_eq!(waiting.counts[BOUND_COUNT], 2);
        assert_eq!(waiting.counts.iter().sum::<u64>(), 2);
        assert!(board.histograms(3).is_none());
    }

    #[test]
    fn the_histograms_of_the_last_line_are_inside_the_memory() {
        for lines in [1, 2, 7, 100] {
            let (board, _descriptor) = Scoreboard::create(lines).unwrap();
            assert_eq!(board.lines(), lines);
            let last = board.histograms(lines - 1).unwrap();
            last.waiting.observe(Duration::from_secs(1));
            board.line(lines - 1).unwrap().claim(1, 0);
            assert_eq!(board.request_times().1.sum_microseconds, 1_000_000);
        }
    }
}
