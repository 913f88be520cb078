//! What a stream of watches answers.

use bytes::Bytes;

use crate::types::Revision;

/// One message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// -1: no watch in particular.
    pub watch_id: i64,
    /// The header's. Of events and progress: the watch has heard of all up to here.
    pub revision: Revision,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The watch is there.
    Created,
    /// There will be no such watch.
    Refused(Refusal),
    /// The watch is gone, as was asked.
    Canceled,
    /// The watch is gone: what it needs was compacted. It may start from this revision again.
    Compacted(Revision),
    /// Nothing happened that the watch has not heard of.
    Progress,
    Events {
        /// As fields of a `WatchResponse`.
        encoded: Bytes,
        /// The next message has more of the same revision.
        more: bool,
    },
}

impl Response {
    pub(super) fn events_bytes(&self) -> usize {
        match &self.kind {
            Kind::Events { encoded, .. } => encoded.len(),
            _ => 0,
        }
    }
}

/// Why a watch was not created. The texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would start from a negative revision.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// This member has as many as it can keep in memory.
    #[error("etcdserver: too many requests")]
    TooMany,
}
