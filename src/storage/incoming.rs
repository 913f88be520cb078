//! A snapshot on its way from a peer: its files grow in `incoming/` until all are there.
//!
//! A transfer that was interrupted goes on where it ended, also after a restart; blocks that are
//! part of our state already are not sent. Nothing that came is believed before [`Incoming::finish`]
//! has read it back and compared it with the offer, so what an interrupted transfer left behind may
//! be anything.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    block::{Block, BlockFacts, BlockName},
    content::Content,
    error::StoreError,
    io::WeakIo,
    layout::Layout,
    metrics::StorageMetrics,
    snapshot::{self, SnapshotFile, SnapshotName},
};
use crate::{
    disk::{File, Open},
    types::LogPosition,
};

/// So much is read at once to compute a checksum.
const READ_BYTES: u64 = 1 << 20;

/// A snapshot that is being received. Dropped, what has arrived stays for another attempt.
#[derive(Debug)]
pub struct IncomingSnapshot {
    incoming: Arc<Mutex<Incoming>>,
    io: WeakIo,
    metrics: Arc<StorageMetrics>,
}

impl IncomingSnapshot {
    pub(super) fn new(
        incoming: Arc<Mutex<Incoming>>,
        io: WeakIo,
        metrics: Arc<StorageMetrics>,
    ) -> IncomingSnapshot {
        IncomingSnapshot { incoming, io, metrics }
    }

    /// For each offered file the offset from which it is wanted; its length: not at all.
    pub fn wanted(&self) -> Vec<u64> {
        lock(&self.incoming).files.iter().map(|file| file.have).collect()
    }

    /// Takes the next bytes of a file, which must be wanted from this offset.
    pub async fn write(&self, file: usize, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let incoming = self.incoming.clone();
        self.io.run(move || lock(&incoming).write(file, offset, &bytes)).await
    }

    /// Verifies and syncs everything. Refused: some file is wanted again, from its beginning.
    pub async fn finish(&self) -> Result<LogPosition, StoreError> {
        let (incoming, metrics) = (self.incoming.clone(), self.metrics.clone());
        let finish = move || {
            let begun = Instant::now();
            let position = lock(&incoming).finish(&metrics)?;
            metrics.received_save.observe(begun.elapsed());
            Ok(position)
        };
        self.io.run(finish).await
    }

    /// Whoever takes it keeps the blocks that are not sent.
    pub(super) fn shared(&self) -> Arc<Mutex<Incoming>> {
        self.incoming.clone()
    }
}

pub(super) fn lock(incoming: &Mutex<Incoming>) -> MutexGuard<'_, Incoming> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of an offer, and what is there of them.
#[derive(Debug)]
pub(super) struct Incoming {
    layout: Layout,
    dir: PathBuf,
    name: SnapshotName,
    files: Vec<IncomingFile>,
    /// Where it brings the state; known once it is finished.
    finished: Option<LogPosition>,
}

#[derive(Debug)]
struct IncomingFile {
    offered: SnapshotFile,
    have: u64,
    open: Option<Arc<dyn File>>,
    /// A block of ours. Holding it keeps it on disk.
    ours: Option<Arc<Block>>,
}

impl Incoming {
    /// `ours` are the blocks of the present state. May block for as long as reading them takes.
    pub(super) fn begin(
        layout: &Layout,
        offer: Vec<SnapshotFile>,
        ours: &[Arc<Block>],
    ) -> Result<Incoming, StoreError> {
        let name = check_names(&offer)?;
        let dir = layout.incoming();
        layout.disk.create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let offered: BTreeSet<&str> = offer.iter().map(|file| file.name.as_str()).collect();
        for stale in layout.list(&dir)?.iter().filter(|name| !offered.contains(name.as_str())) {
            layout.remove(&dir.join(stale))?;
        }
        let files = offer.into_iter().map(|offered| {
            let same = |block: &&Arc<Block>| {
                let facts = block.facts();
                facts.name.to_string() == offered.name
                    && (facts.bytes, facts.crc) == (offered.bytes, offered.crc)
            };
            let block = ours.iter().find(same).filter(|block| {
                // One that rotted is wanted again.
                let read = crc_of(&**block.file(), block.path(), offered.bytes);
                read.is_ok_and(|crc| crc == offered.crc)
            });
            let ours = block.cloned();
            let have = match &ours {
                Some(_) => offered.bytes,
                None => arrived(layout, &dir.join(&offered.name), offered.bytes)?,
            };
            Ok(IncomingFile { offered, have, open: None, ours })
        });
        let files = files.collect::<Result<_, StoreError>>()?;
        Ok(Incoming { layout: layout.clone(), dir, name, files, finished: None })
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.finished = None;
        let refused = |why: &str| StoreError::Refused(format!("file {file} at {offset}: {why}"));
        let file = self.files.get_mut(file).ok_or_else(|| refused("there is no such file"))?;
        let end = offset.checked_add(bytes.len() as u64);
        let end = end.filter(|end| *end <= file.offered.bytes);
        let end = end.ok_or_else(|| refused("more than was offered"))?;
        if offset != file.have {
            return Err(refused("not the bytes that are wanted next"));
        }
        let path = self.dir.join(&file.offered.name);
        let open = match &file.open {
            Some(open) => open,
            None => {
                let how = if self.layout.exists(&path)? { Open::Write } else { Open::CreateNew };
                let open = self.layout.disk.open(&path, how);
                file.open.insert(open.map_err(StoreError::io("open", &path))?)
            }
        };
        open.write_all_at(bytes, offset).map_err(StoreError::io("write", &path))?;
        file.have = end;
        Ok(())
    }

    fn finish(&mut self, metrics: &StorageMetrics) -> Result<LogPosition, StoreError> {
        let mut damaged = Vec::new();
        for file in self.files.iter_mut().filter(|file| file.ours.is_none()) {
            let path = self.dir.join(&file.offered.name);
            if file.have < file.offered.bytes {
                damaged.push(format!("{} is not complete", file.offered.name));
                continue;
            }
            let open = self.layout.disk.open(&path, Open::Write);
            let open = open.map_err(StoreError::io("open", &path))?;
            if crc_of(&*open, &path, file.offered.bytes)? == file.offered.crc {
                let begun = Instant::now();
                open.sync_data().map_err(StoreError::io("sync", &path))?;
                metrics.received_sync.observe(begun.elapsed());
            } else {
                damaged.push(format!("{} arrived damaged", file.offered.name));
                self.layout.remove(&path)?;
                (file.have, file.open) = (0, None);
            }
        }
        if !damaged.is_empty() {
            return Err(StoreError::Refused(damaged.join(", ")));
        }
        let position = self.check_content()?;
        self.finished = Some(position);
        Ok(position)
    }

    /// The snapshot must name exactly the blocks that were offered, and they must be blocks.
    fn check_content(&self) -> Result<LogPosition, StoreError> {
        let bytes = Bytes::from(self.layout.read(&self.dir.join(self.name.to_string()))?);
        let refused = |why: &str| StoreError::Refused(format!("{}: {why}", self.name));
        let content = snapshot::decode(&bytes).and_then(Content::parse);
        let content = content.ok_or_else(|| refused("it is no snapshot"))?;
        let position = content.applied.filter(|at| SnapshotName::from(*at) == self.name);
        let position = position.ok_or_else(|| refused("it has another name"))?;
        let blocks = self.files.get(1..).unwrap_or_default();
        if blocks.len() != content.blocks.len() {
            return Err(refused("it names other blocks"));
        }
        for (facts, _) in &content.blocks {
            let named = |file: &&IncomingFile| is_file_of(&file.offered, facts);
            let file = blocks.iter().find(named);
            let file = file.ok_or_else(|| refused("it names other blocks"))?;
            let sound = match &file.ours {
                Some(block) => block.facts() == facts,
                None => Block::open(&*self.layout.disk, &self.dir, facts.clone()).is_ok(),
            };
            if !sound {
                return Err(refused("one of its blocks is no block"));
            }
        }
        Ok(position)
    }

    pub(super) fn finished(&self) -> Option<LogPosition> {
        self.finished
    }

    /// Moves everything to where it belongs. Once the snapshot file is there, a start would go on
    /// from it.
    pub(super) fn move_in(&self) -> Result<(), StoreError> {
        let blocks = self.layout.blocks();
        for file in self.files.iter().skip(1).filter(|file| file.ours.is_none()) {
            let name = &file.offered.name;
            self.layout.rename(&self.dir.join(name), &blocks.join(name))?;
        }
        self.layout.sync_dir(&blocks)?;
        let (name, snapshots) = (self.name.to_string(), self.layout.snapshots());
        self.layout.rename(&self.dir.join(&name), &snapshots.join(&name))?;
        self.layout.sync_dir(&snapshots)
    }

    pub(super) fn name(&self) -> SnapshotName {
        self.name
    }

    /// The blocks that were not sent, because they were here.
    pub(super) fn ours(&self) -> impl Iterator<Item = Arc<Block>> {
        self.files.iter().filter_map(|file| file.ours.clone())
    }
}

fn is_file_of(file: &SnapshotFile, facts: &BlockFacts) -> bool {
    file.name == facts.name.to_string() && (file.bytes, file.crc) == (facts.bytes, facts.crc)
}

/// The names come from a peer and become paths: one snapshot, then blocks, each once.
fn check_names(offer: &[SnapshotFile]) -> Result<SnapshotName, StoreError> {
    let refused = || StoreError::Refused("the offer names wrong files".into());
    let (first, blocks) = offer.split_first().ok_or_else(refused)?;
    let name = SnapshotName::parse(&first.name).ok_or_else(refused)?;
    let names = blocks.iter().map(|file| BlockName::parse(&file.name));
    let unique = names.collect::<Option<BTreeSet<_>>>().ok_or_else(refused)?;
    if unique.len() == blocks.len() { Ok(name) } else { Err(refused()) }
}

/// How much of a file an earlier attempt left.
fn arrived(layout: &Layout, path: &Path, offered: u64) -> Result<u64, StoreError> {
    if !layout.exists(path)? {
        return Ok(0);
    }
    let file = layout.disk.open(path, Open::Read).map_err(StoreError::io("open", path))?;
    let len = file.len().map_err(StoreError::io("stat", path))?;
    if len > offered {
        layout.remove(path)?;
        return Ok(0);
    }
    Ok(len)
}

fn crc_of(file: &dyn File, path: &Path, len: u64) -> Result<u32, StoreError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut offset = 0;
    while offset < len {
        let mut buf = vec![0; (len - offset).min(READ_BYTES) as usize];
        file.read_exact_at(&mut buf, offset).map_err(StoreError::io("read", path))?;
        hasher.update(&buf);
        offset += buf.len() as u64;
    }
    Ok(hasher.finalize())
}
