//! An open connection's place among those of its port, and their counters.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::Counter;

/// The connections of one port since the process started.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    pub accepted: Counter,
    pub ended: Counter,
}

impl ConnectionCounters {
    pub fn open(&self) -> u64 {
        // In this order, a connection that comes and goes in between is not counted as ended only.
        let ended = self.ended.get();
        self.accepted.get().saturating_sub(ended)
    }
}

/// An open connection's place among those of its port.
#[derive(Debug)]
pub struct ConnectionPermit {
    _room: OwnedSemaphorePermit,
    counts: Arc<ConnectionCounters>,
}

impl ConnectionPermit {
    /// Counts the connection as accepted, and as ended when the permit is dropped.
    pub fn new(room: OwnedSemaphorePermit, counts: Arc<ConnectionCounters>) -> ConnectionPermit {
        counts.accepted.increment();
        ConnectionPermit { _room: room, counts }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.counts.ended.increment();
    }
}
