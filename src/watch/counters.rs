//! What watching looks like from outside.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers for metrics. Gauges but for those that say `total`.
#[derive(Debug, Default)]
pub struct Counters {
    pub streams: Counter,
    pub watchers: Counter,
    /// Watchers that read history, or wait for their stream to have room.
    pub slow: Counter,
    /// Events in queues, counted once for each watcher that gets them.
    pub pending_events: Counter,
    /// Events that were sent, counted once for each watcher that got them.
    pub events_total: Counter,
    /// Watchers that fell behind until what they missed was compacted.
    pub cut_off_total: Counter,
    /// Bytes of all streams, in queues and at the transport.
    pub queued_bytes: Counter,
}

/// One number. Changed by one thread at a time or by several; read at any time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}
