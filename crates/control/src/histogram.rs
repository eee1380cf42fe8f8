//! A histogram in the status of a pool.

use serde::{Deserialize, Serialize};

/// How many times something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistogramStatus {
    /// The upper bound of each bucket in microseconds. The last bucket has no bound.
    pub bounds_microseconds: Vec<u64>,
    /// Number of times in each bucket: one more than there are bounds.
    pub counts: Vec<u64>,
    /// All times together in microseconds.
    pub sum_microseconds: u64,
}

impl HistogramStatus {
    /// Adds the counts of another histogram, if its buckets are the same.
    pub(crate) fn add(&mut self, more: &Self) {
        if self.bounds_microseconds != more.bounds_microseconds {
            return;
        }
        self.counts.iter_mut().zip(&more.counts).for_each(|(count, more)| *count += more);
        self.sum_microseconds = self.sum_microseconds.wrapping_add(more.sum_microseconds);
    }

    /// For each bound in seconds, the number of times up to it; for `None`, the number of all.
    /// Empty if the pool has no histogram.
    pub fn cumulative(&self) -> Vec<(Option<f64>, u64)> {
        if self.counts.len() != self.bounds_microseconds.len() + 1 {
            return Vec::new();
        }
        let bounds = self.bounds_microseconds.iter().map(|&bound| Some(bound as f64 / 1e6));
        let mut total = 0_u64;
        bounds
            .chain([None])
            .zip(&self.counts)
            .map(|(bound, &count)| {
                total = total.saturating_add(count);
                (bound, total)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_added_up_to_the_last_one_without_a_bound() {
        let histogram = HistogramStatus {
            bounds_microseconds: vec![1_000, 2_500_000],
            counts: vec![2, 0, 3],
            sum_microseconds: 1,
        };
        assert_eq!(histogram.cumulative(), [(Some(0.001), 2), (Some(2.5), 2), (None, 5)]);
        let wrong = HistogramStatus { counts: vec![1], ..histogram };
        assert_eq!(wrong.cumulative(), []);
        assert_eq!(HistogramStatus::default().cumulative(), []);
    }
}
