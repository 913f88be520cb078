//! The side that writes. The apply lane owns it and nobody else changes anything.
//!
//! Entries are applied in chunks: [`Machine::apply`] (or [`Machine::note`],
//! [`Machine::set_membership`]) for each entry, then [`Machine::publish`] once. Publishing hands what
//! changed to the storage and then, in one step, shows it to readers; only after it may answers go
//! out. So a reader never sees half a command, and whoever got an answer reads his write.
//!
//! What a compaction made superfluous goes in bounded steps of [`Machine::compact_step`], between
//! chunks. When it goes is each member's own affair: no reply, read or hash depends on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    events::{EventSink, LeaseChange, Published},
    generation::{Current, Generation, Moment, Shown},
    history::Version,
    index::Index,
    leases::Leases,
    roster::Roster,
    schema::{Meta, SchemaError, TableEntry},
    storage::{Changes, RecordMeta, Storage, StorageError},
    view::View,
};
use crate::types::{Lease, LogPosition, MemberAttributes, MemberId, RecordId, Revision};

/// Why a member must stop: going on would make it differ from the others.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is kept does not fit together.
    #[error("record {id}: {problem}")]
    Record { id: RecordId, problem: &'static str },
}

/// The replicated state machine.
#[derive(Debug)]
pub struct Machine {
    current: Current,
    pub(super) generation: Arc<Generation>,
    pub(super) meta: Meta,
    pub(super) roster: Arc<Roster>,
    /// Grows by a few bytes each time a member joins.
    pub(super) assignments: BTreeMap<u64, MemberId>,
    membership: Option<Bytes>,
    applied: Option<LogPosition>,
    /// What the current chunk changed so far, but for `meta` and the position.
    pub(super) changes: Changes,
    /// What the current chunk did to leases, and in which entries of the tables.
    pub(super) lease_changes: Vec<LeaseChange>,
    pub(super) lease_pages: BTreeSet<u64>,
    /// `meta` as it was written last.
    written: Option<Meta>,
    sweep: Option<Sweep>,
    sinks: Vec<Arc<dyn EventSink>>,
}

/// A walk over the whole index that prunes it at one revision.
#[derive(Debug)]
struct Sweep {
    revision: Revision,
    next: Box<[u8]>,
}

/// How far pruning has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// Nothing is left that the last published compaction made superfluous.
    Done,
    /// Another step will find something to do.
    More,
    /// Something is left, but a read under way still needs it. Try again later.
    Pinned,
}

impl Machine {
    /// Takes up from what `storage` kept: the last applied entry, the tables, and all records in
    /// ascending order of id. What is compacted is pruned and reported as discarded (again, if it
    /// was before) with the first chunk.
    pub fn recover(
        storage: Arc<dyn Storage>,
        applied: Option<LogPosition>,
        tables: impl IntoIterator<Item = (Bytes, Bytes)>,
        records: impl IntoIterator<Item = RecordMeta>,
    ) -> Result<Machine, StateError> {
        let mut tables = Tables::read(tables)?;
        let meta = tables.meta.take();
        let Meta { revision, compacted, .. } = meta.unwrap_or_default();
        let index = load(records, revision)?;
        let mut changes = Changes::default();
        index.prune(&[], usize::MAX, compacted, &mut changes.discarded);
        let leases = Leases::recover(tables.leases, &index);
        let roster = Arc::new(tables.roster);
        let shown = Shown {
            now: Moment { revision, compacted },
            applied,
            membership: tables.membership.clone(),
            roster: roster.clone(),
        };
        let generation = Arc::new(Generation::new(index, leases, storage, shown));
        Ok(Machine {
            current: Current::new(generation.clone()),
            generation,
            meta: meta.unwrap_or_default(),
            roster,
            assignments: tables.assignments,
            membership: tables.membership,
            applied,
            changes,
            lease_changes: Vec::new(),
            lease_pages: BTreeSet::new(),
            written: meta,
            sweep: None,
            sinks: Vec::new(),
        })
    }

    /// From now on these are told what changes.
    #[must_use]
    pub fn followed_by(self, sinks: Vec<Arc<dyn EventSink>>) -> Machine {
        Machine { sinks, ..self }
    }

    /// The side that reads this machine's state, also after [`Machine::replace`].
    pub fn view(&self) -> View {
        View::new(self.current.clone())
    }

    /// Becomes `recovered`, after a snapshot was installed. Readers see all of it at once; reads
    /// under way end on the state that they began with. What was applied and not published is dropped:
    /// the snapshot has it.
    pub fn replace(&mut self, recovered: Machine) {
        assert!(recovered.applied >= self.applied, "a snapshot is never older than the state");
        let current = self.current.clone();
        current.set(recovered.generation.clone());
        let sinks = std::mem::take(&mut self.sinks);
        *self = Machine { current, sinks, ..recovered };
        let Meta { revision, compacted, .. } = self.meta;
        self.sinks.iter().for_each(|sink| sink.replaced(revision, compacted));
    }

    /// The last entry that was applied, published or not.
    pub fn applied(&self) -> Option<LogPosition> {
        self.applied
    }

    /// Counts an entry without commands as applied.
    pub fn note(&mut self, position: LogPosition) {
        let follows = self.applied.is_none_or(|last| last.index < position.index);
        assert!(follows, "entry {} is applied after {:?}", position.index, self.applied);
        self.applied = Some(position);
    }

    /// Stores the membership of an entry, opaque to the state machine.
    pub fn set_membership(&mut self, position: LogPosition, membership: Bytes) {
        self.note(position);
        let membership = Bytes::copy_from_slice(&membership);
        self.changes.tables.push(TableEntry::Membership(membership.clone()).put());
        self.membership = Some(membership);
    }

    /// Ends a chunk: submits what it changed, shows it to readers, then tells who follows.
    pub fn publish(&mut self) {
        let Some(position) = self.applied else { return };
        let mut changes = std::mem::take(&mut self.changes);
        if self.written != Some(self.meta) {
            changes.tables.push(TableEntry::Meta(self.meta).put());
            self.written = Some(self.meta);
        }
        for page in std::mem::take(&mut self.lease_pages) {
            changes.tables.push(self.generation.leases.page(page).put());
        }
        changes.position = position;
        let nothing = changes.records.is_empty()
            && changes.tables.is_empty()
            && changes.discarded.is_empty()
            && self.generation.applied() == self.applied;
        if nothing {
            return;
        }
        let records = if self.sinks.is_empty() { Vec::new() } else { changes.records.clone() };
        let leases = std::mem::take(&mut self.lease_changes);
        self.generation.storage.submit(changes);
        let Meta { revision, compacted, .. } = self.meta;
        self.generation.publish(Shown {
            now: Moment { revision, compacted },
            applied: self.applied,
            membership: self.membership.clone(),
            roster: self.roster.clone(),
        });
        let told = Published { revision, compacted, records: &records, leases: &leases };
        self.sinks.iter().for_each(|sink| sink.published(&told));
    }

    /// Prunes what a published compaction made superfluous, for about `keys_max` keys (whole leaves
    /// of the index), under one hold of its lock. The records go with the next [`Machine::publish`].
    pub fn compact_step(&mut self, keys_max: usize) -> Pruning {
        let (pruned, allowed) = self.generation.pruning();
        if self.sweep.is_none() && pruned < allowed {
            self.sweep = Some(Sweep { revision: allowed, next: Box::default() });
        }
        if let Some(Sweep { revision, next }) = self.sweep.take() {
            let discarded = &mut self.changes.discarded;
            match self.generation.index.prune(&next, keys_max, revision, discarded) {
                Some(next) => self.sweep = Some(Sweep { revision, next }),
                None => self.generation.set_pruned(revision),
            }
        }
        self.pruning()
    }

    /// How many records the next [`Machine::publish`] gives up.
    pub fn discarded(&self) -> usize {
        self.changes.discarded.len()
    }

    /// Whether there is something to prune.
    pub fn pruning(&self) -> Pruning {
        let (pruned, allowed) = self.generation.pruning();
        if self.sweep.is_some() || pruned < allowed {
            Pruning::More
        } else if pruned < self.generation.now().compacted {
            Pruning::Pinned
        } else {
            Pruning::Done
        }
    }
}

/// The tables, decoded.
#[derive(Default)]
struct Tables {
    meta: Option<Meta>,
    membership: Option<Bytes>,
    roster: Roster,
    /// Of members that are not read yet.
    boots: BTreeMap<MemberId, u64>,
    assignments: BTreeMap<u64, MemberId>,
    leases: Vec<Lease>,
}

impl Tables {
    fn read(entries: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Tables, SchemaError> {
        let mut tables = Tables::default();
        for (key, value) in entries {
            match TableEntry::decode(&key, &value)? {
                TableEntry::Meta(meta) => tables.meta = Some(meta),
                TableEntry::Membership(bytes) => tables.membership = Some(bytes),
                TableEntry::Member(attributes) => {
                    let boot = tables.boots.remove(&attributes.member).unwrap_or_default();
                    let attributes = MemberAttributes { boot, ..attributes };
                    tables.roster.members.insert(attributes.member, attributes);
                }
                TableEntry::Boot { member, boot } => match tables.roster.members.get_mut(&member) {
                    Some(attributes) => attributes.boot = boot,
                    None => drop(tables.boots.insert(member, boot)),
                },
                TableEntry::Roster { last_admitted, desired } => {
                    tables.roster.last_admitted = last_admitted;
                    tables.roster.desired = desired;
                }
                TableEntry::Assignment { nonce, member } => {
                    tables.assignments.insert(nonce, member);
                }
                TableEntry::Leases { leases, .. } => tables.leases.extend(leases),
            }
        }
        Ok(tables)
    }
}

/// So many records are sorted by key before they are indexed. Keys that come in order find their leaf
/// in the processor's cache, which is worth far more than the sorting costs.
const LOADED_AT_ONCE: usize = 1 << 18;

fn load(
    records: impl IntoIterator<Item = RecordMeta>,
    revision: Revision,
) -> Result<Index, StateError> {
    let index = Index::default();
    let mut chunk = Vec::new();
    let mut last = None;
    for record in records {
        let id = record.id;
        if last.is_some_and(|last| last >= id) {
            return Err(StateError::Record { id, problem: "records do not ascend" });
        }
        if id.main > revision {
            let problem = "newer than the revision that the tables name";
            return Err(StateError::Record { id, problem });
        }
        last = Some(id);
        let version = Version::of(&record);
        chunk.push((record.key, version));
        if chunk.len() == LOADED_AT_ONCE {
            add(&index, &mut chunk);
        }
    }
    add(&index, &mut chunk);
    Ok(index)
}

fn add(index: &Index, chunk: &mut Vec<(Bytes, Version)>) {
    chunk.sort_unstable_by(|(a, older), (b, newer)| a.cmp(b).then(older.id().cmp(&newer.id())));
    chunk.drain(..).for_each(|(key, version)| index.append(&key, version));
}
