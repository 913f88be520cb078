//! Errors of the storage. Each names its file, if there is one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{state::StorageError, types::LogPosition};

/// Why a request to the storage failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A system call failed. Never retried.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },

    /// The file does not contain the bytes that were written.
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Damaged { path: PathBuf, offset: u64, problem: &'static str },

    /// The table engine failed or panicked, or its content is wrong.
    #[error("tables {}: {problem}", path.display())]
    Tables { path: PathBuf, problem: String },

    /// The tables are unusable, and the data to rebuild them is missing.
    #[error("tables unusable ({reason}) and cannot be rebuilt: {missing}")]
    CannotRebuild { reason: String, missing: String },

    /// A peer offered or sent an invalid snapshot.
    #[error("snapshot refused: {0}")]
    Refused(String),

    /// An offered snapshot is older than the state.
    #[error("snapshot at {offered:?} refused: the state is already at {applied:?}")]
    Stale { offered: LogPosition, applied: LogPosition },

    /// There is no state to take a snapshot of.
    #[error("no entry is applied yet")]
    NothingApplied,

    /// A lane could not be started.
    #[error("cannot start a lane: {0}")]
    Lane(String),

    /// The state writer was closed, or has failed and stopped the member.
    #[error("the state writer has stopped")]
    Stopped,
}

impl StoreError {
    /// For `map_err` on a call to the disk port.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Whether only the request is wrong, and the store is unchanged.
    pub fn is_refusal(&self) -> bool {
        use StoreError::{NothingApplied, Refused, Stale};
        matches!(self, Refused(_) | Stale { .. } | NothingApplied)
    }

    pub fn damaged(path: &Path, offset: u64, problem: &'static str) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), offset, problem }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> StorageError {
        StorageError::Damaged(error.to_string().into())
    }
}
