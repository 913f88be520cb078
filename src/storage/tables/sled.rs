//! Tables on disk, in sled. Only this file uses sled.
//!
//! Properties of sled 0.34.7, as read and measured, and their consequences here:
//! - One batch in one tree is atomic under SIGKILL, so there is one tree.
//! - It panics on damaged pages, so every call is guarded, and a panic is an error.
//! - Its flush does not sync, so the last batches may be lost in a power failure.
//! - Its cache takes a multiple of its capacity, so the capacity is small.
//! - Its own threads may hold the directory for a while after the last handle is dropped, so closing
//!   waits for them.

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::engine::{Batch, Tables, TablesEngine, TablesError};

const CACHE_BYTES: u64 = 4 << 20;
/// Interval at which sled's own thread syncs and cleans up its segments.
const SYNC_INTERVAL_MS: u64 = 1000;

/// The file that sled locks in its directory.
const LOCK_FILE: &str = "db";
/// Limit of polls for the release of the lock, which takes milliseconds on an idle machine.
const RELEASE_POLLS_MAX: u32 = 5000;
const RELEASE_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The engine of production.
#[derive(Debug, Clone, Copy, Default)]
pub struct SledTables;

impl TablesEngine for SledTables {
    fn open(&self, dir: &Path) -> Result<Box<dyn Tables>, TablesError> {
        let config = ::sled::Config::new()
            .path(dir)
            .mode(::sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(SYNC_INTERVAL_MS));
        let db = guarded(|| config.open())?;
        Ok(Box::new(OpenSled { db, lock: dir.join(LOCK_FILE) }))
    }
}

#[derive(Debug)]
struct OpenSled {
    db: ::sled::Db,
    lock: PathBuf,
}

impl Tables for OpenSled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TablesError> {
        let value = guarded(|| self.db.get(key))?;
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
            self.db.apply_batch(changes)?;
            // Passes it to the operating system, so that a killed process has less to replay.
            self.db.flush().map(drop)
        })
    }

    fn scan(&self) -> Result<Vec<(Bytes, Bytes)>, TablesError> {
        guarded(|| {
            let copy = |bytes: ::sled::IVec| Bytes::copy_from_slice(&bytes);
            let entries = self.db.iter();
            entries.map(|entry| entry.map(|(key, value)| (copy(key), copy(value)))).collect()
        })
    }

    fn size(&self) -> Result<u64, TablesError> {
        guarded(|| self.db.size_on_disk())
    }

    fn close(self: Box<Self>) -> Result<(), TablesError> {
        let OpenSled { db, lock } = *self;
        guarded(move || db.flush().map(drop))?;
        await_release(&lock).map_err(|error| TablesError(error.to_string()))
    }
}

/// Waits until sled has released the directory, so that it can be opened again. sled releases it on a
/// thread of its own without a notification, and file locks cannot be awaited with a timeout. So this
/// polls the lock.
#[expect(clippy::disallowed_methods, reason = "sled's own file, on the thread that closes it")]
fn await_release(lock: &Path) -> io::Result<()> {
    // Writable, because NFS requires that for a lock.
    let file = File::options().read(true).write(true).open(lock)?;
    for _ in 0..RELEASE_POLLS_MAX {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(RELEASE_POLL_INTERVAL),
            free => return Ok(free?),
        }
    }
    Err(io::Error::other(format!("sled does not release {}", lock.display())))
}

/// Converts sled's errors and panics.
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
