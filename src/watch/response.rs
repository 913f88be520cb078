//! The messages that a stream sends to its client.

use bytes::Bytes;

use crate::types::Revision;

/// One message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// -1: the message concerns all watches of the stream, or none.
    pub watch_id: i64,
    /// The revision in the header. In event and progress messages, the watch has delivered all events up
    /// to it.
    pub revision: Revision,
    pub kind: ResponseKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseKind {
    Created,
    CreateFailed(CreateError),
    /// The client canceled the watch.
    Canceled,
    /// The hub canceled the watch: a compaction removed revisions that it needs. A new watch may start
    /// at this revision.
    Compacted(Revision),
    Progress,
    Events {
        /// As fields of a `WatchResponse`.
        encoded: Bytes,
        /// A fragment: the next message has more events of the same revision.
        fragment: bool,
    },
}

impl Response {
    pub fn events_bytes(&self) -> usize {
        match &self.kind {
            ResponseKind::Events { encoded, .. } => encoded.len(),
            _ => 0,
        }
    }
}

/// Why the hub did not create a watch. The texts are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The start revision is negative.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// [`Limits::watches_bytes`](super::Limits::watches_bytes) is reached.
    #[error("etcdserver: too many requests")]
    TooMany,
}
