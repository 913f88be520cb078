//! The deadlines of one leader's leases. Pure: the time comes in with each call.
//!
//! Each lease has one *check*: the time when it must be examined next. A renewal moves the deadline and
//! leaves the check where it is; the check finds the lease alive and moves to the new deadline. So a
//! renewal costs one search, and the order of checks changes once in a TTL.
//!
//! Invariant: a check is never later than the deadline, except for a lease that is expiring already.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::types::{Lease, LeaseCheckpoint, LeaseId, LeaseRef};

/// A change of leader restores at most this much of a lease's time (etcd: the same).
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Wait before an expiry whose outcome is unknown is proposed again.
const EXPIRY_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Leases that end in one entry, at most.
const EXPIRED_MAX: usize = 256;
/// Keys that end with them, at most; one lease may have more.
const EXPIRED_KEYS_MAX: usize = 8192;
/// Checkpoints in one entry, at most.
const CHECKPOINTS_MAX: usize = 1024;
/// Checks in one call of `due`: about a millisecond.
const CHECKS_MAX: usize = 4096;

/// Deadlines, by lease.
#[derive(Debug, Default)]
pub struct Timers {
    leases: BTreeMap<LeaseId, Timer>,
    checks: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug)]
struct Timer {
    lease: Lease,
    deadline: Instant,
    check_at: Instant,
    /// When to checkpoint the remaining time for the next leader. `None`: the TTL is too short for that.
    checkpoint_at: Option<Instant>,
    /// The lease's end is proposed, for its present epoch.
    expiring: bool,
    /// A checkpoint is proposed, for the lease's present epoch.
    checkpointing: bool,
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Renewed for its TTL, in seconds.
    Renewed(i64),
    /// Renewed likewise; but the log holds a checkpoint, or will hold one, by which the next leader
    /// would end the lease earlier. The checkpoint must be voided before the renewal is answered.
    RenewedCheckpointed(i64),
    /// The lease's end is proposed; whether it is applied is unknown.
    Expiring,
    NotFound,
}

/// The ends and checkpoints to propose now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub ended: Vec<LeaseRef>,
    pub checkpoints: Vec<LeaseCheckpoint>,
}

impl Due {
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.checkpoints.is_empty()
    }
}

impl Timers {
    /// Records a lease that was granted or has changed. Proposals about its former epoch are void; the
    /// deadline of a changed lease stays.
    pub fn set(&mut self, lease: Lease, now: Instant) {
        let timer = match self.leases.remove(&lease.id) {
            Some(timer) => {
                self.checks.remove(&(timer.check_at, lease.id));
                Timer { lease, expiring: false, checkpointing: false, ..timer }
            }
            None => Timer {
                lease,
                deadline: now + seconds(lease.remaining_ttl()),
                check_at: now,
                checkpoint_at: next_checkpoint(&lease, now),
                expiring: false,
                checkpointing: false,
            },
        };
        self.insert(timer);
    }

    /// Forgets a lease and returns whether its end was proposed here; `None`: the lease does not exist.
    pub fn remove(&mut self, id: LeaseId) -> Option<bool> {
        let timer = self.leases.remove(&id)?;
        self.checks.remove(&(timer.check_at, id));
        Some(timer.expiring)
    }

    pub fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        let Some(timer) = self.leases.get_mut(&id) else { return Renewal::NotFound };
        if timer.expiring {
            return Renewal::Expiring;
        }
        let ttl = timer.lease.ttl;
        // Two renewals may arrive here in the reverse order of their times.
        timer.deadline = timer.deadline.max(now + seconds(ttl));
        timer.checkpoint_at = timer.checkpoint_at.max(next_checkpoint(&timer.lease, now));
        if timer.lease.remaining > 0 || timer.checkpointing {
            Renewal::RenewedCheckpointed(ttl)
        } else {
            Renewal::Renewed(ttl)
        }
    }

    /// Whole seconds left, rounded as in etcd; `None`: the lease does not exist.
    pub fn remaining(&self, id: LeaseId, now: Instant) -> Option<i64> {
        let left = self.leases.get(&id)?.deadline.saturating_duration_since(now);
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
    }

    /// The time of the next check.
    pub fn next_check(&self) -> Option<Instant> {
        self.checks.first().map(|(at, _)| *at)
    }

    /// Takes the due ends and checkpoints that fit into one entry, and marks them as proposed; the rest
    /// stay due. `keys` returns the number of keys attached to a lease.
    pub fn due(&mut self, now: Instant, keys: impl Fn(LeaseId) -> usize) -> Due {
        let mut due = Due::default();
        let mut ended_keys = 0;
        for _ in 0..CHECKS_MAX {
            let full = due.ended.len() >= EXPIRED_MAX
                || ended_keys >= EXPIRED_KEYS_MAX
                || due.checkpoints.len() >= CHECKPOINTS_MAX;
            let next = self.checks.first().copied().filter(|(at, _)| *at <= now && !full);
            let Some(check @ (_, id)) = next else { break };
            self.checks.remove(&check);
            let Some(mut timer) = self.leases.remove(&id) else { continue };
            if timer.deadline <= now {
                timer.expiring = true;
                due.ended.push(timer.lease_at());
                ended_keys += keys(id);
            } else if timer.checkpoint_at.is_some_and(|at| at <= now) {
                due.checkpoints.extend(timer.take_checkpoint(now));
            }
            self.insert_at(timer, now);
        }
        due
    }

    fn insert(&mut self, timer: Timer) {
        let check_at = timer.checkpoint_at.map_or(timer.deadline, |at| at.min(timer.deadline));
        self.put(Timer { check_at, ..timer });
    }

    /// Inserts a timer; an expiring lease is checked again only after the retry interval.
    fn insert_at(&mut self, timer: Timer, now: Instant) {
        if timer.expiring {
            self.put(Timer { check_at: now + EXPIRY_RETRY_INTERVAL, ..timer });
        } else {
            self.insert(timer);
        }
    }

    fn put(&mut self, timer: Timer) {
        self.checks.insert((timer.check_at, timer.lease.id));
        self.leases.insert(timer.lease.id, timer);
    }
}

impl Timer {
    fn lease_at(&self) -> LeaseRef {
        LeaseRef { id: self.lease.id, epoch: self.lease.epoch }
    }

    /// The remaining time, rounded up, for the next leader; `None` if the state holds no more than that
    /// already.
    fn take_checkpoint(&mut self, now: Instant) -> Option<LeaseCheckpoint> {
        self.checkpoint_at = next_checkpoint(&self.lease, now);
        let left = self.deadline.saturating_duration_since(now);
        let whole = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let remaining = i64::try_from(whole).unwrap_or(i64::MAX);
        if remaining >= self.lease.remaining_ttl() {
            return None;
        }
        self.checkpointing = true;
        Some(LeaseCheckpoint { lease: self.lease_at(), remaining })
    }
}

/// One interval after the lease was full or checkpointed. A leader change before that restores at most
/// one interval.
fn next_checkpoint(lease: &Lease, now: Instant) -> Option<Instant> {
    (seconds(lease.ttl) > CHECKPOINT_INTERVAL).then(|| now + CHECKPOINT_INTERVAL)
}

/// A negative TTL counts as zero: its proposer was wrong, and the lease ends at once.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(Lease::TTL_MAX.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const NO_KEYS: fn(LeaseId) -> usize = |_| 0;
    const MOMENT: Duration = Duration::from_nanos(1);

    fn lease(id: i64, ttl: i64) -> Lease {
        Lease { id: LeaseId(id), ttl, remaining: 0, epoch: 1 }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ended(due: &Due) -> Vec<i64> {
        due.ended.iter().map(|lease| lease.id.0).collect()
    }

    /// Timers with one lease, and the time when it was set.
    fn with(lease: Lease) -> (Timers, Instant) {
        let (mut timers, start) = (Timers::default(), Instant::now());
        timers.set(lease, start);
        (timers, start)
    }

    #[test]
    fn a_lease_ends_at_its_deadline_and_not_a_moment_before() {
        let (mut timers, start) = with(lease(7, 10));
        assert_eq!(timers.next_check(), Some(start + secs(10)));
        assert!(timers.due(start + secs(10) - MOMENT, NO_KEYS).is_empty());
        assert_eq!(ended(&timers.due(start + secs(10), NO_KEYS)), [7]);
    }

    #[test]
    fn a_renewal_that_was_overtaken_shortens_nothing() {
        let (mut timers, start) = with(lease(7, 10));
        timers.renew(LeaseId(7), start + secs(5));
        timers.renew(LeaseId(7), start + secs(4));
        assert!(timers.due(start + secs(15) - MOMENT, NO_KEYS).is_empty());
    }

    #[test]
    fn a_renewal_counts_from_when_it_came() {
        let (mut timers, start) = with(lease(7, 10));
        assert_eq!(timers.renew(LeaseId(7), start + secs(4)), Renewal::Renewed(10));
        assert!(timers.due(start + secs(14) - MOMENT, NO_KEYS).is_empty());
        assert_eq!(timers.remaining(LeaseId(7), start + secs(5)), Some(9));
        assert_eq!(ended(&timers.due(start + secs(14), NO_KEYS)), [7]);
        assert_eq!(timers.remaining(LeaseId(7), start + secs(20)), Some(0));
    }

    #[test]
    fn a_lease_whose_end_is_proposed_is_not_renewed_until_that_is_decided() {
        let (mut timers, start) = with(lease(7, 10));
        timers.due(start + secs(10), NO_KEYS);
        assert_eq!(timers.renew(LeaseId(7), start + secs(10)), Renewal::Expiring);
        // Another command has changed the lease first, so the proposed end is void.
        timers.set(Lease { epoch: 2, ..lease(7, 10) }, start + secs(10));
        assert_eq!(timers.renew(LeaseId(7), start + secs(10)), Renewal::Renewed(10));
        // Or the lease has ended.
        timers.due(start + secs(20), NO_KEYS);
        assert_eq!(timers.remove(LeaseId(7)), Some(true));
        assert_eq!(timers.renew(LeaseId(7), start + secs(20)), Renewal::NotFound);
        assert_eq!(timers.next_check(), None);
    }

    #[test]
    fn an_end_whose_outcome_is_unknown_is_proposed_again() {
        let (mut timers, start) = with(lease(7, 10));
        let first = timers.due(start + secs(10), NO_KEYS);
        assert!(timers.due(start + secs(10) + EXPIRY_RETRY_INTERVAL / 2, NO_KEYS).is_empty());
        assert_eq!(timers.due(start + secs(10) + EXPIRY_RETRY_INTERVAL, NO_KEYS), first);
    }

    #[test]
    fn a_lease_that_is_set_again_keeps_its_deadline() {
        let (mut timers, start) = with(lease(7, 10));
        timers.set(lease(7, 10), start + secs(5));
        assert_eq!(ended(&timers.due(start + secs(10), NO_KEYS)), [7]);
    }

    #[test]
    fn only_what_was_not_renewed_for_an_interval_is_checkpointed_and_rounded_up() {
        let interval = CHECKPOINT_INTERVAL;
        let (mut timers, start) = with(lease(7, 1000));
        timers.set(lease(8, interval.as_secs() as i64), start);
        timers.set(lease(9, 1000), start);
        timers.renew(LeaseId(9), start + secs(100));

        let due = timers.due(start + interval + Duration::from_millis(1), NO_KEYS);
        assert_eq!(ended(&due), [8], "too short a life for a checkpoint");
        let checkpoint =
            LeaseCheckpoint { lease: LeaseRef { id: LeaseId(7), epoch: 1 }, remaining: 700 };
        assert_eq!(due.checkpoints, [checkpoint]);

        // An interval after it was renewed.
        assert!(timers.due(start + interval + secs(99), NO_KEYS).checkpoints.is_empty());
        let due = timers.due(start + interval + secs(100), NO_KEYS);
        assert_eq!(due.checkpoints.len(), 1);
    }

    #[test]
    fn a_renewal_makes_a_checkpoint_void_that_is_applied_or_on_its_way() {
        let (mut timers, start) = with(lease(7, 1000));
        let late = start + CHECKPOINT_INTERVAL;
        assert_eq!(timers.due(late, NO_KEYS).checkpoints.len(), 1);
        assert_eq!(timers.renew(LeaseId(7), late), Renewal::RenewedCheckpointed(1000));
        timers.set(Lease { epoch: 2, remaining: 700, ..lease(7, 1000) }, late);
        assert_eq!(timers.renew(LeaseId(7), late), Renewal::RenewedCheckpointed(1000));
        timers.set(Lease { epoch: 3, ..lease(7, 1000) }, late);
        assert_eq!(timers.renew(LeaseId(7), late), Renewal::Renewed(1000));
        assert_eq!(timers.remaining(LeaseId(7), late), Some(1000));
    }

    #[test]
    fn a_new_leader_starts_each_lease_from_its_checkpoint() {
        let (mut timers, start) = with(Lease { remaining: 700, ..lease(7, 1000) });
        assert!(timers.due(start + secs(700) - MOMENT, NO_KEYS).ended.is_empty());
        assert_eq!(ended(&timers.due(start + secs(700), NO_KEYS)), [7]);
    }

    #[test]
    fn what_one_entry_ends_is_bounded_in_leases_and_in_keys() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        (1..=1000).for_each(|id| timers.set(lease(id, 10), start));
        let (now, mut all) = (start + secs(10), Vec::new());
        for _ in 0..3 {
            let due = timers.due(now, NO_KEYS);
            assert_eq!(due.ended.len(), EXPIRED_MAX);
            assert_eq!(timers.next_check(), Some(now), "the rest is due at once");
            all.extend(ended(&due));
        }
        let due = timers.due(now, |_| EXPIRED_KEYS_MAX / 4);
        assert_eq!(due.ended.len(), 4);
        let due = timers.due(now, |_| 1_000_000);
        assert_eq!(due.ended.len(), 1, "one lease is always possible");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 3 * EXPIRED_MAX);
    }

    #[test]
    fn the_longest_and_a_senseless_life_are_no_panic() {
        let (mut timers, start) = with(lease(7, Lease::TTL_MAX));
        timers.set(lease(8, i64::MAX), start);
        timers.set(lease(9, -5), start);
        assert_eq!(ended(&timers.due(start, NO_KEYS)), [9]);
        assert_eq!(timers.remaining(LeaseId(7), start), Some(Lease::TTL_MAX));
    }

    /// An event for one of three leases; each comes some milliseconds after the one before.
    #[derive(Debug, Clone)]
    enum Event {
        Grant {
            ttl: i64,
        },
        Renew,
        Revoke,
        /// The proposed ends are applied.
        Apply,
    }

    fn event() -> impl Strategy<Value = (Event, i64, u64)> {
        let event = prop_oneof![
            2 => (1i64..20).prop_map(|ttl| Event::Grant { ttl }),
            4 => Just(Event::Renew),
            1 => Just(Event::Revoke),
            4 => Just(Event::Apply),
        ];
        (event, 1i64..4, 0u64..6000)
    }

    proptest! {
        #[test]
        fn no_lease_ends_before_a_ttl_has_passed_since_it_was_renewed_and_each_ends_after(
            events in vec(event(), 1..80),
        ) {
            let (mut timers, mut now) = (Timers::default(), Instant::now());
            // The time of each lease's last renewal, and its TTL.
            let mut promised: BTreeMap<i64, (Instant, u64)> = BTreeMap::new();
            for (event, id, millis) in events {
                now += Duration::from_millis(millis);
                match event {
                    Event::Grant { ttl } if !promised.contains_key(&id) => {
                        timers.set(lease(id, ttl), now);
                        promised.insert(id, (now, ttl.unsigned_abs()));
                    }
                    Event::Grant { .. } => {}
                    Event::Renew => match timers.renew(LeaseId(id), now) {
                        Renewal::Renewed(ttl) => drop(promised.insert(id, (now, ttl.unsigned_abs()))),
                        Renewal::NotFound => prop_assert!(!promised.contains_key(&id)),
                        Renewal::Expiring | Renewal::RenewedCheckpointed(_) => prop_assert!(false, "all is applied"),
                    },
                    Event::Revoke => {
                        let known = timers.remove(LeaseId(id)).is_some();
                        prop_assert_eq!(known, promised.remove(&id).is_some());
                    }
                    Event::Apply => {
                        for id in ended(&timers.due(now, NO_KEYS)) {
                            let (since, ttl) = promised.remove(&id).unwrap();
                            prop_assert!(now >= since + secs(ttl), "{id} is early");
                            prop_assert_eq!(timers.remove(LeaseId(id)), Some(true));
                        }
                        let late = promised.values().find(|(since, ttl)| *since + secs(*ttl) <= now);
                        prop_assert_eq!(late, None);
                    }
                }
                prop_assert_eq!(timers.checks.len(), promised.len());
                for timer in timers.leases.values() {
                    prop_assert!(timer.check_at <= timer.deadline);
                }
            }
        }
    }
}
