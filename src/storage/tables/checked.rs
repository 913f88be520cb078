//! Tables with a checksum of their content.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::engine::{Batch, Tables, TablesEngine, TablesError};
use crate::storage::{
    error::StoreError,
    schema::{self, StorageEntry},
};

/// An engine's tables, and the sum of the hashes of all entries. The order of entries does not matter,
/// and the cost of an update depends only on the changed entries.
#[derive(Debug)]
pub struct CheckedTables {
    dir: PathBuf,
    engine: Box<dyn Tables>,
    sum: u64,
}

impl CheckedTables {
    /// Creates tables with this content (a checksum entry in it is replaced), reads them back and
    /// verifies them.
    pub fn create(
        engine: &dyn TablesEngine,
        dir: &Path,
        content: Vec<(Bytes, Bytes)>,
    ) -> Result<(CheckedTables, Vec<(Bytes, Bytes)>), StoreError> {
        let mut tables = CheckedTables {
            dir: dir.to_owned(),
            engine: engine.open(dir).map_err(at(dir))?,
            sum: 0,
        };
        let mut batch: Batch = content.into_iter().map(|(key, value)| (key, Some(value))).collect();
        batch.insert(Bytes::from_static(schema::FORMAT), Some(schema::format_value()));
        tables.commit(batch)?;
        let content = tables.verify()?;
        Ok((tables, content))
    }

    /// Opens and verifies existing tables, and returns their content.
    pub fn open(
        engine: &dyn TablesEngine,
        dir: &Path,
    ) -> Result<(CheckedTables, Vec<(Bytes, Bytes)>), StoreError> {
        let mut tables = CheckedTables {
            dir: dir.to_owned(),
            engine: engine.open(dir).map_err(at(dir))?,
            sum: 0,
        };
        let content = tables.verify()?;
        Ok((tables, content))
    }

    /// Scans everything, compares the checksum, and adopts it.
    fn verify(&mut self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let content = self.engine.scan().map_err(at(&self.dir))?;
        let wrong = |problem: &str| at(&self.dir)(TablesError(problem.to_owned()));
        let mut sum = 0_u64;
        let (mut format, mut expected) = (None, None);
        for (key, value) in &content {
            if key == schema::CHECKSUM {
                expected = schema::decode(key, value);
                continue;
            }
            if key == schema::FORMAT {
                format = schema::decode(key, value);
            }
            sum = sum.wrapping_add(entry_hash(key, value));
        }
        match (&format, expected) {
            (None, None) => return Err(wrong("no entries")),
            (_, Some(StorageEntry::Checksum(expected))) if expected == sum => {}
            _ => return Err(wrong("wrong checksum")),
        }
        if format != Some(StorageEntry::Format { known: true }) {
            return Err(wrong("unknown format version"));
        }
        self.sum = sum;
        Ok(content)
    }

    /// Applies a batch together with the new checksum.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        batch.remove(schema::CHECKSUM);
        let mut sum = self.sum;
        for (key, value) in &batch {
            if let Some(before) = self.engine.get(key).map_err(at(&self.dir))? {
                sum = sum.wrapping_sub(entry_hash(key, &before));
            }
            if let Some(value) = value {
                sum = sum.wrapping_add(entry_hash(key, value));
            }
        }
        let key = Bytes::from_static(schema::CHECKSUM);
        batch.insert(key, Some(schema::checksum_value(sum)));
        self.engine.apply(&batch).map_err(at(&self.dir))?;
        self.sum = sum;
        Ok(())
    }

    /// All entries, in key order, including the storage's own. Verifies them again.
    pub fn dump(&mut self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let expected = self.sum;
        let content = self.verify()?;
        if self.sum != expected {
            return Err(at(&self.dir)(TablesError(
                "the content is not that of the last commit".into(),
            )));
        }
        Ok(content)
    }

    pub fn size(&self) -> Result<u64, StoreError> {
        self.engine.size().map_err(at(&self.dir))
    }

    pub fn close(self) -> Result<(), StoreError> {
        self.engine.close().map_err(at(&self.dir))
    }
}

fn at(dir: &Path) -> impl FnOnce(TablesError) -> StoreError {
    move |error| StoreError::Tables { path: dir.to_owned(), problem: error.0 }
}

/// FNV-1a over key length, key and value, then mixed so that sums of hashes stay well spread.
pub fn entry_hash(key: &[u8], value: &[u8]) -> u64 {
    let length = (key.len() as u64).to_be_bytes();
    let bytes = length.iter().chain(key).chain(value);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 29)
}
