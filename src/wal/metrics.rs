//! Metrics of a log.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

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
    /// The begin of the write or sync that is under way.
    writing_since: Mutex<Option<Instant>>,
}

impl Default for WalMetrics {
    fn default() -> WalMetrics {
        let (write, sync) = (Histogram::new(&LATENCY_BUCKETS), Histogram::new(&LATENCY_BUCKETS));
        let (written_bytes, writing_since) = (Counter::default(), Mutex::default());
        WalMetrics { write, sync, written_bytes, writing_since }
    }
}

impl WalMetrics {
    pub fn begin_write(&self) {
        *self.writing_since() = Some(Instant::now());
    }

    pub fn end_write(&self) {
        *self.writing_since() = None;
    }

    /// The age of the write that is under way. Zero if none is. A long one means that the disk hangs.
    pub fn writing_for(&self) -> Duration {
        self.writing_since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn writing_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.writing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
