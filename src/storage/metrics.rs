//! What the storage measures of itself.

use std::time::Duration;

use crate::metrics::{Histogram, doubling};

static BOUNDS: [Duration; 14] = doubling(Duration::from_millis(1));
static RECEIVED: [Duration; 10] = doubling(Duration::from_millis(100));

/// One store's numbers since it was opened.
#[derive(Debug)]
pub struct StorageMetrics {
    /// One round of the state writer: blocks written and synced, tables committed.
    pub commit: Histogram,
    /// A snapshot of our own: tables dumped, its file written and synced.
    pub snapshot_save: Histogram,
    /// Of that, writing and syncing the file.
    pub snapshot_sync: Histogram,
    /// A snapshot of somebody else's: all its files checked and synced, after they arrived.
    pub received_save: Histogram,
    /// The sync of one of those files.
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
