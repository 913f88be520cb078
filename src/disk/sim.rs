//! A disk in memory that loses unsynced changes in a crash, as a real one may. Deterministic from a
//! seed. For tests only.
//!
//! After a crash ([`Crash`]):
//! - Each unsynced sector (512 bytes) of a file is old or new, independently of other sectors. A sector
//!   that was written several times may hold any of these versions.
//! - An unsynced length survives in full, in part or not at all. Lost growth reads as zeros.
//! - The creation, rename or removal of a name is certain only after `sync_dir`. Unsynced changes
//!   survive independently (POSIX promises no order between names), a rename as a whole. No change of a
//!   name survives the loss of an earlier change of the same name.
//! - A failed sync has the effect that it has on Linux: its pages stay readable, count as clean, and
//!   reach the platter only if they are written again.
//!
//! A process sees the disk through a *mount*. [`SimDisk::crash`] and [`SimDisk::kill`] end every
//! mount, so leftover tasks of a dead process get errors. Only the mount that they return works.
//!
//! ```text
//! let disk = SimDisk::new(1);
//! let file = disk.open(Path::new("f"), Open::CreateNew)?;
//! file.write_all_at(b"kept", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new(""))?;
//! file.write_all_at(b"lost", 0)?;
//! let disk = disk.crash(Crash::LoseAll);
//! assert_eq!(disk::read(&disk, Path::new("f"))?, b"kept");
//! ```

mod crash;
mod dir_tree;
mod file_content;
mod op;
mod rng;
mod state;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

pub use self::{
    crash::Crash,
    op::{DiskOp, HookAction},
};
use self::{dir_tree::NodeId, rng::SimRng, state::SimState};
use super::{Disk, File, FileLock, Open};

/// One mount of a simulated disk. Clones are the same mount.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<SimState>>,
    mount: u64,
}

struct SimFile {
    disk: SimDisk,
    node: NodeId,
    writable: bool,
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        let state = SimState::new(SimRng::new(seed));
        SimDisk { state: Arc::new(Mutex::new(state)), mount: 0 }
    }

    /// The machine loses power and restarts. Returns the new mount.
    pub fn crash(&self, how: Crash) -> SimDisk {
        self.state().crash(how);
        self.kill()
    }

    /// The process is killed and the machine stays up: no change is lost, none becomes durable. Returns
    /// the new mount.
    pub fn kill(&self) -> SimDisk {
        let mut state = self.state();
        state.mount += 1;
        state.ops_max = u64::MAX;
        SimDisk { state: self.state.clone(), mount: state.mount }
    }

    /// A copy of the disk, with synced and unsynced content and the same random sequence.
    pub fn fork(&self) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(self.state().clone())), mount: self.mount }
    }

    /// Restarts the random sequence, so that forks with different seeds crash in different ways.
    pub fn reseed(&self, seed: u64) {
        self.state().rng = SimRng::new(seed);
    }

    /// Turns the power off after this many more changes. Every operation then fails, until
    /// [`SimDisk::crash`] or [`SimDisk::kill`].
    pub fn power_off_after(&self, changes: u64) {
        let mut state = self.state();
        state.ops_max = state.ops.saturating_add(changes);
    }

    /// Number of changes so far.
    pub fn changes(&self) -> u64 {
        self.state().ops
    }

    /// Bounds the total length of all files. Growth beyond it fails with `StorageFull`. Removing a file
    /// frees its space at once.
    pub fn set_budget_bytes(&self, bytes: u64) {
        self.state().budget_bytes = bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes
    }

    /// Lets `hook` decide about each change from now on. The hook must not call this disk.
    pub fn set_hook(&self, hook: impl Fn(&DiskOp) -> HookAction + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    pub fn remove_hook(&self) {
        self.state().hook = None;
    }

    /// Skips syncs for which `matches` holds: they return `Ok` and make nothing durable. Tests use it
    /// to show the purpose of a sync.
    pub fn ignore_syncs(&self, matches: impl Fn(&DiskOp) -> bool + Send + Sync + 'static) {
        self.set_hook(move |op| match op {
            DiskOp::SyncData(_) | DiskOp::SyncDir(_) if matches(op) => HookAction::Skip,
            _ => HookAction::Proceed,
        });
    }

    /// Flips a bit of a file.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let node = state.names.find(path)?;
        let content = state.names.file(node)?;
        if offset >= content.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.flip_bit(offset as usize, bit);
        Ok(())
    }

    /// Starts a new recording of changes.
    pub fn record(&self) {
        self.state().trace = Some(Vec::new());
    }

    /// The changes since [`SimDisk::record`].
    pub fn trace(&self) -> Vec<DiskOp> {
        self.state().trace.clone().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, SimState> {
        self.state.lock().expect("no holder of the simulated disk has panicked")
    }

    /// The state, if this mount is alive and the power is on.
    fn mounted(&self) -> io::Result<MutexGuard<'_, SimState>> {
        let state = self.state();
        if state.mount != self.mount {
            return Err(io::Error::other("this mount ended with its process"));
        }
        if state.ops >= state.ops_max {
            return Err(io::Error::other("the power is off"));
        }
        Ok(state)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut state = self.mounted()?;
        let node = if how == Open::CreateNew {
            state.admit(DiskOp::Create(path.into()))?;
            state.names.create_file(path)?
        } else {
            let node = state.names.find(path)?;
            state.names.file(node)?;
            node
        };
        Ok(Arc::new(SimFile { disk: self.clone(), node, writable: how != Open::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.mounted()?;
        if state.names.list(path).is_ok() {
            return Ok(());
        }
        state.change_names(DiskOp::CreateDir(path.into()), |names| names.create_dir_all(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.mounted()?.names.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = DiskOp::Rename { from: from.into(), to: to.into() };
        self.mounted()?.change_names(op, |names| names.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.mounted()?.change_names(DiskOp::Remove(path.into()), |names| names.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.mounted()?;
        if state.names.find(path).is_err() {
            return Ok(());
        }
        state.change_names(DiskOp::Remove(path.into()), |names| names.remove_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.mounted()?;
        let node = state.names.find(dir)?;
        state.change_names(DiskOp::SyncDir(dir.into()), |names| {
            names.sync_dir(node);
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.mounted()?.names.find(path).is_ok())
    }

    fn capacity_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.mounted()?;
        state.names.find(path)?;
        Ok(state.budget_bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut state = self.mounted()?;
        match state.locks.insert((self.mount, path.into())) {
            true => Ok(Box::new(SimLock { disk: self.clone(), path: path.into() })),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl SimFile {
    fn for_writing(&self) -> io::Result<MutexGuard<'_, SimState>> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.mounted()
    }
}

/// A held file lock of a simulated disk.
#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let held = (self.disk.mount, std::mem::take(&mut self.path));
        self.disk.state().locks.remove(&held);
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut mount = self.disk.mounted()?;
        let file = mount.names.file(self.node)?;
        let left = (file.len() as u64).saturating_sub(offset);
        let read = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if read > 0 {
            file.read(&mut buf[..read], offset as usize)?;
        }
        Ok(read)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.mounted()?.names.file(self.node)?.read(buf, offset as usize)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.for_writing()?.write(self.node, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.mounted()?.sync_data(self.node)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.mounted()?.names.file(self.node)?.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.for_writing()?.set_len(self.node, len)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("mount", &self.mount).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("node", &self.node).finish_non_exhaustive()
    }
}
