//! Tables in memory, for simulations and tests, which choose the data that survives a crash.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use super::engine::{Batch, Tables, TablesEngine, TablesError};

/// Batches that can be undone.
const UNDO_MAX: usize = 64;

/// The contents of all directories; clones share them, as processes share a disk. Everything survives
/// a crash, except batches that [`MemoryTables::lose_last`] drops.
#[derive(Debug, Clone, Default)]
pub struct MemoryTables {
    dirs: Arc<Mutex<HashMap<PathBuf, MemoryDir>>>,
}

#[derive(Debug, Default)]
struct MemoryDir {
    entries: BTreeMap<Bytes, Bytes>,
    /// The replaced values of the last batches, oldest first.
    undo: VecDeque<Batch>,
}

impl MemoryTables {
    /// Simulates a power failure that lost the last batches, in every directory.
    pub fn lose_last(&self, batches: usize) {
        self.each(|content| {
            for _ in 0..batches {
                for (key, before) in content.undo.pop_back().unwrap_or_default() {
                    content.set(key, before);
                }
            }
        });
    }

    /// Flips a bit in the value of some entry, in every directory.
    pub fn damage(&self) {
        self.each(|content| {
            if let Some(value) = content.entries.values_mut().next_back() {
                let mut bytes = value.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                *value = bytes.into();
            }
        });
    }

    fn each(&self, change: impl FnMut(&mut MemoryDir)) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(change);
    }

    fn with<T>(&self, dir: &Path, f: impl FnOnce(&mut MemoryDir) -> T) -> T {
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        f(dirs.entry(dir.to_owned()).or_default())
    }
}

impl MemoryDir {
    /// Returns the previous value.
    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        }
    }
}

impl TablesEngine for MemoryTables {
    fn open(&self, dir: &Path) -> Result<Box<dyn Tables>, TablesError> {
        Ok(Box::new(OpenMemory { dir: dir.to_owned(), all: self.clone() }))
    }

    fn removed(&self, dir: &Path) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).remove(dir);
    }
}

#[derive(Debug)]
struct OpenMemory {
    dir: PathBuf,
    all: MemoryTables,
}

impl Tables for OpenMemory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        Ok(self.all.with(&self.dir, |content| content.entries.get(key).cloned()))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TablesError> {
        self.all.with(&self.dir, |content| {
            let mut undo = Batch::new();
            for (key, value) in batch {
                let before = content.set(key.clone(), value.clone());
                undo.insert(key.clone(), before);
            }
            content.undo.push_back(undo);
            if content.undo.len() > UNDO_MAX {
                content.undo.pop_front();
            }
        });
        Ok(())
    }

    fn scan(&self) -> Result<Vec<(Bytes, Bytes)>, TablesError> {
        let pairs = |content: &mut MemoryDir| {
            content.entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Ok(self.all.with(&self.dir, pairs))
    }

    fn size(&self) -> Result<u64, TablesError> {
        Ok(self.all.with(&self.dir, |content| {
            content.entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
        }))
    }

    fn close(self: Box<Self>) -> Result<(), TablesError> {
        Ok(())
    }
}
