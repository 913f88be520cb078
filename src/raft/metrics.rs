//! Metrics of one member's Raft.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    metrics::{Counter, Gauge, Histogram, Labelled, Unit, exponential_buckets},
    types::{MemberId, OpReply, Reply, TxnReply},
};

static APPLY_BUCKETS: [Duration; 20] = exponential_buckets(Duration::from_micros(100));
static ROUND_TRIP_BUCKETS: [Duration; 16] = exponential_buckets(Duration::from_micros(100));
static SNAPSHOT_BUCKETS: [Duration; 10] = exponential_buckets(Duration::from_millis(100));
static COMPACTION_STEP_BUCKETS: [Duration; 13] = exponential_buckets(Duration::from_millis(1));
static COMPACTION_BUCKETS: [Duration; 14] = exponential_buckets(Duration::from_millis(100));

/// Counters since this member started.
#[derive(Debug)]
pub struct ConsensusMetrics {
    /// Changes to another leader, or from none to one.
    pub leader_changes: Counter,
    /// Heartbeats sent so late that a slow machine or disk must be the cause.
    pub late_heartbeats: Counter,
    /// Time to apply a chunk of entries, from the first decoded to the last published.
    pub apply: Histogram,
    /// Chunks that took longer than [`super::WARNING_APPLY_DURATION`].
    pub slow_applies: Counter,
    /// Snapshots being installed.
    pub installing: Gauge,
    pub operations: OperationCounts,
    /// Time of one step of a compaction, which blocks the apply lane.
    pub compaction_step: Histogram,
    /// Time from the first step of a compaction to its last.
    pub compaction: Histogram,
    compacted_at: Mutex<Option<Instant>>,
    /// Records that compactions have discarded.
    pub compacted_records: Counter,
    /// Learners that this member promoted as the leader.
    pub promoted: Counter,
    /// Promotions that failed.
    pub not_promoted: Counter,
    /// Every other member that this one has exchanged messages with.
    pub peers: Labelled<MemberId, PeerMetrics>,
}

impl Default for ConsensusMetrics {
    fn default() -> ConsensusMetrics {
        ConsensusMetrics {
            leader_changes: Counter::default(),
            late_heartbeats: Counter::default(),
            apply: Histogram::new(&APPLY_BUCKETS),
            slow_applies: Counter::default(),
            installing: Gauge::default(),
            operations: OperationCounts::default(),
            compaction_step: Histogram::with_unit(Unit::Milliseconds, &COMPACTION_STEP_BUCKETS),
            compaction: Histogram::with_unit(Unit::Milliseconds, &COMPACTION_BUCKETS),
            compacted_at: Mutex::default(),
            compacted_records: Counter::default(),
            promoted: Counter::default(),
            not_promoted: Counter::default(),
            peers: Labelled::default(),
        }
    }
}

impl ConsensusMetrics {
    pub fn compacted(&self, took: Duration) {
        self.compaction.observe(took);
        *self.compacted_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Time since the last compaction ended.
    pub fn last_compaction(&self) -> Option<Duration> {
        let at = self.compacted_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.map(|at| at.elapsed())
    }
}

/// Metrics of the exchange with one other member.
#[derive(Debug)]
pub struct PeerMetrics {
    /// Time from a heartbeat to its reply.
    pub round_trip: Histogram,
    /// Messages without a reply.
    pub send_failures: Counter,
    pub sent: SnapshotMetrics,
    pub received: SnapshotMetrics,
}

impl Default for PeerMetrics {
    fn default() -> PeerMetrics {
        PeerMetrics {
            round_trip: Histogram::new(&ROUND_TRIP_BUCKETS),
            send_failures: Counter::default(),
            sent: SnapshotMetrics::default(),
            received: SnapshotMetrics::default(),
        }
    }
}

/// Snapshots in one direction.
#[derive(Debug)]
pub struct SnapshotMetrics {
    pub under_way: Gauge,
    pub succeeded: Counter,
    pub failed: Counter,
    /// Bytes that receivers have acknowledged, in failed transfers too.
    pub acknowledged_bytes: Counter,
    /// Duration of successful transfers.
    pub took: Histogram,
}

impl Default for SnapshotMetrics {
    fn default() -> SnapshotMetrics {
        SnapshotMetrics {
            under_way: Gauge::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            acknowledged_bytes: Counter::default(),
            took: Histogram::new(&SNAPSHOT_BUCKETS),
        }
    }
}

impl SnapshotMetrics {
    pub fn record(&self, succeeded: bool, took: Duration) {
        if succeeded {
            self.succeeded.increment();
            self.took.observe(took);
        } else {
            self.failed.increment();
        }
    }
}

/// Operations in applied commands, as etcd counts them.
#[derive(Debug, Default)]
pub struct OperationCounts {
    pub puts: Counter,
    pub deletes: Counter,
    pub ranges: Counter,
    /// Transactions of more than one operation.
    pub txns: Counter,
}

impl OperationCounts {
    pub fn count(&self, reply: &Reply) {
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

    /// Returns the number of operations in the transaction.
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
        let operations = OperationCounts::default();
        let put = || OpReply::Put(Default::default());
        let nested = TxnReply { responses: vec![put(), put()], ..TxnReply::default() };
        let reply = TxnReply { responses: vec![OpReply::Txn(nested)], ..TxnReply::default() };
        operations.count(&Reply::Txn { revision: Revision(2), reply });
        let one = TxnReply { responses: vec![put()], ..TxnReply::default() };
        operations.count(&Reply::Txn { revision: Revision(3), reply: one });
        assert_eq!((operations.puts.get(), operations.txns.get()), (3, 1));
    }
}
