//! The storage's directories and file operations, below the member's data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{block::BlockName, error::StoreError};
use crate::disk::{self, Disk};

/// The directories of one member's storage, and their disk.
#[derive(Debug, Clone)]
pub struct Layout {
    pub disk: Arc<dyn Disk>,
    data: PathBuf,
}

impl Layout {
    pub fn new(disk: Arc<dyn Disk>, data: PathBuf) -> Layout {
        Layout { disk, data }
    }

    pub fn blocks(&self) -> PathBuf {
        self.data.join("blocks")
    }

    pub fn tables(&self) -> PathBuf {
        self.data.join("tables")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.data.join("snapshots")
    }

    /// The files of a snapshot that is being received.
    pub fn incoming(&self) -> PathBuf {
        self.data.join("incoming")
    }

    /// Creates missing directories, and removes the remains of interrupted atomic writes.
    pub fn prepare(&self) -> Result<(), StoreError> {
        for dir in [self.blocks(), self.tables(), self.snapshots()] {
            self.disk.create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
            for name in self.list(&dir)?.iter().filter(|name| name.ends_with(".tmp")) {
                self.remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    pub fn list(&self, dir: &Path) -> Result<Vec<String>, StoreError> {
        self.disk.list(dir).map_err(StoreError::io("list", dir))
    }

    pub fn exists(&self, path: &Path) -> Result<bool, StoreError> {
        self.disk.exists(path).map_err(StoreError::io("look for", path))
    }

    pub fn read(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        disk::read(&*self.disk, path).map_err(StoreError::io("read", path))
    }

    pub fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        disk::write_atomic(&*self.disk, path, bytes).map_err(StoreError::io("write", path))
    }

    pub fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        self.disk.sync_dir(dir).map_err(StoreError::io("sync", dir))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.disk.rename(from, to).map_err(StoreError::io("rename", from))
    }

    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.disk.remove(path).map_err(StoreError::io("remove", path))
    }

    pub fn remove_dir(&self, path: &Path) -> Result<(), StoreError> {
        self.disk.remove_dir_all(path).map_err(StoreError::io("remove", path))
    }

    /// All block files, referenced or not.
    pub fn block_names(&self) -> Result<Vec<BlockName>, StoreError> {
        let names = self.list(&self.blocks())?;
        Ok(names.iter().filter_map(|name| BlockName::parse(name)).collect())
    }
}
