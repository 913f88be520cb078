//! The quota: bounds the live bytes of the store.
//!
//! The rule is etcd's: a command is refused when the live bytes and its own cost reach the quota, and
//! a command that stores nothing costs nothing. The refusal raises NOSPACE. Unlike etcd's, the alarm
//! clears itself: it holds as long as the largest refused command would be refused again (ADR 9).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{Command, Put, Txn, TxnOp};

/// The cost of a put in addition to its key and value.
const PUT_OVERHEAD_BYTES: u64 = 256;
const LEASE_BYTES: u64 = 64;

/// Bytes that a command adds to the store, at most. Zero: the command needs no room.
pub fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost(put),
        Command::Txn(txn) => txn_cost(txn),
        Command::LeaseGrant { .. } => LEASE_BYTES,
        _ => 0,
    }
}

fn put_cost(put: &Put) -> u64 {
    PUT_OVERHEAD_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// Only one branch is executed, not known which yet, so the dearer one counts.
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |ops: &[TxnOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &TxnOp) -> u64 {
    match op {
        TxnOp::Put(put) => put_cost(put),
        TxnOp::Txn(txn) => txn_cost(txn),
        TxnOp::Range(_) | TxnOp::DeleteRange(_) => 0,
    }
}

/// The quota of one member.
#[derive(Debug)]
pub struct Quota {
    bytes: u64,
    /// The cost of the largest command that was refused and would be refused again. Zero: none.
    refused: AtomicU64,
}

impl Quota {
    pub fn new(bytes: u64) -> Quota {
        Quota { bytes, refused: AtomicU64::new(0) }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a command of this cost fits. A refusal raises the alarm.
    pub fn admits(&self, cost: u64, live_bytes: u64) -> bool {
        let fits = cost == 0 || self.fits(cost, live_bytes);
        if !fits {
            self.refused.fetch_max(cost, Ordering::Relaxed);
        }
        fits
    }

    /// Whether the alarm is raised: the quota is reached, or a command was refused that would be
    /// refused again.
    pub fn is_exceeded(&self, live_bytes: u64) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        if !self.fits(refused, live_bytes) {
            return true;
        }
        // A larger refusal that came meanwhile stays.
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.refused.compare_exchange(refused, 0, set, get);
        false
    }

    fn fits(&self, cost: u64, live_bytes: u64) -> bool {
        live_bytes.saturating_add(cost) < self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DeleteRange, KeyRange, LeaseId, Range};

    fn put(value_bytes: usize) -> Put {
        Put { key: "key".into(), value: vec![0; value_bytes].into(), ..Put::default() }
    }

    fn txn(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> Txn {
        Txn { success, failure, ..Txn::default() }
    }

    #[test]
    fn a_command_costs_what_etcd_says_it_costs() {
        assert_eq!(cost(&Command::Put(put(10))), 256 + 3 + 10);
        assert_eq!(cost(&Command::LeaseGrant { id: LeaseId(1), ttl: 5 }), 64);
        let small = || TxnOp::Put(put(0));
        let two = txn(vec![small()], vec![small(), small()]);
        assert_eq!(cost(&Command::Txn(two.clone())), 2 * 259, "the dearer branch");
        let nested = txn(vec![TxnOp::Txn(Box::new(two)), small()], vec![]);
        assert_eq!(cost(&Command::Txn(nested)), 3 * 259, "a nested transaction counts");
    }

    #[test]
    fn a_command_that_stores_nothing_needs_no_room() {
        let keys = KeyRange::One("key".into());
        let delete = DeleteRange { keys: keys.clone(), prev_kv: false };
        let ops = vec![TxnOp::DeleteRange(delete.clone()), TxnOp::Range(Range::of(keys))];
        let full = Quota::new(100);
        for command in [Command::DeleteRange(delete), Command::Txn(txn(ops, vec![]))] {
            assert!(full.admits(cost(&command), 1000));
        }
    }

    #[test]
    fn a_command_that_would_reach_the_quota_is_refused_and_a_smaller_one_is_not() {
        let quota = Quota::new(1000);
        assert!(!quota.is_exceeded(600));
        assert!(!quota.admits(400, 600), "as much as is left is too much");
        assert!(quota.admits(399, 600));
    }

    #[test]
    fn the_alarm_holds_as_long_as_the_refused_command_would_be_refused_again() {
        let quota = Quota::new(1000);
        assert!(!quota.admits(500, 600));
        assert!(!quota.admits(450, 600));
        assert!(quota.is_exceeded(600));
        assert!(quota.is_exceeded(500));
        assert!(!quota.is_exceeded(499), "it would fit now");
        assert!(!quota.is_exceeded(600), "and is forgotten");
        assert!(quota.is_exceeded(1000), "the quota is reached, though nothing was refused yet");
    }
}
