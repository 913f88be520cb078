//! Metrics of the requests to one member.

use std::time::Duration;

use crate::{
    metrics::{Counter, Histogram, exponential_buckets},
    types::{Txn, TxnOp},
};

static RANGE_BUCKETS: [Duration; 20] = exponential_buckets(Duration::from_micros(100));
static HASH_BUCKETS: [Duration; 15] = exponential_buckets(Duration::from_millis(10));

/// Since this member started.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Proposals that got no reply from the state machine.
    pub proposals_failed: Counter,
    /// Read-index rounds that had to be repeated, or came too late.
    pub slow_read_indexes: Counter,
    /// Read-index rounds that failed.
    pub read_indexes_failed: Counter,
    /// Ranges read by this member, including those in read-only transactions.
    pub ranges: Counter,
    /// Read-only transactions of more than one operation.
    pub read_txns: Counter,
    /// Time to read a range, without the wait for the read index.
    pub range_duration: Histogram,
    pub failed_range_duration: Histogram,
    /// Reads from the disk that took longer than [`crate::raft::WARNING_APPLY_DURATION`].
    pub slow_reads: Counter,
    /// Time to hash all keys.
    pub hash_duration: Histogram,
}

impl Default for NodeMetrics {
    fn default() -> NodeMetrics {
        NodeMetrics {
            proposals_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            read_indexes_failed: Counter::default(),
            ranges: Counter::default(),
            read_txns: Counter::default(),
            range_duration: Histogram::new(&RANGE_BUCKETS),
            failed_range_duration: Histogram::new(&RANGE_BUCKETS),
            slow_reads: Counter::default(),
            hash_duration: Histogram::new(&HASH_BUCKETS),
        }
    }
}

impl NodeMetrics {
    /// Counts a read-only transaction by its longer branch; the branch that is taken is known only
    /// inside the state.
    pub fn count_txn(&self, txn: &Txn) {
        let ranges = ranges(txn);
        self.ranges.add(ranges);
        if ranges > 1 {
            self.read_txns.increment();
        }
    }
}

fn ranges(txn: &Txn) -> u64 {
    let of = |ops: &[TxnOp]| {
        ops.iter()
            .map(|op| match op {
                TxnOp::Txn(nested) => ranges(nested),
                _ => 1,
            })
            .sum()
    };
    u64::max(of(&txn.success), of(&txn.failure))
}
