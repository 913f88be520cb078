//! Event sinks: followers of the store that receive the changes of each chunk of entries as soon as
//! readers can see them.
//!
//! The apply lane calls a sink before it answers the proposers of the changes. So a sink must not
//! block, and its work delays every write: it records the changes, and processes them elsewhere.
//!
//! Invariants: a sink receives every record once, in ascending order of id, whole revisions at a
//! time. The exception is a snapshot that replaces the state: then [`EventSink::replaced`] reports
//! that records may be missing, and a sink that needs them reads them from the history.

use std::{fmt::Debug, sync::Arc};

use super::storage::Record;
use crate::types::{Lease, LeaseId, Revision};

/// The changes of one chunk of entries.
#[derive(Debug)]
pub struct Published<'a> {
    /// The store's current revision.
    pub revision: Revision,
    /// Puts and tombstones, in ascending order of id.
    pub records: &'a [Arc<Record>],
    pub leases: &'a [LeaseChange],
}

/// A change of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    Granted(Lease),
    /// Checkpointed, or renewed after a checkpoint: the lease as it is now.
    Changed(Lease),
    /// Revoked or expired.
    Ended(LeaseId),
}

/// Follows the store.
pub trait EventSink: Debug + Send + Sync + 'static {
    /// Readers see these changes now.
    fn published(&self, changes: &Published<'_>);

    /// A snapshot replaced the whole state: keys, leases and members. The arguments are those of
    /// the new state.
    fn replaced(&self, revision: Revision, compacted: Revision);
}
