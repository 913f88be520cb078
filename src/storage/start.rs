//! Opening: which tables may be used, and how they are rebuilt if they may not.
//!
//! Tables are used only if opening them last time did not kill the process, they open without an
//! error or a panic, their checksum holds, all their blocks are there with sound footers, and their
//! position is one that the WAL can go on from. Otherwise this generation is set aside, and the next
//! one is built from the newest snapshot; or from nothing, if the WAL still begins with the first
//! entry. The reason is logged and handed to the caller. If neither is possible the store refuses to
//! open.

use super::{
    block::BlockName,
    content::{Content, RecordMetas, Shelf},
    error::StoreError,
    generation::{Current, Entries, Generations},
    layout::Layout,
    manifest::Manifest,
    sequence::Sequence,
    snapshot::{self, SnapshotRef},
    tables::{CheckedTables, TablesEngine},
};
use crate::types::{LogPosition, MemberId, Term};

/// What the storage needs to know of the WAL when it opens.
pub trait WalBounds: Send + 'static {
    /// The first entry that can still be replayed: 0 if nothing was ever purged.
    fn first_index(&self) -> u64;
    /// The last durable entry; of a log that was purged and is empty, the last one purged.
    fn last(&self) -> Option<LogPosition>;
    /// The term of an entry from the last one purged to the last durable one.
    fn term_at(&self, index: u64) -> Option<Term>;
}

/// The state as it was found, or rebuilt.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) tables: CheckedTables,
    pub(super) content: Content,
    pub(super) manifest: Manifest,
    pub(super) metas: RecordMetas,
    pub(super) snapshot: Option<SnapshotRef>,
    pub(super) rebuilt: Option<String>,
    pub(super) sequence: Sequence,
}

pub(super) fn start(
    layout: &Layout,
    engine: &dyn TablesEngine,
    wal: &dyn WalBounds,
    member: MemberId,
) -> Result<Start, StoreError> {
    layout.prepare()?;
    let generations = Generations { layout, engine };
    let mut shelf = Shelf::new(layout, std::iter::empty());
    let found = find_snapshot(layout, &mut shelf, wal)?;
    let names = layout.block_names()?;
    let current = generations.current()?;
    let untouched = names.is_empty() && found.newest.is_none() && wal.first_index() == 0;
    let verdict = match current {
        Current::Absent if untouched => Verdict::Fresh,
        Current::Absent => Verdict::Rebuild("there are no tables".into()),
        Current::Wrong => Verdict::Rebuild("CURRENT names no tables that are there".into()),
        Current::Number(_) if generations.is_opening()? => {
            Verdict::Rebuild("opening them did not end well".into())
        }
        Current::Number(number) => {
            generations.mark_opening()?;
            let position = found.position();
            match open_current(&generations, number, &mut shelf, position, wal) {
                Ok(opened) => Verdict::Use(Box::new(opened)),
                Err(error) => Verdict::Rebuild(error.to_string()),
            }
        }
    };
    let (opened, rebuilt) = match verdict {
        Verdict::Use(opened) => (*opened, None),
        Verdict::Fresh => (create(&generations, Entries::new(), &mut shelf)?, None),
        Verdict::Rebuild(reason) => {
            tracing::warn!(%reason, "the tables cannot be used and are rebuilt");
            // Blocks of others came with a snapshot that was not installed: they prove nothing.
            let never_wrote = names.iter().all(|name| name.member != member);
            let from_nothing = wal.first_index() == 0 && (wal.last().is_some() || never_wrote);
            let entries = found.base(from_nothing, &reason)?;
            let opened = create(&generations, entries, &mut shelf)?;
            if let Current::Number(number) = current {
                generations.set_aside(number)?;
            }
            (opened, Some(reason))
        }
    };
    generations.unmark_opening()?;
    generations.sweep(opened.generation)?;
    let Opened { tables, content, manifest, metas, .. } = opened;
    let snapshot = found.newest.map(|(snapshot, _)| snapshot);
    let sequence = Sequence::open(layout, member, names.iter().copied())?;
    let start = Start { tables, content, manifest, metas, snapshot, rebuilt, sequence };
    sweep_blocks(layout, &start, &names)?;
    Ok(start)
}

enum Verdict {
    Use(Box<Opened>),
    /// Nothing was ever here.
    Fresh,
    Rebuild(String),
}

struct Opened {
    generation: u32,
    tables: CheckedTables,
    content: Content,
    manifest: Manifest,
    metas: RecordMetas,
}

fn open_current(
    generations: &Generations<'_>,
    number: u32,
    shelf: &mut Shelf<'_>,
    snapshot: Option<LogPosition>,
    wal: &dyn WalBounds,
) -> Result<Opened, StoreError> {
    let (tables, entries) = generations.open(number)?;
    let opened = understand(generations, number, tables, entries, shelf)?;
    if let Err(what) = judge(opened.content.applied, snapshot, wal) {
        return Err(StoreError::Tables { path: generations.dir(number), what });
    }
    Ok(opened)
}

fn create(
    generations: &Generations<'_>,
    entries: Entries,
    shelf: &mut Shelf<'_>,
) -> Result<Opened, StoreError> {
    let (number, tables, entries) = generations.create(entries)?;
    understand(generations, number, tables, entries, shelf)
}

fn understand(
    generations: &Generations<'_>,
    generation: u32,
    tables: CheckedTables,
    entries: Entries,
    shelf: &mut Shelf<'_>,
) -> Result<Opened, StoreError> {
    let content = Content::parse(entries).ok_or_else(|| StoreError::Tables {
        path: generations.dir(generation),
        what: "they hold what no storage writes".into(),
    })?;
    let (manifest, metas) = content.open_blocks(shelf)?;
    Ok(Opened { generation, tables, content, manifest, metas })
}

/// Whether the WAL can go on from where the tables are.
fn judge(
    applied: Option<LogPosition>,
    snapshot: Option<LogPosition>,
    wal: &dyn WalBounds,
) -> Result<(), String> {
    let Some(applied) = applied else {
        return match (snapshot, wal.first_index()) {
            (None, 0) => Ok(()),
            _ => Err("nothing is applied to them, but the log does not begin with it".into()),
        };
    };
    let LogPosition { term, index } = applied;
    if Some(applied) == snapshot {
        // It may be ahead of the WAL: a snapshot was installed, and then the process ended.
        return Ok(());
    }
    if snapshot.is_some_and(|snapshot| snapshot.index > index) {
        return Err(format!("entry {index} is applied to them, and the snapshot is newer"));
    }
    if index + 1 < wal.first_index() {
        return Err(format!("entry {index} is applied to them, and the next is not in the log"));
    }
    if wal.last().is_none_or(|last| last.index < index) {
        return Err(format!("entry {index} is applied to them, and not durable in the log"));
    }
    match wal.term_at(index) {
        Some(of_log) if of_log == term => Ok(()),
        _ => Err(format!("entry {index} of term {term} is applied to them, and not in the log")),
    }
}

/// The newest snapshot that can be used, and why others cannot.
struct Found {
    newest: Option<(SnapshotRef, Entries)>,
    unusable: Vec<String>,
}

impl Found {
    fn position(&self) -> Option<LogPosition> {
        self.newest.as_ref().map(|(snapshot, _)| snapshot.position())
    }

    /// What tables are rebuilt from.
    fn base(&self, from_nothing: bool, reason: &str) -> Result<Entries, StoreError> {
        match &self.newest {
            Some((_, entries)) => Ok(entries.clone()),
            None if from_nothing => Ok(Entries::new()),
            None => {
                let mut missing = self.unusable.join("; ");
                if missing.is_empty() {
                    missing = "there is no snapshot, and the log does not begin with its first \
                               entry"
                        .into();
                }
                Err(StoreError::CannotRebuild { reason: reason.into(), missing })
            }
        }
    }
}

fn find_snapshot(
    layout: &Layout,
    shelf: &mut Shelf<'_>,
    wal: &dyn WalBounds,
) -> Result<Found, StoreError> {
    let mut unusable = Vec::new();
    for name in snapshot::names(layout)? {
        if name.index.saturating_add(1) < wal.first_index() {
            unusable.push(format!("snapshot {name} ends before the log begins"));
            continue;
        }
        match SnapshotRef::open(layout, name, shelf) {
            Ok(newest) => return Ok(Found { newest: Some(newest), unusable }),
            Err(error) => {
                tracing::warn!(%name, %error, "a snapshot cannot be used");
                unusable.push(format!("snapshot {name}: {error}"));
            }
        }
    }
    Ok(Found { newest: None, unusable })
}

/// Removes block files that neither the manifest nor the snapshot knows: a crash came between their
/// being written and named, or between their being dropped and removed.
fn sweep_blocks(layout: &Layout, start: &Start, names: &[BlockName]) -> Result<(), StoreError> {
    let snapshot = start.snapshot.iter().flat_map(SnapshotRef::blocks);
    let known = start.manifest.blocks().iter().map(|live| &live.block).chain(snapshot);
    let known: std::collections::BTreeSet<_> = known.map(|block| block.facts().name).collect();
    for name in names.iter().filter(|name| !known.contains(name)) {
        layout.remove(&layout.blocks().join(name.to_string()))?;
    }
    Ok(())
}
