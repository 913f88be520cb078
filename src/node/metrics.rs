//! What one member counts of the requests that came to it.

use std::time::Duration;

use crate::{
    metrics::{Counter, Histogram, doubling},
    types::{Txn, TxnOp},
};

static RANGE: [Duration; 20] = doubling(Duration::from_micros(100));
static HASH: [Duration; 15] = doubling(Duration::from_millis(10));

/// Since this member started.
#[derive(Debug)]
pub struct NodeMetrics {
    /// Proposals that got no reply from the state machine.
    pub proposals_failed: Counter,
    /// Rounds for a read index that had to be asked again, or came too late.
    pub slow_read_indexes: Counter,
    /// Rounds for a read index that gave none.
    pub read_indexes_failed: Counter,
    /// Ranges read by this member, in transactions that only read too.
    pub ranges: Counter,
    /// Transactions of more than one operation that only read.
    pub read_txns: Counter,
    /// Reading a range, once it may be read.
    pub range: Histogram,
    pub range_failed: Histogram,
    /// Reads from the disk that took longer than [`crate::raft::SLOW`].
    pub slow_reads: Counter,
    /// Hashing the keys.
    pub hash: Histogram,
}

impl Default for NodeMetrics {
    fn default() -> NodeMetrics {
        NodeMetrics {
            proposals_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            read_indexes_failed: Counter::default(),
            ranges: Counter::default(),
            read_txns: Counter::default(),
            range: Histogram::new(&RANGE),
            range_failed: Histogram::new(&RANGE),
            slow_reads: Counter::default(),
            hash: Histogram::new(&HASH),
        }
    }
}

impl NodeMetrics {
    /// Counts a transaction that only reads by its longer branch: which of them is taken is known
    /// only inside.
    pub(super) fn count_txn(&self, txn: &Txn) {
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
