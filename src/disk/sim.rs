//! A disk in memory that forgets what was not synced, as a real one may. Deterministic from a seed.
//!
//! What a crash leaves ([`Crash`]):
//! - a file's content changes sector by sector (512 bytes). Each unsynced sector is afterwards old
//!   or new, each on its own; if it was written several times, any of these versions may be there;
//! - an unsynced length may survive, or not, or in part. Grown parts that were lost read as zeros;
//! - a created, renamed or removed name survives for certain only after `sync_dir`. Unsynced ones
//!   survive each on its own (POSIX promises no order between names), a rename as a whole, and no
//!   change of a name survives the loss of an earlier change of the same name;
//! - a sync that fails leaves what Linux leaves: pages that are readable, count as clean, and will
//!   never reach the platter unless they are written again.
//!
//! A process sees the disk through a *mount*. [`SimDisk::crash`] and [`SimDisk::kill`] end every
//! mount: what a dead process left running gets errors, and only the mount they return works.
//!
//! ```
//! use std::path::Path;
//! use ordinal::disk::{self, Disk, Open, sim::{Crash, SimDisk}};
//!
//! let disk = SimDisk::new(1);
//! let file = disk.open(Path::new("f"), Open::CreateNew)?;
//! file.write_all_at(b"kept", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new(""))?;
//! file.write_all_at(b"lost", 0)?;
//! let disk = disk.crash(Crash::LoseAll);
//! assert_eq!(disk::read(&disk, Path::new("f"))?, b"kept");
//! # std::io::Result::Ok(())
//! ```

mod content;
mod names;
mod rng;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    content::SECTOR_BYTES,
    names::{Names, NodeId},
    rng::SimRng,
};
use super::{Disk, File, FileLock, Open};

/// What a power failure does with what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All of it is lost: what a test of a missing sync wants.
    LoseAll,
    /// All of it survives, as if the disk had just been quick.
    KeepAll,
    /// A seeded choice for each sector, length and name.
    Arbitrary,
}

/// A change of the disk, as [`SimDisk::trace`] reports it. Paths are those at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    Create(PathBuf),
    CreateDir(PathBuf),
    Write { path: PathBuf, offset: u64, bytes: u64 },
    SetLen { path: PathBuf, bytes: u64 },
    SyncData(PathBuf),
    SyncDir(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
}

/// What an operation is made to do by a hook (see [`SimDisk::on_op`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// What it should.
    Obey,
    /// Nothing, but report success: a sync that somebody forgot. (A creation happens all the same.)
    Skip,
    /// Fail so; a write has stored a part by then.
    Fail(io::ErrorKind),
}

type Hook = Arc<dyn Fn(&DiskOp) -> Fate + Send + Sync>;

/// One mount of a simulated disk. Clones are the same mount.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    mount: u64,
}

#[derive(Clone)]
struct World {
    names: Names,
    rng: SimRng,
    mount: u64,
    /// Locks that are held, with the mount they were taken under: a crash lets go of them.
    locks: BTreeSet<(u64, PathBuf)>,
    budget_bytes: u64,
    used_bytes: u64,
    /// Changes made so far.
    ops: u64,
    /// When this many changes are made, the power is off.
    ops_max: u64,
    hook: Option<Hook>,
    trace: Option<Vec<DiskOp>>,
}

struct SimFile {
    disk: SimDisk,
    node: NodeId,
    writable: bool,
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        let world = World {
            names: Names::new(),
            rng: SimRng::new(seed),
            mount: 0,
            locks: BTreeSet::new(),
            budget_bytes: u64::MAX,
            used_bytes: 0,
            ops: 0,
            ops_max: u64::MAX,
            hook: None,
            trace: None,
        };
        SimDisk { world: Arc::new(Mutex::new(world)), mount: 0 }
    }

    /// The machine loses power and comes back.
    pub fn crash(&self, how: Crash) -> SimDisk {
        let mut world = self.world();
        let World { names, rng, .. } = &mut *world;
        names.crash(how, rng);
        world.used_bytes = world.names.used_bytes();
        drop(world);
        self.kill()
    }

    /// The process is killed and the machine stays up: nothing is lost, nothing becomes durable.
    pub fn kill(&self) -> SimDisk {
        let mut world = self.world();
        world.mount += 1;
        world.ops_max = u64::MAX;
        SimDisk { world: self.world.clone(), mount: world.mount }
    }

    /// The present mount, for who holds an older one.
    pub fn remount(&self) -> SimDisk {
        SimDisk { world: self.world.clone(), mount: self.world().mount }
    }

    /// Another disk with the same content, synced and not, and the same future.
    pub fn fork(&self) -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(self.world().clone())), mount: self.mount }
    }

    /// Starts another course of chance from here: forks with other seeds crash in other ways.
    pub fn reseed(&self, seed: u64) {
        self.world().rng = SimRng::new(seed);
    }

    /// The power fails after this many more changes: everything from then on is an error, until
    /// [`SimDisk::crash`] or [`SimDisk::kill`].
    pub fn power_off_after(&self, changes: u64) {
        let mut world = self.world();
        world.ops_max = world.ops.saturating_add(changes);
    }

    /// How many changes were made so far.
    pub fn changes(&self) -> u64 {
        self.world().ops
    }

    /// All files together may be this long; what goes beyond fails with `StorageFull`. Removing a
    /// file gives its space back at once.
    pub fn set_budget_bytes(&self, bytes: u64) {
        self.world().budget_bytes = bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.world().used_bytes
    }

    /// Lets `hook` decide the fate of each change from now on. It must not call this disk.
    pub fn on_op(&self, hook: impl Fn(&DiskOp) -> Fate + Send + Sync + 'static) {
        self.world().hook = Some(Arc::new(hook));
    }

    /// From now on all operations do what they should.
    pub fn obey(&self) {
        self.world().hook = None;
    }

    /// Forgets syncs for which `matches` holds: they answer `Ok` and make nothing durable. What
    /// breaks then is what these syncs are for.
    pub fn ignore_syncs(&self, matches: impl Fn(&DiskOp) -> bool + Send + Sync + 'static) {
        self.on_op(move |op| match op {
            DiskOp::SyncData(_) | DiskOp::SyncDir(_) if matches(op) => Fate::Skip,
            _ => Fate::Obey,
        });
    }

    /// A bit of a file rots.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut world = self.world();
        let node = world.names.find(path)?;
        let content = world.names.file(node)?;
        if offset >= content.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.flip_bit(offset as usize, bit);
        Ok(())
    }

    /// Begins to record changes, dropping what was recorded before.
    pub fn record(&self) {
        self.world().trace = Some(Vec::new());
    }

    /// The changes since [`SimDisk::record`].
    pub fn trace(&self) -> Vec<DiskOp> {
        self.world().trace.clone().unwrap_or_default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nothing panics while it holds the simulated disk")
    }

    /// The disk as this mount may use it.
    fn mounted(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        if world.mount != self.mount {
            return Err(io::Error::other("this mount ended with its process"));
        }
        if world.ops >= world.ops_max {
            return Err(io::Error::other("the power is off"));
        }
        Ok(world)
    }
}

impl World {
    /// Counts and records a change; says whether it is to happen.
    fn admit(&mut self, op: DiskOp) -> io::Result<bool> {
        self.ops += 1;
        let fate = self.hook.as_ref().map_or(Fate::Obey, |hook| hook(&op));
        if let Some(trace) = &mut self.trace {
            trace.push(op);
        }
        match fate {
            Fate::Obey => Ok(true),
            Fate::Skip => Ok(false),
            Fate::Fail(kind) => Err(kind.into()),
        }
    }

    fn path_of(&self, node: NodeId) -> PathBuf {
        self.names.path_of(node).unwrap_or_default()
    }

    /// Reserves the growth of a file to `end`; answers how far it may grow.
    fn grow(&mut self, len: u64, end: u64) -> u64 {
        let free = self.budget_bytes.saturating_sub(self.used_bytes);
        let growth = end.saturating_sub(len).min(free);
        self.used_bytes += growth;
        (len + growth).min(end)
    }

    fn write(&mut self, node: NodeId, buf: &[u8], offset: u64) -> io::Result<()> {
        let op = DiskOp::Write { path: self.path_of(node), offset, bytes: buf.len() as u64 };
        let mut stored = buf.len();
        let outcome = match self.admit(op) {
            Ok(false) => return Ok(()),
            Ok(true) => Ok(()),
            Err(error) => {
                let sectors = (buf.len() / SECTOR_BYTES) as u64;
                stored = self.rng.below(sectors + 1) as usize * SECTOR_BYTES;
                Err(error)
            }
        };
        let len = self.names.file(node)?.len() as u64;
        let end = offset + stored as u64;
        let room = self.grow(len, end).saturating_sub(offset).min(stored as u64) as usize;
        let World { names, rng, .. } = self;
        names.file(node)?.write(&buf[..room], offset as usize, rng);
        if room < stored { Err(io::ErrorKind::StorageFull.into()) } else { outcome }
    }

    fn set_len(&mut self, node: NodeId, bytes: u64) -> io::Result<()> {
        let op = DiskOp::SetLen { path: self.path_of(node), bytes };
        if !self.admit(op)? {
            return Ok(());
        }
        let len = self.names.file(node)?.len() as u64;
        if self.grow(len, bytes) < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used_bytes -= len.saturating_sub(bytes);
        let World { names, rng, .. } = self;
        names.file(node)?.set_len(bytes as usize, rng);
        Ok(())
    }

    fn sync_data(&mut self, node: NodeId) -> io::Result<()> {
        let op = DiskOp::SyncData(self.path_of(node));
        match self.admit(op) {
            Ok(true) => self.names.file(node)?.sync(),
            Ok(false) => {}
            Err(error) => {
                self.names.file(node)?.fail_sync();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes a change of names; the space of what lost its name is free.
    fn rearrange(
        &mut self,
        op: DiskOp,
        change: impl FnOnce(&mut Names) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.admit(op)? {
            change(&mut self.names)?;
            self.used_bytes = self.names.used_bytes();
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut world = self.mounted()?;
        let node = if how == Open::CreateNew {
            world.admit(DiskOp::Create(path.into()))?;
            world.names.create_file(path)?
        } else {
            let node = world.names.find(path)?;
            world.names.file(node)?;
            node
        };
        Ok(Arc::new(SimFile { disk: self.clone(), node, writable: how != Open::Read }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.mounted()?;
        if world.names.list(path).is_ok() {
            return Ok(());
        }
        world.rearrange(DiskOp::CreateDir(path.into()), |names| names.create_dir_all(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.mounted()?.names.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = DiskOp::Rename { from: from.into(), to: to.into() };
        self.mounted()?.rearrange(op, |names| names.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.mounted()?.rearrange(DiskOp::Remove(path.into()), |names| names.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.mounted()?;
        if world.names.find(path).is_err() {
            return Ok(());
        }
        world.rearrange(DiskOp::Remove(path.into()), |names| names.remove_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.mounted()?;
        let node = world.names.find(dir)?;
        world.rearrange(DiskOp::SyncDir(dir.into()), |names| {
            names.sync_dir(node);
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.mounted()?.names.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let mut world = self.mounted()?;
        match world.locks.insert((self.mount, path.into())) {
            true => Ok(Box::new(SimLock { disk: self.clone(), path: path.into() })),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl SimFile {
    fn for_writing(&self) -> io::Result<MutexGuard<'_, World>> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.mounted()
    }
}

/// A held lock of a simulated disk.
#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let held = (self.disk.mount, std::mem::take(&mut self.path));
        self.disk.world().locks.remove(&held);
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
