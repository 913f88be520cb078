//! The state that a state machine recovers from.

use std::sync::Arc;

use super::{generation::Entries, record_metas::RecordMetas, record_store::RecordStore};
use crate::types::LogPosition;

/// The input of a recovery.
#[derive(Debug)]
pub struct RecoveredState {
    /// Serves the records, and takes new ones.
    pub storage: Arc<RecordStore>,
    /// The last entry whose effects are included. It is ahead of the WAL if a snapshot was installed
    /// and the WAL was not purged up to the snapshot yet.
    pub position: Option<LogPosition>,
    /// The state machine's entries, in key order.
    pub tables: Entries,
    pub records: RecordMetas,
}
