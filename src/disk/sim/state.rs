//! The state of a simulated disk that all its mounts share.

use std::{collections::BTreeSet, io, path::PathBuf};

use super::{
    crash::Crash,
    dir_tree::{DirTree, NodeId},
    file_content::SECTOR_BYTES,
    op::{DiskOp, Hook, HookAction},
    rng::SimRng,
};

#[derive(Clone)]
pub struct SimState {
    pub names: DirTree,
    pub rng: SimRng,
    pub mount: u64,
    /// Held file locks, each with its mount, so that a crash releases them.
    pub locks: BTreeSet<(u64, PathBuf)>,
    pub budget_bytes: u64,
    pub used_bytes: u64,
    /// Number of changes so far.
    pub ops: u64,
    /// The power is off from this number of changes on.
    pub ops_max: u64,
    pub hook: Option<Hook>,
    pub trace: Option<Vec<DiskOp>>,
}

impl SimState {
    pub fn new(rng: SimRng) -> SimState {
        SimState {
            names: DirTree::new(),
            rng,
            mount: 0,
            locks: BTreeSet::new(),
            budget_bytes: u64::MAX,
            used_bytes: 0,
            ops: 0,
            ops_max: u64::MAX,
            hook: None,
            trace: None,
        }
    }

    pub fn crash(&mut self, how: Crash) {
        self.names.crash(how, &mut self.rng);
        self.used_bytes = self.names.used_bytes();
    }

    /// Counts and records a change. Returns whether it must happen.
    pub fn admit(&mut self, op: DiskOp) -> io::Result<bool> {
        self.ops += 1;
        let action = self.hook.as_ref().map_or(HookAction::Proceed, |hook| hook(&op));
        if let Some(trace) = &mut self.trace {
            trace.push(op);
        }
        match action {
            HookAction::Proceed => Ok(true),
            HookAction::Skip => Ok(false),
            HookAction::Fail(kind) => Err(kind.into()),
        }
    }

    fn path_of(&self, node: NodeId) -> PathBuf {
        self.names.path_of(node).unwrap_or_default()
    }

    /// Reserves the growth of a file to `end`. Returns the length that it may reach.
    fn grow(&mut self, len: u64, end: u64) -> u64 {
        let free = self.budget_bytes.saturating_sub(self.used_bytes);
        let growth = end.saturating_sub(len).min(free);
        self.used_bytes += growth;
        (len + growth).min(end)
    }

    pub fn write(&mut self, node: NodeId, buf: &[u8], offset: u64) -> io::Result<()> {
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
        let SimState { names, rng, .. } = self;
        names.file(node)?.write(&buf[..room], offset as usize, rng);
        if room < stored { Err(io::ErrorKind::StorageFull.into()) } else { outcome }
    }

    pub fn set_len(&mut self, node: NodeId, bytes: u64) -> io::Result<()> {
        let op = DiskOp::SetLen { path: self.path_of(node), bytes };
        if !self.admit(op)? {
            return Ok(());
        }
        let len = self.names.file(node)?.len() as u64;
        if self.grow(len, bytes) < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used_bytes -= len.saturating_sub(bytes);
        let SimState { names, rng, .. } = self;
        names.file(node)?.set_len(bytes as usize, rng);
        Ok(())
    }

    pub fn sync_data(&mut self, node: NodeId) -> io::Result<()> {
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

    /// Changes names, and frees the space of files that have lost theirs.
    pub fn change_names(
        &mut self,
        op: DiskOp,
        change: impl FnOnce(&mut DirTree) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.admit(op)? {
            change(&mut self.names)?;
            self.used_bytes = self.names.used_bytes();
        }
        Ok(())
    }
}
