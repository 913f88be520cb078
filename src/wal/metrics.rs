//! Metrics of a log.

use std::time::Duration;

use crate::metrics::{Counter, Histogram, exponential_buckets};

static LATENCY_BUCKETS: [Duration; 14] = exponential_buckets(Duration::from_millis(1));

/// Counters of one log since it was opened.
#[derive(Debug)]
pub struct WalMetrics {
    /// Time to write a frame to the page cache.
    pub write: Histogram,
    /// Time of the fdatasync that makes a frame durable.
    pub sync: Histogram,
    /// Bytes of frames, with the padding of their last page.
    pub written_bytes: Counter,
}

impl Default for WalMetrics {
    fn default() -> WalMetrics {
        let (write, sync) = (Histogram::new(&LATENCY_BUCKETS), Histogram::new(&LATENCY_BUCKETS));
        WalMetrics { write, sync, written_bytes: Counter::default() }
    }
}
