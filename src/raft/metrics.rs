//! What one member's Raft counts and measures.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    metrics::{Counter, Gauge, Histogram, Labelled, Unit, doubling},
    types::{MemberId, OpReply, Reply, TxnReply},
};

static APPLY: [Duration; 20] = doubling(Duration::from_micros(100));
static ROUND_TRIP: [Duration; 16] = doubling(Duration::from_micros(100));
static SNAPSHOT: [Duration; 10] = doubling(Duration::from_millis(100));
static PAUSE: [Duration; 13] = doubling(Duration::from_millis(1));
static COMPACTION: [Duration; 14] = doubling(Duration::from_millis(100));

/// Since this member started.
#[derive(Debug)]
pub struct ConsensusMetrics {
    /// Another leader than before, or one again.
    pub leader_changes: Counter,
    /// Heartbeats that went out so late that a slow machine or disk must be the cause.
    pub late_heartbeats: Counter,
    /// A chunk of entries, from the first decoded to the last published.
    pub apply: Histogram,
    /// Of those, the ones that took longer than [`super::SLOW`].
    pub slow_applies: Counter,
    /// A snapshot is being put in the place of the state.
    pub installing: Gauge,
    pub operations: Operations,
    /// One step of a compaction: nothing else is applied meanwhile.
    pub compaction_step: Histogram,
    /// From the first step to the last.
    pub compaction: Histogram,
    compacted_at: Mutex<Option<Instant>>,
    /// Records that compactions took away.
    pub compacted_records: Counter,
    /// As the leader.
    pub promoted: Counter,
    pub not_promoted: Counter,
    /// All other members that there was something to do with.
    pub peers: Labelled<MemberId, PeerCounts>,
}

impl Default for ConsensusMetrics {
    fn default() -> ConsensusMetrics {
        ConsensusMetrics {
            leader_changes: Counter::default(),
            late_heartbeats: Counter::default(),
            apply: Histogram::new(&APPLY),
            slow_applies: Counter::default(),
            installing: Gauge::default(),
            operations: Operations::default(),
            compaction_step: Histogram::shown_in(Unit::Milliseconds, &PAUSE),
            compaction: Histogram::shown_in(Unit::Milliseconds, &COMPACTION),
            compacted_at: Mutex::default(),
            compacted_records: Counter::default(),
            promoted: Counter::default(),
            not_promoted: Counter::default(),
            peers: Labelled::default(),
        }
    }
}

impl ConsensusMetrics {
    pub(super) fn compacted(&self, took: Duration) {
        self.compaction.observe(took);
        *self.compacted_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago a compaction ended.
    pub fn last_compaction(&self) -> Option<Duration> {
        let at = self.compacted_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.map(|at| at.elapsed())
    }
}

/// What concerns one other member.
#[derive(Debug)]
pub struct PeerCounts {
    /// From a heartbeat to its answer.
    pub round_trip: Histogram,
    /// Messages that got no answer.
    pub send_failures: Counter,
    pub sent: SnapshotCounts,
    pub received: SnapshotCounts,
}

impl Default for PeerCounts {
    fn default() -> PeerCounts {
        PeerCounts {
            round_trip: Histogram::new(&ROUND_TRIP),
            send_failures: Counter::default(),
            sent: SnapshotCounts::default(),
            received: SnapshotCounts::default(),
        }
    }
}

/// Snapshots in one direction.
#[derive(Debug)]
pub struct SnapshotCounts {
    pub under_way: Gauge,
    pub succeeded: Counter,
    pub failed: Counter,
    /// Of those that succeeded.
    pub took: Histogram,
}

impl Default for SnapshotCounts {
    fn default() -> SnapshotCounts {
        SnapshotCounts {
            under_way: Gauge::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            took: Histogram::new(&SNAPSHOT),
        }
    }
}

impl SnapshotCounts {
    pub(super) fn ended(&self, well: bool, took: Duration) {
        if well {
            self.succeeded.increment();
            self.took.observe(took);
        } else {
            self.failed.increment();
        }
    }
}

/// Operations that applied commands were made of, as etcd counts them.
#[derive(Debug, Default)]
pub struct Operations {
    pub puts: Counter,
    pub deletes: Counter,
    pub ranges: Counter,
    /// Transactions of more than one operation.
    pub txns: Counter,
}

impl Operations {
    pub(super) fn count(&self, reply: &Reply) {
        match reply {
            Reply::Put { .. } => self.puts.increment(),
            Reply::DeleteRange { .. } => self.deletes.increment(),
            Reply::Txn { reply, .. } => {
                let several = self.count_txn(reply) > 1;
                self.txns.add(several.into());
            }
            _ => {}
        }
    }

    /// Says how many there were.
    fn count_txn(&self, txn: &TxnReply) -> usize {
        let count = |op: &OpReply| match op {
            OpReply::Put(_) => {
                self.puts.increment();
                1
            }
            OpReply::DeleteRange(_) => {
                self.deletes.increment();
                1
            }
            OpReply::Range(_) => {
                self.ranges.increment();
                1
            }
            OpReply::Txn(nested) => self.count_txn(nested),
        };
        txn.responses.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Revision;

    #[test]
    fn a_transaction_counts_with_all_that_is_in_it() {
        let operations = Operations::default();
        let put = || OpReply::Put(Default::default());
        let nested = TxnReply { responses: vec![put(), put()], ..TxnReply::default() };
        let reply = TxnReply { responses: vec![OpReply::Txn(nested)], ..TxnReply::default() };
        operations.count(&Reply::Txn { revision: Revision(2), reply });
        let one = TxnReply { responses: vec![put()], ..TxnReply::default() };
        operations.count(&Reply::Txn { revision: Revision(3), reply: one });
        assert_eq!((operations.puts.get(), operations.txns.get()), (3, 1));
    }
}
