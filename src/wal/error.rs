//! Errors of a log.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use crate::types::MemberId;

/// Why the log refuses to open, read or write. Clones share the cause.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// The disk has lost or changed written bytes, or the file was never part of a log.
    #[error("{file} at offset {offset}: {problem}")]
    Damaged { file: PathBuf, offset: u64, problem: String },
    /// A segment of another incarnation.
    #[error("{file}: a segment of member {found}; this is member {expected}")]
    Foreign { file: PathBuf, found: MemberId, expected: MemberId },
    /// The file system is full. The log has stopped, and opens clean once there is space.
    #[error("{file} at offset {offset}: no space left on the disk")]
    Full { file: PathBuf, offset: u64 },
    /// The operating system refused.
    #[error("{file} at offset {offset}: cannot {action}: {cause}")]
    Io { file: PathBuf, offset: u64, action: &'static str, cause: Arc<io::Error> },
    /// The entry was dropped from the front of the log; a snapshot covers it.
    #[error("log entry {index} was purged; the first is {first}")]
    Purged { index: u64, first: u64 },
    /// The log was closed, or its lane is gone.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub fn damaged(file: &Path, offset: u64, problem: impl Into<String>) -> WalError {
        WalError::Damaged { file: file.into(), offset, problem: problem.into() }
    }

    pub fn io(
        file: &Path,
        offset: u64,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> WalError {
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                WalError::Full { file: file.into(), offset }
            }
            _ => WalError::Io { file: file.into(), offset, action, cause: Arc::new(cause) },
        }
    }
}
