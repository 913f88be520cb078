//! What the log measures of itself.

use std::time::Duration;

use crate::metrics::{Counter, Histogram, doubling};

static BOUNDS: [Duration; 14] = doubling(Duration::from_millis(1));

/// One log's numbers since it was opened.
#[derive(Debug)]
pub struct WalMetrics {
    /// From the write of a frame to the page cache, until that returned.
    pub write: Histogram,
    /// The sync that makes a frame durable.
    pub sync: Histogram,
    /// Frames, with what fills their last page.
    pub written_bytes: Counter,
}

impl Default for WalMetrics {
    fn default() -> WalMetrics {
        let (write, sync) = (Histogram::new(&BOUNDS), Histogram::new(&BOUNDS));
        WalMetrics { write, sync, written_bytes: Counter::default() }
    }
}
