//! Messages between the lanes. A leaf: it imports no lane, so that all of them can import it.

use std::sync::Arc;

use super::{
    events::{EncodedEvents, EventOptions},
    groups::WatchGroup,
    outbox::Outbox,
};
use crate::{
    state::ReadError,
    types::{KeyRange, Revision},
};

/// Identifies a stream; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// A client's request to create a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatch {
    /// Zero: the hub chooses the next free ID.
    pub watch_id: i64,
    pub keys: KeyRange,
    /// The first revision to deliver. Zero: the next one.
    pub start_revision: Revision,
    pub options: EventOptions,
    /// Send a progress message when the watch delivered nothing between two
    /// [ticks](super::WatchStream::tick).
    pub progress_notify: bool,
}

/// Messages to the hub. The queue is bounded by the outstanding requests of each stream, plus a few
/// messages of each other kind.
#[derive(Debug)]
pub enum HubMessage {
    /// The feed has new changes.
    Published,
    /// With the address of the client.
    Open(StreamId, Arc<Outbox>, Box<str>),
    Create(StreamId, Box<NewWatch>),
    Cancel(StreamId, i64),
    Progress(StreamId),
    Tick(StreamId),
    /// The queue of a stream with victims is empty again.
    Drained(StreamId),
    Close(StreamId),
    /// The result of the latest [`HistoryJob`].
    HistoryRead(Result<HistoryBatch, ReadError>),
}

/// One read of the history, for several groups of watches.
#[derive(Debug)]
pub struct HistoryJob {
    pub from: Revision,
    /// The hub's position. The view may already show later revisions: the feed will deliver those, so the
    /// job must not.
    pub to: Revision,
    pub groups: Arc<[WatchGroup]>,
}

/// The events from the job's `from` up to, and without, `next`, in order of the job's groups. A group
/// that starts in between gets the rest; a group that starts later gets nothing.
#[derive(Debug)]
pub struct HistoryBatch {
    pub next: Revision,
    /// The position of a group in the job, and its events.
    pub events: Vec<(usize, EncodedEvents)>,
}
