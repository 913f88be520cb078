//! Counters, gauges and histograms. All are relaxed atomics: a scrape may read a sum and its count at
//! slightly different moments, which Prometheus expects.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that only grows.
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

/// A current number.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Increments the gauge until the guard is dropped.
    pub fn track(&self) -> GaugeGuard<'_> {
        self.0.fetch_add(1, Relaxed);
        GaugeGuard(self)
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Must follow the [`Gauge::add`] of the same number: a gauge is never negative.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Decrements the [`Gauge`] when dropped.
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// The unit in which a histogram is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
}

impl Unit {
    pub fn of(self, nanos: f64) -> f64 {
        // One division of two whole numbers, so that 0.1 is exposed as 0.1.
        let unit = match self {
            Unit::Seconds => 1e9,
            Unit::Milliseconds => 1e6,
        };
        nanos / unit
    }
}

/// The distribution of durations.
#[derive(Debug)]
pub struct Histogram {
    pub bounds: &'static [Duration],
    /// One for each bound, and one for longer durations.
    pub counts: Box<[AtomicU64]>,
    /// The bits of an `f64`: the TTLs of leases overflow a `u64` of nanoseconds.
    sum_nanos: AtomicU64,
    pub unit: Unit,
}

impl Histogram {
    /// `bounds` must ascend.
    pub fn new(bounds: &'static [Duration]) -> Histogram {
        Histogram::with_unit(Unit::Seconds, bounds)
    }

    pub fn with_unit(unit: Unit, bounds: &'static [Duration]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_nanos: AtomicU64::new(0), unit }
    }

    pub fn observe(&self, took: Duration) {
        // Buckets include their upper bound.
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Relaxed);
        let nanos = took.as_nanos() as f64;
        let added = |sum| Some((f64::from_bits(sum) + nanos).to_bits());
        // The closure never returns `None`, so the update cannot fail.
        let _ = self.sum_nanos.fetch_update(Relaxed, Relaxed, added);
    }

    pub fn sum_nanos(&self) -> f64 {
        f64::from_bits(self.sum_nanos.load(Relaxed))
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The bound of the bucket with this percentile. Durations beyond all bounds count as the last bound.
    /// `None`: no observations.
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

/// Bounds that double, as in all of etcd's histograms.
pub const fn exponential_buckets<const N: usize>(first: Duration) -> [Duration; N] {
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

    static BOUNDS: [Duration; 3] = exponential_buckets(Duration::from_millis(1));

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_contains_it() {
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
    fn a_dropped_guard_no_longer_counts() {
        let gauge = Gauge::default();
        let one = gauge.track();
        drop(gauge.track());
        assert_eq!(gauge.get(), 1);
        drop(one);
        assert_eq!(gauge.get(), 0);
    }
}
