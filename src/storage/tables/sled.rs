//! Tables on disk, in sled: the only place that knows it.
//!
//! What was read and measured of sled 0.34.7, and what follows from it here: one batch in one tree
//! is atomic under SIGKILL, so there is one tree; it panics on damaged pages, so every call is
//! guarded and a panic is an error; its flush does not sync, so nothing relies on the last batches
//! after a power failure; its cache takes a multiple of its capacity, so that is small.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use bytes::Bytes;

use super::{Batch, Tables, TablesEngine, TablesError};

const CACHE_BYTES: u64 = 4 << 20;
/// How often sled's own thread syncs and cleans up its segments.
const SYNC_EVERY_MS: u64 = 1000;

/// The engine of production.
#[derive(Debug, Clone, Copy, Default)]
pub struct SledTables;

impl TablesEngine for SledTables {
    fn open(&self, dir: &Path) -> Result<Box<dyn Tables>, TablesError> {
        let config = ::sled::Config::new()
            .path(dir)
            .mode(::sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(SYNC_EVERY_MS));
        let db = guarded(|| config.open())?;
        Ok(Box::new(OpenSled(db)))
    }
}

#[derive(Debug)]
struct OpenSled(::sled::Db);

impl Tables for OpenSled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        let value = guarded(|| self.0.get(key))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TablesError> {
        let mut changes = ::sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(&key[..], &value[..]),
                None => changes.remove(&key[..]),
            }
        }
        guarded(|| {
            self.0.apply_batch(changes)?;
            // Gives it to the operating system, so that a killed process has less to replay.
            self.0.flush().map(drop)
        })
    }

    fn scan(&self) -> Result<Vec<(Bytes, Bytes)>, TablesError> {
        guarded(|| {
            let copy = |bytes: ::sled::IVec| Bytes::copy_from_slice(&bytes);
            let entries = self.0.iter();
            entries.map(|entry| entry.map(|(key, value)| (copy(key), copy(value)))).collect()
        })
    }

    fn size(&self) -> Result<u64, TablesError> {
        guarded(|| self.0.size_on_disk())
    }

    fn close(self: Box<Self>) -> Result<(), TablesError> {
        guarded(|| {
            self.0.flush()?;
            drop(self.0);
            Ok(())
        })
    }
}

/// Makes errors of sled's, and its panics, ours.
fn guarded<T>(call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, TablesError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| TablesError(error.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(TablesError(format!("sled panicked: {}", text.unwrap_or("no message"))))
        }
    }
}
