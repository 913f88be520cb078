//! The disk port: the only way this program touches files.
//!
//! [`real`] is the operating system; [`sim`] is a disk in memory that can lose what was not synced,
//! tear writes, flip bits and run full. The code above cannot tell which one it runs on.
//!
//! Invariants every implementation keeps:
//! - what [`File::sync_data`] returned `Ok` for survives a crash; nothing else needs to;
//! - a created, renamed or removed name survives a crash only after [`Disk::sync_dir`] of its parent;
//! - after a failed sync the file must not be trusted: the caller ends the process.
//!
//! All calls may block, so they are made on lanes (see [`crate::lane`]), never on an async worker.

mod hold;
mod real;
pub mod sim;

use std::{fmt::Debug, io, path::Path, sync::Arc};

pub use real::RealDisk;

/// How [`Disk::open`] treats a name that exists, or does not.
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
    /// Creates the directory and its parents, and syncs each parent that it changed.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. A missing directory is an error of kind `NotFound`.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Replaces `to` if it exists. Works for directories too, when `to` does not exist.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it. A missing one is fine.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Takes the exclusive lock of a file, which is created if missing. Held until dropped, and by
    /// nobody once the process has ended. An error of kind `WouldBlock`: somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// A held lock; dropping it lets go.
pub trait FileLock: Debug + Send + Sync + 'static {}

/// An open file. Methods take `&self`: writers to one range coordinate among themselves.
pub trait File: Debug + Send + Sync + 'static {
    /// Reads what is there from `offset` on into `buf`, and says how much; nothing: the file ends here.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `buf` from `offset`; a file that ends before is an error of kind `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file if needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content, and the length if it grew, durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
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

/// Reads a file that does not know its length, such as those of the kernel under /proc.
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

/// Writes a file so that after a crash there is either the old one or the whole new one:
/// a temporary name, synced, renamed, the directory synced.
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
