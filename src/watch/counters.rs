//! Counters of the watch lane, for metrics.

use crate::metrics::{Counter, Gauge};

/// One member's watches.
#[derive(Debug, Default)]
pub struct Counters {
    pub streams: Gauge,
    pub watchers: Gauge,
    /// Watches that are not synced: unsynced ones and victims.
    pub slow_watchers: Gauge,
    /// Events in queues, counted once for each watch that receives them.
    pub pending_events: Gauge,
    /// Events sent, counted once for each watch that received them.
    pub events_total: Counter,
    /// Watches canceled because the revision they needed was compacted.
    pub compacted_total: Counter,
    /// Bytes of all streams, in queues and in the transport.
    pub queued_bytes: Gauge,
}
