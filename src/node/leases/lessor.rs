//! Keeps the deadlines of leases on the leader. The apply lane reports each change of a lease.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::timers::{Due, Renewal, Timers};
use crate::{
    metrics::{Counter, Histogram, exponential_buckets},
    state::{EventSink, LeaseChange, Published, View},
    types::{LeaseId, Revision, Term},
};

/// From a second to three months.
static TTLS: [Duration; 24] = exponential_buckets(Duration::from_secs(1));

/// Keeps deadlines while this member leads; on other members it only counts.
#[derive(Debug, Default)]
pub struct Lessor {
    /// Held for a bounded number of leases; never while waiting for anything.
    leading: Mutex<Option<LeaderTimers>>,
    /// Notified when the next check has moved forward, or leadership has ended.
    check_changed: Notify,
    counters: Counters,
}

#[derive(Debug)]
struct LeaderTimers {
    term: Term,
    timers: Timers,
}

#[derive(Debug)]
struct Counters {
    granted: Counter,
    revoked: Counter,
    renewed: Counter,
    expired: Counter,
    ttls: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            granted: Counter::default(),
            revoked: Counter::default(),
            renewed: Counter::default(),
            expired: Counter::default(),
            ttls: Histogram::new(&TTLS),
        }
    }
}

/// Lease events on one member since it started, including the replay of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseCounters {
    pub granted: u64,
    /// Revoked by a client, or by the leader because they had expired.
    pub revoked: u64,
    /// Renewed by this member as the leader.
    pub renewed: u64,
    /// Expired by this member as the leader.
    pub expired: u64,
    /// Leases that exist now.
    pub live: u64,
}

impl Lessor {
    pub fn counters(&self, view: &View) -> LeaseCounters {
        LeaseCounters {
            granted: self.counters.granted.get(),
            revoked: self.counters.revoked.get(),
            renewed: self.counters.renewed.get(),
            expired: self.counters.expired.get(),
            live: view.lease_count() as u64,
        }
    }

    /// The TTL of each lease that was granted.
    pub fn ttls(&self) -> &Histogram {
        &self.counters.ttls
    }

    /// Starts the countdown of every lease, from the remaining time in the state. All entries of earlier
    /// terms must have been applied.
    pub fn start_leading(&self, term: Term, view: &View) {
        // The apply lane waits for this lock. Its report may repeat a lease that is in the view already.
        let mut leading = self.leading();
        let mut timers = Timers::default();
        let leases = view.leases();
        // Taken after the view: a lease may have been granted just now.
        let now = Instant::now();
        leases.into_iter().for_each(|lease| timers.set(lease, now));
        *leading = Some(LeaderTimers { term, timers });
    }

    pub fn stop_leading(&self) {
        *self.leading() = None;
    }

    pub fn leads(&self, term: Term) -> bool {
        self.leading().as_ref().is_some_and(|leading| leading.term == term)
    }

    /// Renews leases, and returns the term in which this member leads with the result of each renewal;
    /// `None`: it does not lead, or has not caught up yet.
    pub fn renew(&self, leases: &[LeaseId], now: Instant) -> Option<(Term, Vec<Renewal>)> {
        let mut leading = self.leading();
        let LeaderTimers { term, timers } = leading.as_mut()?;
        let renewals: Vec<_> = leases.iter().map(|id| timers.renew(*id, now)).collect();
        let done = |renewal: &&Renewal| {
            matches!(renewal, Renewal::Renewed(_) | Renewal::RenewedCheckpointed(_))
        };
        let renewed = renewals.iter().filter(done).count();
        self.counters.renewed.add(renewed as u64);
        Some((*term, renewals))
    }

    /// Seconds that these leases have left; `None` for a lease that does not exist.
    pub fn remaining(&self, leases: &[LeaseId], now: Instant) -> Option<Vec<Option<i64>>> {
        let leading = self.leading();
        let timers = &leading.as_ref()?.timers;
        Some(leases.iter().map(|id| timers.remaining(*id, now)).collect())
    }

    pub fn due(&self, now: Instant, keys: impl Fn(LeaseId) -> usize) -> Due {
        self.leading().as_mut().map_or_else(Due::default, |leading| leading.timers.due(now, keys))
    }

    pub fn next_check(&self) -> Option<Instant> {
        self.leading().as_ref()?.timers.next_check()
    }

    /// Waits until the next check may have changed.
    pub async fn next_check_changed(&self) {
        self.check_changed.notified().await;
    }

    // A poisoned lock is safe: changes under it are atomic, except those of the apply lane, whose panic
    // ends the member.
    fn leading(&self) -> MutexGuard<'_, Option<LeaderTimers>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, changes: &[LeaseChange]) {
        for change in changes {
            match change {
                LeaseChange::Granted(lease) => {
                    self.counters.granted.increment();
                    let ttl = u64::try_from(lease.ttl).unwrap_or(0);
                    self.counters.ttls.observe(Duration::from_secs(ttl));
                }
                LeaseChange::Ended(_) => self.counters.revoked.increment(),
                LeaseChange::Changed(_) => {}
            }
        }
    }
}

impl EventSink for Lessor {
    fn published(&self, changes: &Published<'_>) {
        if changes.leases.is_empty() {
            return;
        }
        self.count(changes.leases);
        let mut leading = self.leading();
        let Some(LeaderTimers { timers, .. }) = leading.as_mut() else { return };
        let (before, now) = (timers.next_check(), Instant::now());
        for change in changes.leases {
            match change {
                LeaseChange::Granted(lease) | LeaseChange::Changed(lease) => {
                    timers.set(*lease, now);
                }
                LeaseChange::Ended(id) => {
                    if timers.remove(*id) == Some(true) {
                        self.counters.expired.increment();
                    }
                }
            }
        }
        let earlier = match (before, timers.next_check()) {
            (Some(before), Some(next)) => next < before,
            (before, next) => before.is_none() && next.is_some(),
        };
        if earlier {
            self.check_changed.notify_one();
        }
    }

    /// A leader has the newest state and never installs a snapshot, so this member does not lead.
    fn replaced(&self, _: Revision, _: Revision) {
        self.stop_leading();
        self.check_changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        state::{MemoryStorage, StateMachine},
        types::{Command, Lease, LeaseCheckpoint, LeaseRef, LogPosition, Reply},
    };

    /// A state machine whose changes a lessor follows.
    struct LessorRig {
        machine: StateMachine,
        lessor: Arc<Lessor>,
        next: LogPosition,
    }

    impl LessorRig {
        fn new() -> LessorRig {
            let lessor = Arc::new(Lessor::default());
            let machine = StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], []);
            let machine = machine.unwrap().with_sinks(vec![lessor.clone()]);
            LessorRig { machine, lessor, next: LogPosition { term: Term(1), index: 0 } }
        }

        /// Applies an entry of the present term.
        fn apply(&mut self, command: Command) {
            let replies = self.machine.apply(self.next, [command]).unwrap();
            assert!(replies[0].is_ok(), "{replies:?}");
            self.next.index += 1;
            self.machine.publish();
        }

        fn grant(&mut self, id: i64, ttl: i64) {
            self.apply(Command::LeaseGrant { id: LeaseId(id), ttl });
        }

        fn lease(&self, id: i64) -> Lease {
            self.machine.view().lease(LeaseId(id)).unwrap()
        }

        fn lead(&mut self, term: u64) {
            self.next.term = Term(term);
            self.lessor.start_leading(Term(term), &self.machine.view());
        }

        /// The ends and checkpoints that are due at a time.
        fn due(&self, at: Instant) -> Due {
            self.lessor.due(at, |id| self.machine.view().lease_key_count(id))
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_grant_is_timed_from_when_it_was_applied_and_its_end_is_counted() {
        let mut member = LessorRig::new();
        member.lead(1);
        let before = Instant::now();
        member.grant(7, 10);
        let after = Instant::now();
        assert!(member.due(before + secs(10) - Duration::from_nanos(1)).is_empty());
        let due = member.due(after + secs(10));
        assert_eq!(due.ended.len(), 1);
        assert_eq!(member.lessor.renew(&[LeaseId(7)], after).unwrap().1, [Renewal::Expiring]);

        member.apply(Command::LeaseExpire { term: Term(1), leases: due.ended });
        assert_eq!(member.lessor.renew(&[LeaseId(7)], after).unwrap().1, [Renewal::NotFound]);
        let expected = LeaseCounters { granted: 1, revoked: 1, renewed: 0, expired: 1, live: 0 };
        assert_eq!(member.lessor.counters(&member.machine.view()), expected);
    }

    #[test]
    fn a_lessor_that_does_not_lead_renews_nothing_and_ends_nothing() {
        let mut member = LessorRig::new();
        member.grant(7, 10);
        assert_eq!(member.lessor.renew(&[LeaseId(7)], Instant::now()), None);
        assert_eq!(member.lessor.remaining(&[LeaseId(7)], Instant::now()), None);
        assert!(member.due(Instant::now() + secs(100)).is_empty());
        member.lead(2);
        assert!(member.lessor.leads(Term(2)) && !member.lessor.leads(Term(1)));
        member.lessor.stop_leading();
        assert_eq!(member.lessor.renew(&[LeaseId(7)], Instant::now()), None);
    }

    #[test]
    fn a_change_of_leader_lengthens_a_lease_and_never_shortens_it() {
        let mut member = LessorRig::new();
        member.lead(1);
        member.grant(7, 10);
        let granted = Instant::now();
        // The former leader would have ended the lease now. The new leader does not know its clock.
        member.lead(2);
        assert_eq!(member.lessor.renew(&[LeaseId(8)], granted).unwrap().0, Term(2));
        assert!(member.due(granted + secs(10) - secs(1)).is_empty());
        assert_eq!(member.due(Instant::now() + secs(10)).ended.len(), 1);
    }

    #[test]
    fn a_checkpoint_survives_the_leader_and_a_renewal_undoes_it() {
        let mut member = LessorRig::new();
        member.lead(1);
        member.grant(7, 1000);
        let at = LeaseRef { id: LeaseId(7), epoch: member.lease(7).epoch };
        let checkpoints = vec![LeaseCheckpoint { lease: at, remaining: 600 }];
        member.apply(Command::LeaseCheckpoint { term: Term(1), checkpoints });
        member.lead(2);
        let now = Instant::now();
        assert!(member.lessor.remaining(&[LeaseId(7)], now).unwrap()[0].unwrap() <= 600);

        assert_eq!(
            member.lessor.renew(&[LeaseId(7)], now).unwrap().1,
            [Renewal::RenewedCheckpointed(1000)]
        );
        member.apply(Command::LeaseRenew { term: Term(2), leases: vec![LeaseId(7)] });
        assert_eq!(member.lessor.renew(&[LeaseId(7)], now).unwrap().1, [Renewal::Renewed(1000)]);
        member.lead(3);
        let left = member.lessor.remaining(&[LeaseId(7)], Instant::now()).unwrap()[0].unwrap();
        assert!(left >= 999, "the next leader gives it all of {left} seconds");
    }

    #[test]
    fn what_a_deposed_leader_saw_end_lives_on() {
        let mut member = LessorRig::new();
        member.lead(1);
        member.grant(7, 10);
        let due = member.due(Instant::now() + secs(10));
        member.lead(2);
        let late = Command::LeaseExpire { term: Term(1), leases: due.ended };
        let replies = member.machine.apply(member.next, [late]).unwrap();
        assert_eq!(replies, [Err(crate::types::CommandError::StaleTerm)]);
        assert_eq!(member.lease(7).ttl, 10);
    }

    #[test]
    fn a_lease_that_was_granted_again_is_not_ended_by_what_was_seen_of_the_first() {
        let mut member = LessorRig::new();
        member.lead(1);
        member.grant(7, 10);
        let due = member.due(Instant::now() + secs(10));
        member.apply(Command::LeaseRevoke(LeaseId(7)));
        member.grant(7, 10);
        let now = Instant::now();
        assert_eq!(member.lessor.renew(&[LeaseId(7)], now).unwrap().1, [Renewal::Renewed(10)]);
        let late = Command::LeaseExpire { term: Term(1), leases: due.ended };
        let replies = member.machine.apply(member.next, [late]).unwrap();
        assert_eq!(replies, [Ok(Reply::LeasesUpdated)]);
        assert_eq!(member.lease(7).ttl, 10);
    }

    #[test]
    fn an_installed_snapshot_stops_the_lessor() {
        let mut member = LessorRig::new();
        member.lead(1);
        member.lessor.replaced(Revision(5), Revision(-1));
        assert!(!member.lessor.leads(Term(1)));
    }

    #[test]
    fn an_earlier_check_wakes_the_wait_for_the_first() {
        let mut member = LessorRig::new();
        member.lead(1);
        let moved = |member: &LessorRig| {
            let moved = futures_util::FutureExt::now_or_never(member.lessor.next_check_changed());
            moved.is_some()
        };
        member.grant(7, 100);
        assert!(moved(&member), "the first of all");
        member.grant(8, 200);
        assert!(!moved(&member), "a later one");
        member.grant(9, 50);
        assert!(moved(&member), "an earlier one");
    }
}
