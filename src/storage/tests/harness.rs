//! A history of changes, a model of the resulting state, and a host to run the store on.

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc};

use bytes::Bytes;

use crate::{
    disk::{
        Disk,
        sim::{Crash, SimDisk},
    },
    fault::Fault,
    lane::Lanes,
    state::{Changes, Record, RecordMeta, Storage, TableChange},
    storage::{
        BlockStorage, MemoryTables, OpenedStore, RecoveredState, StorageOptions, StoreError,
        TablesEngine, WalBounds, live_bytes::record_bytes,
    },
    types::{LeaseId, LogPosition, MemberId, RecordId, Revision, Term},
};

pub const DATA: &str = "data";
/// Small, so that a short history makes many blocks.
pub const BLOCK_BYTES: usize = 2000;

/// Entry `index` of a log that was written in one term.
pub fn at(index: u64) -> LogPosition {
    LogPosition { term: Term(1), index }
}

/// The content of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub position: Option<LogPosition>,
    pub records: BTreeMap<RecordId, Arc<Record>>,
    pub tables: BTreeMap<Bytes, Bytes>,
}

impl Model {
    /// The state after these changes, from an empty one.
    pub fn of(changes: &[Changes]) -> Model {
        let mut model = Model::default();
        changes.iter().for_each(|changes| model.apply(changes));
        model
    }

    pub fn apply(&mut self, changes: &Changes) {
        self.position = Some(changes.position);
        self.records.extend(changes.records.iter().map(|record| (record.meta.id, record.clone())));
        for change in &changes.tables {
            match change.clone() {
                TableChange::Put { key, value } => drop(self.tables.insert(key, value)),
                TableChange::Delete { key } => drop(self.tables.remove(&key)),
            }
        }
        for id in &changes.discarded {
            self.records.remove(id);
        }
    }

    /// A function of the data alone.
    pub fn live_bytes(&self) -> u64 {
        let records = self.records.values();
        let records = records.map(|record| record_bytes(record.meta.key.len(), record.value.len()));
        let tables = self.tables.iter().map(|(key, value)| (key.len() + value.len()) as u64);
        records.chain(tables).sum()
    }

    /// All but the newest record of each key.
    fn superseded(&self) -> Vec<RecordId> {
        let newest: BTreeMap<_, _> =
            self.records.values().map(|record| (record.meta.key.clone(), record.meta.id)).collect();
        let old = self.records.values().filter(|record| newest[&record.meta.key] != record.meta.id);
        old.map(|record| record.meta.id).collect()
    }
}

pub fn record(main: i64, sub: u32, key: &str, value_bytes: usize) -> Arc<Record> {
    let meta = RecordMeta {
        id: RecordId { main: Revision(main), sub },
        key: Bytes::copy_from_slice(key.as_bytes()),
        create_revision: Revision(main - i64::from(sub)),
        version: main / 3 + 1,
        lease: LeaseId(if main % 5 == 0 { main << 40 } else { 0 }),
        tombstone: value_bytes == 0,
    };
    Arc::new(Record { meta, value: vec![main as u8; value_bytes].into() })
}

/// A number of entries from index 0: puts over a few keys, changes of the tables, and compactions.
pub fn history(entries: u64) -> Vec<Changes> {
    let mut model = Model::default();
    let mut history = Vec::new();
    for index in 0..entries {
        let main = index as i64 + 2;
        let records = (0..=(index % 3) as u32).map(|sub| {
            let key = format!("key-{}", (index * 7 + u64::from(sub)) % 23);
            record(main, sub, &key, (index as usize * 37) % 400)
        });
        let key = Bytes::from(vec![0x10, (index % 5) as u8]);
        let tables = match index % 9 {
            0 | 4 => vec![TableChange::Put { key, value: index.to_string().into() }],
            8 => vec![TableChange::Delete { key }],
            _ => Vec::new(),
        };
        let discarded = if index % 6 == 5 { model.superseded() } else { Vec::new() };
        let records = records.collect();
        let changes = Changes { position: at(index), records, tables, discarded };
        model.apply(&changes);
        history.push(changes);
    }
    history
}

/// The content of the simulated WAL: entries of term 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wal {
    pub first: u64,
    /// One more than the last durable index.
    pub end: u64,
}

impl WalBounds for Wal {
    fn first_index(&self) -> u64 {
        self.first
    }

    fn last(&self) -> Option<LogPosition> {
        self.end.checked_sub(1).map(at)
    }

    fn term_at(&self, index: u64) -> Option<Term> {
        (index + 1 >= self.first && index < self.end).then_some(Term(1))
    }
}

/// A host with a disk, tables, and a WAL that never fails.
#[derive(Debug, Clone)]
pub struct Host {
    pub disk: SimDisk,
    pub tables: MemoryTables,
    pub wal: Wal,
    pub member: u64,
}

impl Host {
    pub fn new(seed: u64) -> Host {
        let (tables, wal) = (MemoryTables::default(), Wal::default());
        Host { disk: SimDisk::new(seed), tables, wal, member: 1 }
    }

    /// Opens the store, in the runtime of the caller.
    pub async fn open(&self) -> Result<OpenedStore, StoreError> {
        self.open_with(Fault::default()).await
    }

    pub async fn open_with(&self, fault: Fault) -> Result<OpenedStore, StoreError> {
        let disk = Arc::new(self.disk.clone());
        open(disk, Arc::new(self.tables.clone()), self.options(), self.wal, fault).await
    }

    pub fn options(&self) -> StorageOptions {
        let options = StorageOptions::new(PathBuf::from(DATA), MemberId(self.member));
        StorageOptions { block_bytes: BLOCK_BYTES, cache_bytes: 10_000, ..options }
    }

    /// The power fails and comes back.
    pub fn crash(&mut self, how: Crash) {
        self.disk = self.disk.crash(how);
    }

    /// Submits entries, each durable at once, and waits until they are written.
    pub async fn write(
        &mut self,
        store: &BlockStorage,
        changes: &[Changes],
    ) -> Result<(), StoreError> {
        for changes in changes {
            self.wal.end = self.wal.end.max(changes.position.index + 1);
            store.records().submit(changes.clone());
            store.set_durable(changes.position.index);
        }
        store.flush().await.map(drop)
    }

    /// A snapshot, and the log purged behind it.
    pub async fn snapshot_and_purge(&mut self, store: &BlockStorage) -> Result<(), StoreError> {
        let snapshot = store.snapshot().await?;
        self.wal.first = snapshot.position().index + 1;
        Ok(())
    }

    pub fn block_files(&self) -> Vec<PathBuf> {
        let dir = PathBuf::from(DATA).join("blocks");
        let names = self.disk.list(&dir).unwrap_or_default();
        names.iter().filter(|name| name.ends_with(".blk")).map(|name| dir.join(name)).collect()
    }
}

pub async fn open(
    disk: Arc<dyn Disk>,
    tables: Arc<dyn TablesEngine>,
    options: StorageOptions,
    wal: Wal,
    fault: Fault,
) -> Result<OpenedStore, StoreError> {
    BlockStorage::open(options, disk, tables, Lanes::Tasks, wal, fault).await
}

/// Runs one process. Its tasks end with it.
pub fn process<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(body)
}

/// Checks that the recovered state is exactly the result of the history up to its position.
pub fn check(recovered: RecoveredState, history: &[Changes]) {
    let entries = recovered.position.map_or(0, |position| position.index as usize + 1);
    let (counted, model) = (recovered.storage.size().live_bytes, Model::of(&history[..entries]));
    assert_eq!(counted, model.live_bytes(), "live bytes at {entries} entries");
    check_content(recovered, history);
}

/// The same for a state with later submissions.
pub fn check_content(recovered: RecoveredState, history: &[Changes]) {
    let RecoveredState { storage, position, tables, records } = recovered;
    let entries = position.map_or(0, |position| position.index as usize + 1);
    let model = Model::of(&history[..entries]);
    assert_eq!(position, model.position);
    assert_eq!(tables, Vec::from_iter(model.tables), "tables at {entries} entries");
    let metas: Vec<RecordMeta> = records.collect();
    let expected: Vec<_> = model.records.values().map(|record| record.meta.clone()).collect();
    assert_eq!(metas, expected, "records at {entries} entries");
    let ids: Vec<RecordId> = model.records.keys().copied().collect();
    let read = storage.read(&ids).unwrap();
    assert_eq!(read, model.records.into_values().collect::<Vec<_>>(), "at {entries} entries");
}

/// Continues from the recovered state to the end of the history, and checks the result after
/// another start.
pub async fn replay_and_check(
    mut host: Host,
    opened: OpenedStore,
    history: &[Changes],
) -> Result<(), StoreError> {
    let done = opened.recovered.position.map_or(0, |position| position.index as usize + 1);
    assert!(done as u64 + 1 >= host.wal.first, "{done} entries cannot be replayed from");
    check(opened.recovered, history);
    host.write(&opened.store, &history[done..]).await?;
    opened.store.close().await?;
    let again = host.open().await?;
    assert_eq!(again.rebuilt, None);
    assert_eq!(again.recovered.position, history.last().map(|changes| changes.position));
    check(again.recovered, history);
    Ok(())
}
