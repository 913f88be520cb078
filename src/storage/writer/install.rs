//! Replaces the state by a received snapshot.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use super::state_writer::StateWriter;
use crate::storage::{
    block::Block,
    error::StoreError,
    generation::Generations,
    incoming::{self, IncomingFiles},
    live_bytes::LiveBytes,
    open_blocks::OpenBlocks,
    pending::Pending,
    record_metas::RecordMetas,
    record_store::RecordStore,
    recovered_state::RecoveredState,
    snapshot::SnapshotRef,
};

impl StateWriter {
    /// Builds a new generation beside the current one and switches to it. Readers that hold the old
    /// [`RecordStore`] finish on it.
    pub fn install(
        &mut self,
        incoming: &Mutex<IncomingFiles>,
    ) -> Result<RecoveredState, StoreError> {
        let incoming = incoming::lock(incoming);
        let offered =
            incoming.finished().ok_or_else(|| StoreError::Refused("it is incomplete".into()))?;
        if let Some(applied) = self.applied.filter(|applied| applied.index >= offered.index) {
            return Err(StoreError::Stale { offered, applied });
        }
        incoming.move_in()?;

        let layout = self.layout.clone();
        let engine = self.engine.clone();
        let generations = Generations { layout: &layout, engine: &*engine };
        let mut open_blocks = OpenBlocks::new(&layout, incoming.local_blocks());
        let (snapshot, entries) = SnapshotRef::open(&layout, incoming.name(), &mut open_blocks)?;
        let (generation, tables, entries) = generations.create(entries)?;
        let contents = generations.decode(generation, entries)?;
        let manifest = contents.open_manifest(&layout, &mut open_blocks)?;
        let metas = RecordMetas::read(&manifest)?;

        let old_tables = std::mem::replace(&mut self.tables, tables);
        let old_manifest = std::mem::replace(&mut self.manifest, manifest);
        self.applied = contents.applied;
        self.schedule_deletion(old_manifest.open_blocks());
        drop(old_manifest);
        let live = LiveBytes::new(self.manifest.record_bytes()?, &contents.state);
        self.switch_records(live);
        self.retain(snapshot)?;
        self.publish()?;

        if let Err(error) = old_tables.close() {
            tracing::warn!(%error, "closing the replaced tables failed");
        }
        generations.sweep(generation)?;
        let storage = self.records.clone();
        let (position, tables) = (contents.applied, contents.state);
        Ok(RecoveredState { storage, position, tables, records: metas })
    }

    /// Schedules the deletion of blocks, except those whose name is in the new state.
    fn schedule_deletion(&mut self, blocks: Vec<Arc<Block>>) {
        let kept: BTreeSet<_> = self.manifest.names().collect();
        self.pending_deletion.extend(blocks);
        self.pending_deletion.retain(|block| !kept.contains(&block.facts().name));
    }

    fn switch_records(&mut self, live: LiveBytes) {
        self.records.close();
        let durable = self.records.pending().durable();
        let pending = Pending::new(self.block_bytes, durable, self.manifest.last(), live);
        let blocks = self.manifest.open_blocks();
        let (waker, fault) = (self.waker.clone(), self.fault.clone());
        self.records = Arc::new(RecordStore::new(pending, blocks, self.cache_bytes, waker, fault));
        self.shared.set_records(self.records.clone());
    }
}
