//! What counts and measures. Everything is relaxed atomics: a scrape may see a sum and its count a
//! moment apart, as Prometheus expects.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Grows until the process ends.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more, until the guard is dropped.
    pub fn raise(&self) -> Raised<'_> {
        self.0.fetch_add(1, Relaxed);
        Raised(self)
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One of what a [`Gauge`] counts.
#[derive(Debug)]
pub struct Raised<'a>(&'a Gauge);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// In what a histogram is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    pub(super) fn of(self, nanos: f64) -> f64 {
        // One division of two whole numbers: 0.1 is shown as 0.1.
        let unit = match self {
            Unit::Seconds => 1e9,
            Unit::Milliseconds => 1e6,
        };
        nanos / unit
    }
}

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    pub(super) bounds: &'static [Duration],
    /// One for each bound, and one for what was longer than all of them.
    pub(super) counts: Box<[AtomicU64]>,
    /// A float: the lives of leases add up to more than a whole number holds.
    sum_nanos: AtomicU64,
    pub(super) unit: Unit,
}

impl Histogram {
    /// `bounds` ascend.
    pub fn new(bounds: &'static [Duration]) -> Histogram {
        Histogram::shown_in(Unit::Seconds, bounds)
    }

    pub fn shown_in(unit: Unit, bounds: &'static [Duration]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_nanos: AtomicU64::new(0), unit }
    }

    pub fn observe(&self, took: Duration) {
        // A bound belongs to its bucket.
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Relaxed);
        let nanos = took.as_nanos() as f64;
        let added = |sum| Some((f64::from_bits(sum) + nanos).to_bits());
        // It never refuses.
        let _ = self.sum_nanos.fetch_update(Relaxed, Relaxed, added);
    }

    pub(super) fn sum_nanos(&self) -> f64 {
        f64::from_bits(self.sum_nanos.load(Relaxed))
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// A bound that so many percent of what was observed are not above. What is longer than all
    /// bounds counts as the last of them. `None`: nothing was observed.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        self.bounds.get(bucket).or(self.bounds.last()).copied()
    }
}

/// Bounds that double: the shape of all of etcd's histograms.
pub const fn doubling<const N: usize>(first: Duration) -> [Duration; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1].saturating_mul(2);
        at += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: [Duration; 3] = doubling(Duration::from_millis(1));

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&BOUNDS);
        for micros in [1, 1000, 1001, 4000, 4001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.counts.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum_nanos(), 10_003_000.0);
    }

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let histogram = Histogram::new(&BOUNDS);
        assert_eq!(histogram.percentile(99), None);
        (0..98).for_each(|_| histogram.observe(Duration::from_micros(1500)));
        let two = Duration::from_millis(2);
        assert_eq!([50, 99].map(|p| histogram.percentile(p)), [Some(two); 2]);
        (0..2).for_each(|_| histogram.observe(Duration::from_secs(1)));
        assert_eq!(histogram.percentile(98), Some(two));
        assert_eq!(histogram.percentile(99), Some(Duration::from_millis(4)));
    }

    #[test]
    fn what_ends_counts_no_longer() {
        let gauge = Gauge::default();
        let one = gauge.raise();
        drop(gauge.raise());
        assert_eq!(gauge.get(), 1);
        drop(one);
        assert_eq!(gauge.get(), 0);
    }
}
