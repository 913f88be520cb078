//! A snapshot that is being received from a peer, in `incoming/`.
//!
//! An interrupted transfer resumes where it ended, even after a restart. Blocks that are part of the
//! local state are not sent. Received bytes are not trusted until [`IncomingFiles::finish`] has read
//! them back and compared them with the offer, so an interrupted transfer may leave arbitrary files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    block::{Block, BlockFacts, BlockName},
    error::StoreError,
    layout::Layout,
    metrics::StorageMetrics,
    snapshot::{self, SnapshotFile, SnapshotName},
    snapshot_io::WeakSnapshotIo,
    table_contents::TableContents,
};
use crate::{
    disk::{File, Open},
    types::LogPosition,
};

/// Bytes read at once to compute a checksum.
const CHECKSUM_READ_BYTES: u64 = 1 << 20;

/// A snapshot that is being received. Dropping it keeps the received files for another attempt.
#[derive(Debug)]
pub struct IncomingSnapshot {
    incoming: Arc<Mutex<IncomingFiles>>,
    io: WeakSnapshotIo,
    metrics: Arc<StorageMetrics>,
}

impl IncomingSnapshot {
    pub(super) fn new(
        incoming: Arc<Mutex<IncomingFiles>>,
        io: WeakSnapshotIo,
        metrics: Arc<StorageMetrics>,
    ) -> IncomingSnapshot {
        IncomingSnapshot { incoming, io, metrics }
    }

    /// For each offered file the offset from which it must be sent. Its length means not at all.
    pub fn wanted(&self) -> Vec<u64> {
        lock(&self.incoming).files.iter().map(|file| file.have).collect()
    }

    /// Writes the next bytes of a file, which must start at its wanted offset.
    pub async fn write(&self, file: usize, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let incoming = self.incoming.clone();
        self.io.run(move || lock(&incoming).write(file, offset, &bytes)).await
    }

    /// Verifies and syncs all files. Refused: some file must be sent again, from its beginning.
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

    /// Holding the files keeps the local blocks that were not sent.
    pub(super) fn shared(&self) -> Arc<Mutex<IncomingFiles>> {
        self.incoming.clone()
    }
}

pub fn lock(incoming: &Mutex<IncomingFiles>) -> MutexGuard<'_, IncomingFiles> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of an offer, and their received parts.
#[derive(Debug)]
pub struct IncomingFiles {
    layout: Layout,
    dir: PathBuf,
    name: SnapshotName,
    files: Vec<IncomingFile>,
    /// The position of the snapshot, once it is complete.
    finished: Option<LogPosition>,
}

#[derive(Debug)]
struct IncomingFile {
    offered: SnapshotFile,
    have: u64,
    open: Option<Arc<dyn File>>,
    /// A local block with this content. Holding it keeps it on disk.
    local: Option<Arc<Block>>,
}

impl IncomingFiles {
    /// `local` are the blocks of the current state. Blocks until they are read.
    pub fn begin(
        layout: &Layout,
        offer: Vec<SnapshotFile>,
        local: &[Arc<Block>],
    ) -> Result<IncomingFiles, StoreError> {
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
            let block = local.iter().find(same).filter(|block| {
                // A damaged block must be sent again.
                let read = crc_of(&**block.file(), block.path(), offered.bytes);
                read.is_ok_and(|crc| crc == offered.crc)
            });
            let local = block.cloned();
            let have = match &local {
                Some(_) => offered.bytes,
                None => received_bytes(layout, &dir.join(&offered.name), offered.bytes)?,
            };
            Ok(IncomingFile { offered, have, open: None, local })
        });
        let files = files.collect::<Result<_, StoreError>>()?;
        Ok(IncomingFiles { layout: layout.clone(), dir, name, files, finished: None })
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.finished = None;
        let refused =
            |problem: &str| StoreError::Refused(format!("file {file} at {offset}: {problem}"));
        let file = self.files.get_mut(file).ok_or_else(|| refused("no such file"))?;
        let end = offset.checked_add(bytes.len() as u64);
        let end = end.filter(|end| *end <= file.offered.bytes);
        let end = end.ok_or_else(|| refused("more bytes than offered"))?;
        if offset != file.have {
            return Err(refused("not the next wanted offset"));
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
        for file in self.files.iter_mut().filter(|file| file.local.is_none()) {
            let path = self.dir.join(&file.offered.name);
            if file.have < file.offered.bytes {
                damaged.push(format!("{} is incomplete", file.offered.name));
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
        let position = self.check_contents()?;
        self.finished = Some(position);
        Ok(position)
    }

    /// The snapshot must name exactly the offered blocks, and they must be valid.
    fn check_contents(&self) -> Result<LogPosition, StoreError> {
        let bytes = Bytes::from(self.layout.read(&self.dir.join(self.name.to_string()))?);
        let refused = |problem: &str| StoreError::Refused(format!("{}: {problem}", self.name));
        let contents = snapshot::decode(&bytes).and_then(TableContents::decode);
        let contents = contents.ok_or_else(|| refused("not a snapshot"))?;
        let position = contents.applied.filter(|at| SnapshotName::from(*at) == self.name);
        let position = position.ok_or_else(|| refused("its name does not match its position"))?;
        let blocks = self.files.get(1..).unwrap_or_default();
        if blocks.len() != contents.blocks.len() {
            return Err(refused("its blocks are not those of the offer"));
        }
        for (facts, _) in &contents.blocks {
            let named = |file: &&IncomingFile| is_file_of(&file.offered, facts);
            let file = blocks.iter().find(named);
            let file = file.ok_or_else(|| refused("its blocks are not those of the offer"))?;
            let sound = match &file.local {
                Some(block) => block.facts() == facts,
                None => Block::open(&*self.layout.disk, &self.dir, facts.clone()).is_ok(),
            };
            if !sound {
                return Err(refused("a block is invalid"));
            }
        }
        Ok(position)
    }

    pub fn finished(&self) -> Option<LogPosition> {
        self.finished
    }

    /// Moves all files to their places. From the move of the snapshot file on, a start would recover
    /// from the snapshot.
    pub fn move_in(&self) -> Result<(), StoreError> {
        let blocks = self.layout.blocks();
        for file in self.files.iter().skip(1).filter(|file| file.local.is_none()) {
            let name = &file.offered.name;
            self.layout.rename(&self.dir.join(name), &blocks.join(name))?;
        }
        self.layout.sync_dir(&blocks)?;
        let (name, snapshots) = (self.name.to_string(), self.layout.snapshots());
        self.layout.rename(&self.dir.join(&name), &snapshots.join(&name))?;
        self.layout.sync_dir(&snapshots)
    }

    pub fn name(&self) -> SnapshotName {
        self.name
    }

    /// The local blocks, which were not sent.
    pub fn local_blocks(&self) -> impl Iterator<Item = Arc<Block>> {
        self.files.iter().filter_map(|file| file.local.clone())
    }
}

fn is_file_of(file: &SnapshotFile, facts: &BlockFacts) -> bool {
    file.name == facts.name.to_string() && (file.bytes, file.crc) == (facts.bytes, facts.crc)
}

/// Validates the names, which a peer sent and which become paths: one snapshot, then distinct blocks.
fn check_names(offer: &[SnapshotFile]) -> Result<SnapshotName, StoreError> {
    let refused = || StoreError::Refused("the offer has invalid file names".into());
    let (first, blocks) = offer.split_first().ok_or_else(refused)?;
    let name = SnapshotName::parse(&first.name).ok_or_else(refused)?;
    let names = blocks.iter().map(|file| BlockName::parse(&file.name));
    let unique = names.collect::<Option<BTreeSet<_>>>().ok_or_else(refused)?;
    if unique.len() == blocks.len() { Ok(name) } else { Err(refused()) }
}

/// The size of a file that an earlier attempt left.
fn received_bytes(layout: &Layout, path: &Path, offered: u64) -> Result<u64, StoreError> {
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
        let mut buf = vec![0; (len - offset).min(CHECKSUM_READ_BYTES) as usize];
        file.read_exact_at(&mut buf, offset).map_err(StoreError::io("read", path))?;
        hasher.update(&buf);
        offset += buf.len() as u64;
    }
    Ok(hasher.finalize())
}
