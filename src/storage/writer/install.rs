//! Replacing the state by a snapshot that was received.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Recovered, StoreError, Writer};
use crate::storage::{
    content::{Content, Shelf},
    generation::Generations,
    incoming::{self, Incoming},
    pending::Pending,
    records::Records,
    snapshot::SnapshotRef,
};

impl Writer {
    /// Builds a new generation beside the present one and switches to it. Readers that hold the old
    /// [`Records`] end on them.
    pub(super) fn install(&mut self, incoming: &Mutex<Incoming>) -> Result<Recovered, StoreError> {
        let incoming = incoming::lock(incoming);
        let offered =
            incoming.finished().ok_or_else(|| StoreError::Refused("it is not complete".into()))?;
        if let Some(applied) = self.applied.filter(|applied| applied.index >= offered.index) {
            return Err(StoreError::Stale { offered, applied });
        }
        incoming.move_in()?;

        let layout = self.layout.clone();
        let engine = self.engine.clone();
        let generations = Generations { layout: &layout, engine: &*engine };
        let mut shelf = Shelf::new(&layout, incoming.ours());
        let (snapshot, entries) = SnapshotRef::open(&layout, incoming.name(), &mut shelf)?;
        let (generation, tables, entries) = generations.create(entries)?;
        let content = Content::parse(entries).ok_or_else(|| StoreError::Tables {
            path: generations.dir(generation),
            what: "they hold what no storage writes".into(),
        })?;
        let (manifest, metas) = content.open_blocks(&mut shelf)?;

        let old_tables = std::mem::replace(&mut self.tables, tables);
        let old_manifest = std::mem::replace(&mut self.manifest, manifest);
        self.applied = content.applied;
        self.doom(old_manifest.open_blocks());
        drop(old_manifest);
        self.switch_records();
        self.retain(snapshot)?;
        self.publish()?;

        if let Err(error) = old_tables.close() {
            tracing::warn!(%error, "the replaced tables were not closed well");
        }
        generations.sweep(generation)?;
        let storage = self.records.clone();
        let (position, tables) = (content.applied, content.state);
        Ok(Recovered { storage, position, tables, records: metas })
    }

    /// Blocks that are no longer part of the state, unless the new one has a file of that name.
    fn doom(&mut self, blocks: Vec<Arc<super::Block>>) {
        let kept: BTreeSet<_> = self.manifest.names().collect();
        self.doomed.extend(blocks);
        self.doomed.retain(|block| !kept.contains(&block.facts().name));
    }

    fn switch_records(&mut self) {
        self.records.close();
        let durable = self.records.pending().durable();
        let pending = Pending::new(self.block_bytes, durable, self.manifest.last());
        let blocks = self.manifest.open_blocks();
        let (again, fault) = (self.again.clone(), self.fault.clone());
        self.records = Arc::new(Records::new(pending, blocks, self.cache_bytes, again, fault));
        let mut current = self.shared.records.write().unwrap_or_else(PoisonError::into_inner);
        *current = self.records.clone();
    }
}
