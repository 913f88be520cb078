//! The deadlines of one leader's leases. Pure: the time comes in with each call.
//!
//! Each lease has one alarm, when it must be looked at next. A renewal leaves the alarm where it is:
//! it finds the lease alive and moves on to the new deadline. So a renewal costs one search, and the
//! order of alarms is touched once in a TTL.
//!
//! Invariant: an alarm is never later than the deadline, but for a lease that is ending already.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::types::{Lease, LeaseAt, LeaseCheckpoint, LeaseId};

/// How much of a lease a change of leader may give back. etcd's.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// An expiry whose outcome is not known is proposed again after this.
const RETRY: Duration = Duration::from_secs(1);
/// Leases that end in one entry, at most.
const EXPIRED_MAX: usize = 256;
/// Keys that end with them, at most; one lease may have more.
const EXPIRED_KEYS_MAX: usize = 8192;
/// Checkpoints in one entry, at most.
const CHECKPOINTS_MAX: usize = 1024;
/// Alarms that are looked at in one go: about a millisecond.
const ALARMS_MAX: usize = 4096;

/// Deadlines, by lease.
#[derive(Debug, Default)]
pub(super) struct Timers {
    leases: BTreeMap<LeaseId, Timer>,
    alarms: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug)]
struct Timer {
    lease: Lease,
    deadline: Instant,
    alarm: Instant,
    /// When the next leader should be told what is left. `None`: too short a life for that.
    checkpoint: Option<Instant>,
    /// It was proposed to end it, as it is now.
    ending: bool,
    /// It was proposed to shorten it for the next leader, as it is now.
    checkpointing: bool,
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// For so many seconds.
    Done(i64),
    /// The same; but the log holds a checkpoint, or will, by which the next leader would end it
    /// earlier. That must be made void before anybody is told.
    Void(i64),
    /// Its end is proposed: whether it will end is not known.
    Ending,
    Unknown,
}

/// What is to be proposed now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) ended: Vec<LeaseAt>,
    pub(super) checkpoints: Vec<LeaseCheckpoint>,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.checkpoints.is_empty()
    }
}

impl Timers {
    /// A lease was granted, or has changed. What was proposed about it as it was is void, and its
    /// deadline stays.
    pub(super) fn set(&mut self, lease: Lease, now: Instant) {
        let timer = match self.leases.remove(&lease.id) {
            Some(timer) => {
                self.alarms.remove(&(timer.alarm, lease.id));
                Timer { lease, ending: false, checkpointing: false, ..timer }
            }
            None => Timer {
                lease,
                deadline: now + seconds(lease.left()),
                alarm: now,
                checkpoint: checkpoint(&lease, now),
                ending: false,
                checkpointing: false,
            },
        };
        self.insert(timer);
    }

    /// Says whether its end was proposed here; `None`: there is no such lease.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<bool> {
        let timer = self.leases.remove(&id)?;
        self.alarms.remove(&(timer.alarm, id));
        Some(timer.ending)
    }

    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        let Some(timer) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if timer.ending {
            return Renewal::Ending;
        }
        let ttl = timer.lease.ttl;
        timer.deadline = now + seconds(ttl);
        timer.checkpoint = checkpoint(&timer.lease, now);
        if timer.lease.remaining > 0 || timer.checkpointing {
            Renewal::Void(ttl)
        } else {
            Renewal::Done(ttl)
        }
    }

    /// Whole seconds left, as etcd tells them; `None`: there is no such lease.
    pub(super) fn remaining(&self, id: LeaseId, now: Instant) -> Option<i64> {
        let left = self.leases.get(&id)?.deadline.saturating_duration_since(now);
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
    }

    /// When to look next.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// What is due, as far as it goes into one entry, and marks it as proposed. `keys` says how many
    /// keys end with a lease. What is left is due at once.
    pub(super) fn due(&mut self, now: Instant, keys: impl Fn(LeaseId) -> usize) -> Due {
        let mut due = Due::default();
        let mut ended_keys = 0;
        for _ in 0..ALARMS_MAX {
            let full = due.ended.len() >= EXPIRED_MAX
                || ended_keys >= EXPIRED_KEYS_MAX
                || due.checkpoints.len() >= CHECKPOINTS_MAX;
            let next = self.alarms.first().copied().filter(|(at, _)| *at <= now && !full);
            let Some(alarm @ (_, id)) = next else { break };
            self.alarms.remove(&alarm);
            let Some(mut timer) = self.leases.remove(&id) else { continue };
            if timer.deadline <= now {
                timer.ending = true;
                due.ended.push(timer.lease_at());
                ended_keys += keys(id);
            } else if timer.checkpoint.is_some_and(|at| at <= now) {
                due.checkpoints.extend(timer.take_checkpoint(now));
            }
            self.insert_at(timer, now);
        }
        due
    }

    fn insert(&mut self, timer: Timer) {
        let alarm = timer.checkpoint.map_or(timer.deadline, |at| at.min(timer.deadline));
        self.put(Timer { alarm, ..timer });
    }

    /// The same, but what is ending gets time for it.
    fn insert_at(&mut self, timer: Timer, now: Instant) {
        if timer.ending {
            self.put(Timer { alarm: now + RETRY, ..timer });
        } else {
            self.insert(timer);
        }
    }

    fn put(&mut self, timer: Timer) {
        self.alarms.insert((timer.alarm, timer.lease.id));
        self.leases.insert(timer.lease.id, timer);
    }
}

impl Timer {
    fn lease_at(&self) -> LeaseAt {
        LeaseAt { id: self.lease.id, epoch: self.lease.epoch }
    }

    /// What the next leader should know, if it does not know it yet. Rounded up: never too little.
    fn take_checkpoint(&mut self, now: Instant) -> Option<LeaseCheckpoint> {
        self.checkpoint = checkpoint(&self.lease, now);
        let left = self.deadline.saturating_duration_since(now);
        let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let remaining = i64::try_from(whole).unwrap_or(i64::MAX);
        if remaining >= self.lease.left() {
            return None;
        }
        self.checkpointing = true;
        Some(LeaseCheckpoint { lease: self.lease_at(), remaining })
    }
}

/// An interval after the lease had all its time, or was checkpointed: until then there is not more
/// than that to be given back.
fn checkpoint(lease: &Lease, now: Instant) -> Option<Instant> {
    (seconds(lease.ttl) > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL)
}

/// A negative number is none: who proposed it was wrong, and its lease ends at once.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(Lease::TTL_MAX.unsigned_abs()))
}
