//! The write side of the state. The apply lane owns it; nothing else changes the state.
//!
//! Entries are applied in chunks: [`StateMachine::apply`] (or [`StateMachine::advance_applied`],
//! [`StateMachine::set_membership`]) for each entry, then [`StateMachine::publish`] once. Publishing
//! submits the changes to the storage and then makes them visible to readers, atomically; proposers
//! are answered only afterwards. So a reader never sees half a command, and a client that received a
//! reply reads its own write.
//!
//! [`StateMachine::compact_step`] prunes compacted versions in bounded steps, between chunks. Each
//! member prunes at its own pace: no reply, read or hash depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    error::StateError,
    events::{EventSink, LeaseChange, Published},
    instance::{CurrentInstance, PublishedState, ReadableRevisions, StateInstance},
    leases::Leases,
    recovery::{DecodedTables, build_index},
    roster::Roster,
    schema::{Meta, TableEntry},
    storage::{Changes, RecordMeta, Storage},
    view::View,
};
use crate::types::{LogPosition, MemberId, Revision};

/// The replicated state machine.
#[derive(Debug)]
pub struct StateMachine {
    current: CurrentInstance,
    pub(super) instance: Arc<StateInstance>,
    pub(super) meta: Meta,
    pub(super) roster: Arc<Roster>,
    /// Member ids by nonce. Grows by a few bytes with each member that joins.
    pub(super) assignments: BTreeMap<u64, MemberId>,
    membership: Option<Bytes>,
    applied: Option<LogPosition>,
    /// The changes of the current chunk, except `meta`, leases and the position.
    pub(super) changes: Changes,
    /// The lease changes of the current chunk, and the table entries that they affect.
    pub(super) lease_changes: Vec<LeaseChange>,
    pub(super) lease_pages: BTreeSet<u64>,
    /// `meta` as last submitted to the storage.
    submitted_meta: Option<Meta>,
    prune_walk: Option<PruneWalk>,
    sinks: Vec<Arc<dyn EventSink>>,
}

/// A walk over the whole index that prunes it at one revision.
#[derive(Debug)]
struct PruneWalk {
    revision: Revision,
    next: Box<[u8]>,
}

/// The progress of pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// Everything that the last published compaction made obsolete is pruned.
    Done,
    /// The next step has work.
    More,
    /// Obsolete versions are left, but an open read still needs them. Try again later.
    Pinned,
}

impl StateMachine {
    /// Recovers from the content of `storage`: the last applied entry, the tables, and all records in
    /// ascending order of id. Versions that are compacted are pruned and reported as discarded with
    /// the first chunk, even if they were reported before.
    pub fn recover(
        storage: Arc<dyn Storage>,
        applied: Option<LogPosition>,
        tables: impl IntoIterator<Item = (Bytes, Bytes)>,
        records: impl IntoIterator<Item = RecordMeta>,
    ) -> Result<StateMachine, StateError> {
        let mut tables = DecodedTables::decode(tables)?;
        let stored_meta = tables.meta.take();
        let meta = stored_meta.unwrap_or_default();
        let index = build_index(records, meta.revision)?;
        let mut changes = Changes::default();
        index.prune(&[], usize::MAX, meta.compacted, &mut changes.discarded);
        let leases = Leases::recover(tables.leases, &index);
        let roster = Arc::new(tables.roster);
        let published = PublishedState {
            readable: readable(meta),
            applied,
            membership: tables.membership.clone(),
            roster: roster.clone(),
        };
        let instance = Arc::new(StateInstance::new(index, leases, storage, published));
        Ok(StateMachine {
            current: CurrentInstance::new(instance.clone()),
            instance,
            meta,
            roster,
            assignments: tables.assignments,
            membership: tables.membership,
            applied,
            changes,
            lease_changes: Vec::new(),
            lease_pages: BTreeSet::new(),
            submitted_meta: stored_meta,
            prune_walk: None,
            sinks: Vec::new(),
        })
    }

    /// These sinks receive all changes from now on.
    #[must_use]
    pub fn with_sinks(self, sinks: Vec<Arc<dyn EventSink>>) -> StateMachine {
        StateMachine { sinks, ..self }
    }

    /// The read side of this machine's state, also after [`StateMachine::replace`].
    pub fn view(&self) -> View {
        View::new(self.current.clone())
    }

    /// Becomes `recovered`, after a snapshot was installed. Readers see all of it at once; open reads
    /// finish on the old instance. Entries that were applied and not published are dropped: the
    /// snapshot contains them.
    pub fn replace(&mut self, recovered: StateMachine) {
        assert!(recovered.applied >= self.applied, "a snapshot must not be older than the state");
        let current = self.current.clone();
        current.set(recovered.instance.clone());
        let sinks = std::mem::take(&mut self.sinks);
        *self = StateMachine { current, sinks, ..recovered };
        let Meta { revision, compacted, .. } = self.meta;
        self.sinks.iter().for_each(|sink| sink.replaced(revision, compacted));
    }

    /// Advances the applied position to this entry. Alone it applies an entry without commands.
    pub fn advance_applied(&mut self, position: LogPosition) {
        let follows = self.applied.is_none_or(|last| last.index < position.index);
        assert!(follows, "entry {} is applied after {:?}", position.index, self.applied);
        self.applied = Some(position);
    }

    /// Stores the membership of an entry, opaque to the state machine.
    pub fn set_membership(&mut self, position: LogPosition, membership: Bytes) {
        self.advance_applied(position);
        let membership = Bytes::copy_from_slice(&membership);
        self.changes.tables.push(TableEntry::Membership(membership.clone()).put());
        self.membership = Some(membership);
    }

    /// Ends a chunk: submits its changes, makes them visible to readers, then notifies the sinks.
    pub fn publish(&mut self) {
        let Some(position) = self.applied else { return };
        let changes = self.take_changes(position);
        let nothing = changes.records.is_empty()
            && changes.tables.is_empty()
            && changes.discarded.is_empty()
            && self.instance.applied() == self.applied;
        if nothing {
            return;
        }
        let records = if self.sinks.is_empty() { Vec::new() } else { changes.records.clone() };
        let leases = std::mem::take(&mut self.lease_changes);
        self.instance.storage.submit(changes);
        self.instance.publish(PublishedState {
            readable: readable(self.meta),
            applied: self.applied,
            membership: self.membership.clone(),
            roster: self.roster.clone(),
        });
        let revision = self.meta.revision;
        let published = Published { revision, records: &records, leases: &leases };
        self.sinks.iter().for_each(|sink| sink.published(&published));
    }

    /// The chunk's changes, with the entries of the tables that changed.
    fn take_changes(&mut self, position: LogPosition) -> Changes {
        let mut changes = std::mem::take(&mut self.changes);
        if self.submitted_meta != Some(self.meta) {
            changes.tables.push(TableEntry::Meta(self.meta).put());
            self.submitted_meta = Some(self.meta);
        }
        for page in std::mem::take(&mut self.lease_pages) {
            changes.tables.push(self.instance.leases.page(page).put());
        }
        changes.position = position;
        changes
    }

    /// Prunes about `keys_max` keys (whole leaves of the index) at the published compaction, under one
    /// hold of the index lock. The next [`StateMachine::publish`] discards their obsolete records.
    pub fn compact_step(&mut self, keys_max: usize) -> Pruning {
        let (pruned, allowed) = self.instance.prune_bounds();
        if self.prune_walk.is_none() && pruned < allowed {
            self.prune_walk = Some(PruneWalk { revision: allowed, next: Box::default() });
        }
        if let Some(PruneWalk { revision, next }) = self.prune_walk.take() {
            let discarded = &mut self.changes.discarded;
            match self.instance.index.prune(&next, keys_max, revision, discarded) {
                Some(next) => self.prune_walk = Some(PruneWalk { revision, next }),
                None => self.instance.set_pruned(revision),
            }
        }
        self.pruning()
    }

    /// Number of records that the next [`StateMachine::publish`] discards.
    pub fn discarded(&self) -> usize {
        self.changes.discarded.len()
    }

    /// Whether there is something to prune.
    pub fn pruning(&self) -> Pruning {
        let (pruned, allowed) = self.instance.prune_bounds();
        if self.prune_walk.is_some() || pruned < allowed {
            Pruning::More
        } else if pruned < self.instance.readable().compacted {
            Pruning::Pinned
        } else {
            Pruning::Done
        }
    }
}

fn readable(Meta { revision, compacted, .. }: Meta) -> ReadableRevisions {
    ReadableRevisions { revision, compacted }
}
