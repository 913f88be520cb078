//! Who follows the store: what a chunk of entries changed, told as soon as readers can see it.
//!
//! A sink is told on the apply lane, before whoever proposed the changes is answered. So it must not
//! block, and what it does costs every write: it takes note, and works elsewhere.
//!
//! Invariants: every record is told once, in ascending order of id, whole revisions at a time, unless
//! a snapshot replaced the state: then [`EventSink::replaced`] says that records may be missing, and
//! the sink reads them from the history if it needs them.

use std::{fmt::Debug, sync::Arc};

use super::storage::Record;
use crate::types::{Lease, LeaseId, Revision};

/// What one chunk of entries changed.
#[derive(Debug)]
pub struct Published<'a> {
    /// The store's revision now.
    pub revision: Revision,
    /// Reads and watches before this revision are refused now. -1: nothing was compacted ever.
    pub compacted: Revision,
    /// In ascending order of id: puts, and the marks of deletions.
    pub records: &'a [Arc<Record>],
    pub leases: &'a [LeaseChange],
}

/// What became of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    Granted(Lease),
    /// Checkpointed, or renewed after it was: this is what it is now.
    Changed(Lease),
    /// Revoked or expired.
    Gone(LeaseId),
}

/// Follows the store.
pub trait EventSink: Debug + Send + Sync + 'static {
    /// Readers see this now.
    fn published(&self, changes: &Published<'_>);

    /// A snapshot took the place of the state: keys, leases and all, at this revision now.
    fn replaced(&self, revision: Revision, compacted: Revision);
}
