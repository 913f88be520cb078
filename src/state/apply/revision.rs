//! The revision that a command makes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    state::{
        error::ReadError,
        history::Version,
        leases::LeaseMove,
        machine::StateMachine,
        storage::{Record, RecordMeta},
    },
    types::{LeaseId, RecordId, Revision},
};

/// A revision in the making.
pub struct NewRevision {
    pub revision: Revision,
    /// Number of changes so far, which is the sub-revision of the next one.
    changes: u32,
    /// The keys that change their lease.
    moves: Vec<LeaseMove>,
}

impl NewRevision {
    pub fn next_id(&mut self) -> RecordId {
        let id = RecordId { main: self.revision, sub: self.changes };
        self.changes += 1;
        id
    }

    pub fn has_changes(&self) -> bool {
        self.changes > 0
    }

    pub fn move_key(&mut self, key: &[u8], from: LeaseId, to: LeaseId) {
        if from != to {
            self.moves.push(LeaseMove { key: key.into(), from, to });
        }
    }
}

impl StateMachine {
    /// Runs a change of keys, and returns the store's revision after it.
    pub(super) fn write<T>(
        &mut self,
        change: impl FnOnce(&mut StateMachine, &mut NewRevision) -> Result<T, ReadError>,
    ) -> Result<(Revision, T), ReadError> {
        let revision = self.meta.revision.next();
        let mut new = NewRevision { revision, changes: 0, moves: Vec::new() };
        let reply = change(self, &mut new)?;
        let changed = new.has_changes();
        self.instance.leases.move_keys(new.moves);
        if changed {
            self.meta.revision = revision;
        }
        Ok((self.meta.revision, reply))
    }

    /// Adds the tombstone of `key`.
    pub(super) fn delete_key(&mut self, new: &mut NewRevision, key: Bytes) {
        let id = new.next_id();
        self.instance.index.append(&key, Version::tombstone(id));
        self.changes.records.push(Arc::new(Record {
            meta: RecordMeta {
                id,
                key,
                create_revision: Revision::ZERO,
                version: 0,
                lease: LeaseId::default(),
                tombstone: true,
            },
            value: Bytes::new(),
        }));
    }
}
