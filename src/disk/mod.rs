//! The disk port: the only way this program touches files.
//!
//! [`RealDisk`] is the operating system. `sim`, in tests, is a disk in memory that can lose unsynced
//! changes, tear writes, flip bits and run full. Callers cannot distinguish the two.
//!
//! Invariants of every implementation:
//! - Content survives a crash once [`File::sync_data`] has returned `Ok`. Other content may be lost.
//! - A created, renamed or removed name survives a crash only after [`Disk::sync_dir`] of its parent.
//! - After a failed sync the file cannot be trusted: the caller must end the process.
//!
//! All calls may block, so they run on lanes (see [`crate::lane`]), never on an async worker.

mod failpoint;
mod real;
#[cfg(test)]
pub mod sim;

use std::{fmt::Debug, io, path::Path, sync::Arc};

pub use real::RealDisk;

/// Mode of [`Disk::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    Write,
    /// Must not exist; reads and writes.
    CreateNew,
}

/// A tree of files.
pub trait Disk: Debug + Send + Sync + 'static {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Creates the directory and its parents, and syncs each changed parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. A missing directory is an error of kind `NotFound`.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Renames a file, and replaces `to` if it exists. A directory requires that `to` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with its content, if it exists.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The size of the file system that holds `path`, as far as this process may fill it.
    fn capacity_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the exclusive lock of a file, and creates the file if missing. The lock is released when
    /// dropped and when the process ends. Error kind `WouldBlock`: another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// A held lock. Dropping it releases the lock.
pub trait FileLock: Debug + Send + Sync + 'static {}

/// An open file. Methods take `&self`, so writers of one range must coordinate.
pub trait File: Debug + Send + Sync + 'static {
    /// Reads from `offset` into `buf`, and returns the number of bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `buf` from `offset`. Error kind `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file if needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content, and the length if it grew, durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    #[cfg(test)]
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Reads a whole file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut buf = vec![0; len];
    file.read_exact_at(&mut buf, 0)?;
    Ok(buf)
}

/// Reads a file that does not report its length, such as the kernel's under /proc.
pub fn read_to_end(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let mut all = Vec::new();
    let mut some = [0; 4096];
    loop {
        match file.read_at(&mut some, all.len() as u64)? {
            0 => return Ok(all),
            read => all.extend_from_slice(&some[..read]),
        }
    }
}

/// Replaces a file atomically: after a crash either the old or the whole new one exists. Writes a
/// temporary file, syncs it, renames it, and syncs the directory.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let temporary = path.with_extension("tmp");
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let file = disk.open(&temporary, Open::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}
