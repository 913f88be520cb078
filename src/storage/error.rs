//! What can go wrong between the state machine and the disk. Every variant names its file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{state::StorageError, types::LogPosition};

/// Why storage could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused. Never retried.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },

    /// The bytes are not those that were written.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged { path: PathBuf, offset: u64, what: &'static str },

    /// The table engine failed, panicked, or holds something else than what was put in.
    #[error("tables {}: {what}", path.display())]
    Tables { path: PathBuf, what: String },

    /// The tables are unusable, and what they could be rebuilt from is not there.
    #[error("the tables cannot be used ({reason}) and not be rebuilt: {missing}")]
    CannotRebuild { reason: String, missing: String },

    /// What a peer offered or sent is not a snapshot that can be taken over.
    #[error("snapshot refused: {0}")]
    Refused(String),

    /// An offered snapshot would turn the state back.
    #[error("snapshot at {offered:?} refused: the state is already at {applied:?}")]
    Stale { offered: LogPosition, applied: LogPosition },

    /// Nothing was applied yet, so there is nothing to take a snapshot of.
    #[error("nothing has been applied yet")]
    NothingYet,

    /// A lane could not be started.
    #[error("cannot start a lane: {0}")]
    Lane(String),

    /// The state writer was closed, or has failed and stopped the member.
    #[error("the state writer has stopped")]
    Stopped,
}

impl StoreError {
    /// For `map_err` on a call to the disk port.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Whether only what was asked is at fault, and the store is as it was.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, StoreError::Refused(_) | StoreError::Stale { .. } | StoreError::NothingYet)
    }

    pub(super) fn damaged(path: &Path, offset: u64, what: &'static str) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), offset, what }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> StorageError {
        StorageError::Damaged(error.to_string().into())
    }
}
