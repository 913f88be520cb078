//! The state writer's own state.

use std::sync::Arc;

use super::shared::Shared;
use crate::{
    fault::Fault,
    storage::{
        block::Block,
        error::StoreError,
        layout::Layout,
        manifest::Manifest,
        record_store::RecordStore,
        sequence::Sequence,
        snapshot::SnapshotRef,
        tables::{CheckedTables, TablesEngine},
        waker::WakeWriter,
    },
    types::LogPosition,
};

/// The lane's own state.
#[derive(Debug)]
pub struct StateWriter {
    pub layout: Layout,
    pub engine: Arc<dyn TablesEngine>,
    /// Target size of a block.
    pub block_bytes: usize,
    pub cache_bytes: usize,
    pub fault: Fault,
    pub waker: Arc<dyn WakeWriter>,
    pub shared: Arc<Shared>,
    pub records: Arc<RecordStore>,
    pub tables: CheckedTables,
    pub manifest: Manifest,
    pub applied: Option<LogPosition>,
    pub sequence: Sequence,
    /// Blocks that are no longer part of the state, and may still be referenced.
    pub pending_deletion: Vec<Arc<Block>>,
    pub snapshots_pending_deletion: Vec<SnapshotRef>,
}

impl StateWriter {
    /// Marks the wake-up as handled. Returns whether there is something to write.
    pub fn rearm(&self, target: Option<u64>) -> bool {
        let mut pending = self.records.pending();
        pending.rearm(target);
        pending.is_due()
    }

    /// Writes everything that the WAL has synced, and closes the tables.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.records.close();
        self.write_all_durable()?;
        self.tables.close()
    }
}
