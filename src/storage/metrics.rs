//! Metrics of the storage.

use std::time::Duration;

use crate::metrics::{Histogram, exponential_buckets};

static BOUNDS: [Duration; 14] = exponential_buckets(Duration::from_millis(1));
static RECEIVED: [Duration; 10] = exponential_buckets(Duration::from_millis(100));

/// The metrics of one store since it was opened.
#[derive(Debug)]
pub struct StorageMetrics {
    /// One commit of the state writer: blocks written and synced, tables committed.
    pub commit: Histogram,
    /// Taking a snapshot: tables dumped, its file written and synced.
    pub snapshot_save: Histogram,
    /// The part of it for writing and syncing the file.
    pub snapshot_sync: Histogram,
    /// Verifying and syncing the files of a received snapshot, after their arrival.
    pub received_save: Histogram,
    /// The sync of one received file.
    pub received_sync: Histogram,
}

impl Default for StorageMetrics {
    fn default() -> StorageMetrics {
        StorageMetrics {
            commit: Histogram::new(&BOUNDS),
            snapshot_save: Histogram::new(&BOUNDS),
            snapshot_sync: Histogram::new(&BOUNDS),
            received_save: Histogram::new(&RECEIVED),
            received_sync: Histogram::new(&BOUNDS),
        }
    }
}
