//! Errors of the state machine and of reads.

use super::{schema::SchemaError, storage::StorageError};
use crate::types::{CommandError, RecordId};

/// An error that must stop the member: continuing would make its state differ from the others'.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The records contradict each other or the tables.
    #[error("record {id}: {problem}")]
    Record { id: RecordId, problem: &'static str },
}

/// Why a read or command failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Deterministic: every member refuses the request.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// This member cannot read its disk and must stop.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
