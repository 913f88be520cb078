//! Recovery: decides whether the tables may be used, and otherwise rebuilds them.
//!
//! Tables are used only if the last attempt to open them did not kill the process, they open without
//! an error or a panic, their checksum is right, all their blocks exist with sound footers, and the
//! WAL can continue from their position. Otherwise this generation is set aside, and the next one is
//! built from the newest snapshot, or from nothing if the WAL still begins with the first entry. The
//! reason is logged and returned to the caller. If neither is possible, the store refuses to open.

use std::collections::BTreeSet;

use super::{
    block::BlockName,
    error::StoreError,
    generation::{CurrentGeneration, Entries, Generations},
    layout::Layout,
    manifest::Manifest,
    open_blocks::OpenBlocks,
    record_metas::RecordMetas,
    sequence::Sequence,
    snapshot::{self, SnapshotRef},
    table_contents::TableContents,
    tables::{CheckedTables, TablesEngine},
};
use crate::types::{LogPosition, MemberId, Term};

/// The storage's view of the WAL when it opens.
pub trait WalBounds: Send + 'static {
    /// The first entry that can still be replayed: 0 if the log was never purged.
    fn first_index(&self) -> u64;
    /// The last durable entry; of a log that is empty after a purge, the last purged one.
    fn last(&self) -> Option<LogPosition>;
    /// The term of an entry from the last purged one to the last durable one.
    fn term_at(&self, index: u64) -> Option<Term>;
}

/// The recovered or rebuilt state.
#[derive(Debug)]
pub struct Recovery {
    pub tables: CheckedTables,
    pub contents: TableContents,
    pub manifest: Manifest,
    pub metas: RecordMetas,
    /// The live bytes of all records.
    pub record_bytes: u64,
    pub snapshot: Option<SnapshotRef>,
    /// The reason if the tables were rebuilt.
    pub rebuilt: Option<String>,
    pub sequence: Sequence,
}

pub fn recover(
    layout: &Layout,
    engine: &dyn TablesEngine,
    wal: &dyn WalBounds,
    member: MemberId,
) -> Result<Recovery, StoreError> {
    layout.prepare()?;
    let generations = Generations { layout, engine };
    let mut open_blocks = OpenBlocks::new(layout, std::iter::empty());
    let search = find_snapshot(layout, &mut open_blocks, wal)?;
    let names = layout.block_names()?;
    let current = generations.current()?;
    let untouched = names.is_empty() && search.newest.is_none() && wal.first_index() == 0;
    let decision = match current {
        CurrentGeneration::Absent if untouched => Decision::CreateFirst,
        _ => open_tables(&generations, current, &mut open_blocks, search.position(), wal)?,
    };
    let (opened, rebuilt) = match decision {
        Decision::Use(opened) => (*opened, None),
        Decision::CreateFirst => (create(&generations, Entries::new(), &mut open_blocks)?, None),
        Decision::Rebuild(reason) => {
            tracing::warn!(%reason, "tables unusable: rebuilding them");
            // Other members' blocks came with a snapshot that was not installed: they prove nothing.
            let never_wrote = names.iter().all(|name| name.member != member);
            let from_nothing = wal.first_index() == 0 && (wal.last().is_some() || never_wrote);
            let entries = search.base(from_nothing, &reason)?;
            let opened = create(&generations, entries, &mut open_blocks)?;
            if let CurrentGeneration::Number(number) = current {
                generations.set_aside(number)?;
            }
            (opened, Some(reason))
        }
    };
    generations.unmark_opening()?;
    generations.sweep(opened.generation)?;
    let OpenedTables { tables, contents, manifest, metas, .. } = opened;
    let snapshot = search.newest.map(|(snapshot, _)| snapshot);
    let sequence = Sequence::open(layout, member, names.iter().copied())?;
    let record_bytes = manifest.record_bytes()?;
    let recovery =
        Recovery { tables, contents, manifest, metas, record_bytes, snapshot, rebuilt, sequence };
    sweep_blocks(layout, &recovery, &names)?;
    Ok(recovery)
}

/// The decision about the tables.
enum Decision {
    Use(Box<OpenedTables>),
    /// The store is new.
    CreateFirst,
    /// For this reason.
    Rebuild(String),
}

struct OpenedTables {
    generation: u32,
    tables: CheckedTables,
    contents: TableContents,
    manifest: Manifest,
    metas: RecordMetas,
}

/// Opens the current generation, if there is a usable one.
fn open_tables(
    generations: &Generations<'_>,
    current: CurrentGeneration,
    open_blocks: &mut OpenBlocks<'_>,
    snapshot: Option<LogPosition>,
    wal: &dyn WalBounds,
) -> Result<Decision, StoreError> {
    Ok(match current {
        CurrentGeneration::Absent => Decision::Rebuild("there are no tables".into()),
        CurrentGeneration::Wrong => Decision::Rebuild("CURRENT names no existing tables".into()),
        CurrentGeneration::Number(_) if generations.is_opening()? => {
            Decision::Rebuild("the last attempt to open them did not finish".into())
        }
        CurrentGeneration::Number(number) => {
            generations.mark_opening()?;
            match open_generation(generations, number, open_blocks, snapshot, wal) {
                Ok(opened) => Decision::Use(Box::new(opened)),
                Err(error) => Decision::Rebuild(error.to_string()),
            }
        }
    })
}

fn open_generation(
    generations: &Generations<'_>,
    number: u32,
    open_blocks: &mut OpenBlocks<'_>,
    snapshot: Option<LogPosition>,
    wal: &dyn WalBounds,
) -> Result<OpenedTables, StoreError> {
    let (tables, entries) = generations.open(number)?;
    let opened = load(generations, number, tables, entries, open_blocks)?;
    if let Err(problem) = check_position(opened.contents.applied, snapshot, wal) {
        return Err(StoreError::Tables { path: generations.dir(number), problem });
    }
    Ok(opened)
}

fn create(
    generations: &Generations<'_>,
    entries: Entries,
    open_blocks: &mut OpenBlocks<'_>,
) -> Result<OpenedTables, StoreError> {
    let (number, tables, entries) = generations.create(entries)?;
    load(generations, number, tables, entries, open_blocks)
}

/// Decodes the tables and opens their blocks.
fn load(
    generations: &Generations<'_>,
    generation: u32,
    tables: CheckedTables,
    entries: Entries,
    open_blocks: &mut OpenBlocks<'_>,
) -> Result<OpenedTables, StoreError> {
    let contents = generations.decode(generation, entries)?;
    let manifest = contents.open_manifest(generations.layout, open_blocks)?;
    let metas = RecordMetas::read(&manifest)?;
    Ok(OpenedTables { generation, tables, contents, manifest, metas })
}

/// Checks that the WAL can continue from the position of the tables.
fn check_position(
    applied: Option<LogPosition>,
    snapshot: Option<LogPosition>,
    wal: &dyn WalBounds,
) -> Result<(), String> {
    let Some(applied) = applied else {
        return match (snapshot, wal.first_index()) {
            (None, 0) => Ok(()),
            _ => Err("no entry is applied, but the log does not begin with the first entry".into()),
        };
    };
    let LogPosition { term, index } = applied;
    if Some(applied) == snapshot {
        // Possibly ahead of the WAL: the process ended right after it installed a snapshot.
        return Ok(());
    }
    if snapshot.is_some_and(|snapshot| snapshot.index > index) {
        return Err(format!("applied entry {index} is older than the snapshot"));
    }
    if index + 1 < wal.first_index() {
        return Err(format!("the log does not contain the entry after applied entry {index}"));
    }
    if wal.last().is_none_or(|last| last.index < index) {
        return Err(format!("applied entry {index} is not durable in the log"));
    }
    match wal.term_at(index) {
        Some(of_log) if of_log == term => Ok(()),
        _ => Err(format!("applied entry {index} of term {term} is not in the log")),
    }
}

/// The newest usable snapshot, and the reasons why newer ones are unusable.
struct SnapshotSearch {
    newest: Option<(SnapshotRef, Entries)>,
    unusable: Vec<String>,
}

impl SnapshotSearch {
    fn position(&self) -> Option<LogPosition> {
        self.newest.as_ref().map(|(snapshot, _)| snapshot.position())
    }

    /// The entries from which the tables are rebuilt.
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
    open_blocks: &mut OpenBlocks<'_>,
    wal: &dyn WalBounds,
) -> Result<SnapshotSearch, StoreError> {
    let mut unusable = Vec::new();
    for name in snapshot::names(layout)? {
        if name.index.saturating_add(1) < wal.first_index() {
            unusable.push(format!("snapshot {name} ends before the log begins"));
            continue;
        }
        match SnapshotRef::open(layout, name, open_blocks) {
            Ok(newest) => return Ok(SnapshotSearch { newest: Some(newest), unusable }),
            Err(error) => {
                tracing::warn!(%name, %error, "snapshot unusable");
                unusable.push(format!("snapshot {name}: {error}"));
            }
        }
    }
    Ok(SnapshotSearch { newest: None, unusable })
}

/// Removes block files that neither the manifest nor the snapshot names, which a crash between
/// writing and naming, or between dropping and removing a block leaves behind.
fn sweep_blocks(
    layout: &Layout,
    recovery: &Recovery,
    names: &[BlockName],
) -> Result<(), StoreError> {
    let snapshot = recovery.snapshot.iter().flat_map(SnapshotRef::blocks);
    let known = recovery.manifest.blocks().iter().map(|entry| &entry.block).chain(snapshot);
    let known: BTreeSet<_> = known.map(|block| block.facts().name).collect();
    for name in names.iter().filter(|name| !known.contains(name)) {
        layout.remove(&layout.blocks().join(name.to_string()))?;
    }
    Ok(())
}
