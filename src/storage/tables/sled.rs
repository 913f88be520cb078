//! Tables on disk, in sled: the only place that knows it.
//!
//! What was read and measured of sled 0.34.7, and what follows from it here: one batch in one tree
//! is atomic under SIGKILL, so there is one tree; it panics on damaged pages, so every call is
//! guarded and a panic is an error; its flush does not sync, so nothing relies on the last batches
//! after a power failure; its cache takes a multiple of its capacity, so that is small; its own threads
//! may hold the directory a while after the last handle is dropped, so closing waits for them.

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{Batch, Tables, TablesEngine, TablesError};

const CACHE_BYTES: u64 = 4 << 20;
/// How often sled's own thread syncs and cleans up its segments.
const SYNC_EVERY_MS: u64 = 1000;

/// The file that sled locks in its directory.
const LOCK: &str = "db";
/// It lets go within milliseconds, on a machine that is not busy with other things.
const RELEASE_LOOKS: u32 = 5000;
const LOOK_EVERY: Duration = Duration::from_millis(2);

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
        Ok(Box::new(OpenSled { db, lock: dir.join(LOCK) }))
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
            // Gives it to the operating system, so that a killed process has less to replay.
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

/// Whoever opens the directory next must find it free. sled lets go of it on a thread of its own, which
/// tells nobody when; and a lock can be waited for, but not with a limit. So it is looked at.
#[expect(clippy::disallowed_methods, reason = "sled's own file, on the thread that closes it")]
fn await_release(lock: &Path) -> io::Result<()> {
    // Writable: NFS locks nothing else.
    let file = File::options().read(true).write(true).open(lock)?;
    for _ in 0..RELEASE_LOOKS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK_EVERY),
            free => return Ok(free?),
        }
    }
    Err(io::Error::other(format!("sled does not let go of {}", lock.display())))
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
