//! Changes of a simulated disk, as traces record them and hooks see them.

use std::{io, path::PathBuf, sync::Arc};

/// One change. Paths are those at the time of the change.
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

/// The decision of a hook about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookAction {
    /// Make the change.
    Proceed,
    /// Report success without making the change, like a forgotten sync. (A creation still happens.)
    Skip,
    /// Fail with this kind of error. A write has stored a part by then.
    Fail(io::ErrorKind),
}

pub type Hook = Arc<dyn Fn(&DiskOp) -> HookAction + Send + Sync>;
