//! Leases, and the leader's decisions about them.

use super::id::LeaseId;

/// A replicated lease. It has no clock: the leader alone decides when a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    pub id: LeaseId,
    /// Time to live after each renewal, in seconds.
    pub ttl: i64,
    /// Remaining seconds at the last checkpoint; zero: renewed since, so the full `ttl`.
    pub remaining: i64,
    /// Changes with every change of the lease, and is never reused, not even by another lease of the
    /// same id. Decisions that name an older epoch are refused.
    pub epoch: u64,
}

impl Lease {
    /// Longer TTLs are refused, as in etcd: 285 years.
    pub const TTL_MAX: i64 = 9_000_000_000;

    /// Minimum remaining seconds after a change of leader.
    pub fn remaining_ttl(&self) -> i64 {
        if self.remaining > 0 { self.remaining } else { self.ttl }
    }
}

/// A lease at the epoch of a decision about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseRef {
    pub id: LeaseId,
    pub epoch: u64,
}

/// The remaining time of a lease, as seen by its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    pub lease: LeaseRef,
    /// Seconds, rounded up.
    pub remaining: i64,
}
