//! The leader's clock for leases, told by the apply lane what becomes of them.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::timers::{Due, Renewal, Timers};
use crate::{
    metrics::{Histogram, doubling},
    state::{EventSink, LeaseChange, Published, View},
    types::{LeaseId, Revision, Term},
};

/// From a second to three months.
static TTLS: [Duration; 24] = doubling(Duration::from_secs(1));

/// Keeps the time of leases while this member leads; elsewhere it only counts.
#[derive(Debug, Default)]
pub struct Lessor {
    /// Held for a bounded number of leases; never while waiting for anything.
    leading: Mutex<Option<Leading>>,
    /// The first alarm has moved forward, or there is no leading any more.
    moved: Notify,
    counters: Counters,
}

#[derive(Debug)]
struct Leading {
    term: Term,
    timers: Timers,
}

#[derive(Debug)]
struct Counters {
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
    ttls: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            granted: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            ttls: Histogram::new(&TTLS),
        }
    }
}

/// What a member has seen of leases since it started, the replay of its log included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseCounters {
    pub granted: u64,
    /// Whoever revoked them: a client, or the leader because they had ended.
    pub revoked: u64,
    /// By this member as the leader.
    pub renewed: u64,
    /// By this member as the leader.
    pub expired: u64,
    /// There are now.
    pub live: u64,
}

impl Lessor {
    pub(in crate::node) fn counters(&self, view: &View) -> LeaseCounters {
        LeaseCounters {
            granted: self.counters.granted.load(Relaxed),
            revoked: self.counters.revoked.load(Relaxed),
            renewed: self.counters.renewed.load(Relaxed),
            expired: self.counters.expired.load(Relaxed),
            live: view.lease_count() as u64,
        }
    }

    /// The time to live of each lease that was granted.
    pub(in crate::node) fn ttls(&self) -> &Histogram {
        &self.counters.ttls
    }

    /// Takes over from the leaders before `term`, all of whose entries are applied. Every lease has
    /// from now on what the state says is left of it.
    pub(super) fn begin(&self, term: Term, view: &View) {
        // What is applied while we look is told afterwards, and says the same again: it waits here.
        let mut leading = self.leading();
        let mut timers = Timers::default();
        let leases = view.leases();
        // Not earlier: the last of them may have been granted just now.
        let now = Instant::now();
        leases.into_iter().for_each(|lease| timers.set(lease, now));
        *leading = Some(Leading { term, timers });
    }

    pub(super) fn end(&self) {
        *self.leading() = None;
    }

    pub(super) fn leads(&self, term: Term) -> bool {
        self.leading().as_ref().is_some_and(|leading| leading.term == term)
    }

    /// The term this member keeps time in, and what becomes of a renewal of each of these leases;
    /// `None`: it does not lead, or has just begun to.
    pub(super) fn renew(&self, leases: &[LeaseId], now: Instant) -> Option<(Term, Vec<Renewal>)> {
        let mut leading = self.leading();
        let Leading { term, timers } = leading.as_mut()?;
        let renewals: Vec<_> = leases.iter().map(|id| timers.renew(*id, now)).collect();
        let done = |renewal: &&Renewal| matches!(renewal, Renewal::Done(_) | Renewal::Void(_));
        let renewed = renewals.iter().filter(done).count();
        self.counters.renewed.fetch_add(renewed as u64, Relaxed);
        Some((*term, renewals))
    }

    /// Seconds that these leases have left; `None` where there is no such lease.
    pub(super) fn remaining(&self, leases: &[LeaseId], now: Instant) -> Option<Vec<Option<i64>>> {
        let leading = self.leading();
        let timers = &leading.as_ref()?.timers;
        Some(leases.iter().map(|id| timers.remaining(*id, now)).collect())
    }

    pub(super) fn due(&self, now: Instant, keys: impl Fn(LeaseId) -> usize) -> Due {
        self.leading().as_mut().map_or_else(Due::default, |leading| leading.timers.due(now, keys))
    }

    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.leading().as_ref()?.timers.next_alarm()
    }

    /// Waits until the next alarm may be another one.
    pub(super) async fn moved(&self) {
        self.moved.notified().await;
    }

    // Every change under this lock leaves whole timers behind, or is one of the apply lane, whose
    // panic ends the member.
    fn leading(&self) -> MutexGuard<'_, Option<Leading>> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, changes: &[LeaseChange]) {
        for change in changes {
            match change {
                LeaseChange::Granted(lease) => {
                    self.counters.granted.fetch_add(1, Relaxed);
                    let ttl = u64::try_from(lease.ttl).unwrap_or(0);
                    self.counters.ttls.observe(Duration::from_secs(ttl));
                }
                LeaseChange::Gone(_) => drop(self.counters.revoked.fetch_add(1, Relaxed)),
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
        let Some(Leading { timers, .. }) = leading.as_mut() else { return };
        let (before, now) = (timers.next_alarm(), Instant::now());
        for change in changes.leases {
            match change {
                LeaseChange::Granted(lease) | LeaseChange::Changed(lease) => {
                    timers.set(*lease, now);
                }
                LeaseChange::Gone(id) => {
                    if timers.remove(*id) == Some(true) {
                        self.counters.expired.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        let earlier = match (before, timers.next_alarm()) {
            (Some(before), Some(next)) => next < before,
            (before, next) => before.is_none() && next.is_some(),
        };
        if earlier {
            self.moved.notify_one();
        }
    }

    /// Whoever leads has the newest state, and gets no snapshot: this member does not lead.
    fn replaced(&self, _: Revision, _: Revision) {
        self.end();
        self.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        state::{Machine, MemoryStorage},
        types::{Command, Lease, LeaseAt, LeaseCheckpoint, LogPosition, Reply},
    };

    /// A member's state, followed by its lessor.
    struct Member {
        machine: Machine,
        lessor: Arc<Lessor>,
        next: LogPosition,
    }

    impl Member {
        fn new() -> Member {
            let lessor = Arc::new(Lessor::default());
            let machine = Machine::recover(Arc::new(MemoryStorage::default()), None, [], []);
            let machine = machine.unwrap().followed_by(vec![lessor.clone()]);
            Member { machine, lessor, next: LogPosition { term: Term(1), index: 0 } }
        }

        /// An entry of the present term.
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
            self.lessor.begin(Term(term), &self.machine.view());
        }

        /// What is due at some time, as it would be proposed.
        fn due(&self, at: Instant) -> Due {
            self.lessor.due(at, |id| self.machine.view().lease_key_count(id))
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_grant_is_timed_from_when_it_was_applied_and_its_end_is_counted() {
        let mut member = Member::new();
        member.lead(1);
        let before = Instant::now();
        member.grant(7, 10);
        let after = Instant::now();
        assert!(member.due(before + secs(10) - Duration::from_nanos(1)).is_empty());
        let due = member.due(after + secs(10));
        assert_eq!(due.ended.len(), 1);
        assert_eq!(member.lessor.renew(&[LeaseId(7)], after).unwrap().1, [Renewal::Ending]);

        member.apply(Command::LeaseExpire { term: Term(1), leases: due.ended });
        assert_eq!(member.lessor.renew(&[LeaseId(7)], after).unwrap().1, [Renewal::Unknown]);
        let expected = LeaseCounters { granted: 1, revoked: 1, renewed: 0, expired: 1, live: 0 };
        assert_eq!(member.lessor.counters(&member.machine.view()), expected);
    }

    #[test]
    fn who_does_not_lead_renews_nothing_and_ends_nothing() {
        let mut member = Member::new();
        member.grant(7, 10);
        assert_eq!(member.lessor.renew(&[LeaseId(7)], Instant::now()), None);
        assert_eq!(member.lessor.remaining(&[LeaseId(7)], Instant::now()), None);
        assert!(member.due(Instant::now() + secs(100)).is_empty());
        member.lead(2);
        assert!(member.lessor.leads(Term(2)) && !member.lessor.leads(Term(1)));
        member.lessor.end();
        assert_eq!(member.lessor.renew(&[LeaseId(7)], Instant::now()), None);
    }

    #[test]
    fn a_change_of_leader_lengthens_a_lease_and_never_shortens_it() {
        let mut member = Member::new();
        member.lead(1);
        member.grant(7, 10);
        let granted = Instant::now();
        // The former leader would have ended it now; this one knows nothing of his clock.
        member.lead(2);
        assert_eq!(member.lessor.renew(&[LeaseId(8)], granted).unwrap().0, Term(2));
        assert!(member.due(granted + secs(10) - secs(1)).is_empty());
        assert_eq!(member.due(Instant::now() + secs(10)).ended.len(), 1);
    }

    #[test]
    fn a_checkpoint_survives_the_leader_and_a_renewal_undoes_it() {
        let mut member = Member::new();
        member.lead(1);
        member.grant(7, 1000);
        let at = LeaseAt { id: LeaseId(7), epoch: member.lease(7).epoch };
        let checkpoints = vec![LeaseCheckpoint { lease: at, remaining: 600 }];
        member.apply(Command::LeaseCheckpoint { term: Term(1), checkpoints });
        member.lead(2);
        let now = Instant::now();
        assert!(member.lessor.remaining(&[LeaseId(7)], now).unwrap()[0].unwrap() <= 600);

        assert_eq!(member.lessor.renew(&[LeaseId(7)], now).unwrap().1, [Renewal::Void(1000)]);
        member.apply(Command::LeaseRenew { term: Term(2), leases: vec![LeaseId(7)] });
        assert_eq!(member.lessor.renew(&[LeaseId(7)], now).unwrap().1, [Renewal::Done(1000)]);
        member.lead(3);
        let left = member.lessor.remaining(&[LeaseId(7)], Instant::now()).unwrap()[0].unwrap();
        assert!(left >= 999, "the next leader gives it all of {left} seconds");
    }

    #[test]
    fn what_a_deposed_leader_saw_end_lives_on() {
        let mut member = Member::new();
        member.lead(1);
        member.grant(7, 10);
        let due = member.due(Instant::now() + secs(10));
        member.lead(2);
        let late = Command::LeaseExpire { term: Term(1), leases: due.ended };
        let replies = member.machine.apply(member.next, [late]).unwrap();
        assert_eq!(replies, [Err(crate::types::CommandError::OtherTerm)]);
        assert_eq!(member.lease(7).ttl, 10);
    }

    #[test]
    fn a_lease_that_was_granted_again_is_not_ended_by_what_was_seen_of_the_first() {
        let mut member = Member::new();
        member.lead(1);
        member.grant(7, 10);
        let due = member.due(Instant::now() + secs(10));
        member.apply(Command::LeaseRevoke(LeaseId(7)));
        member.grant(7, 10);
        let now = Instant::now();
        assert_eq!(member.lessor.renew(&[LeaseId(7)], now).unwrap().1, [Renewal::Done(10)]);
        let late = Command::LeaseExpire { term: Term(1), leases: due.ended };
        let replies = member.machine.apply(member.next, [late]).unwrap();
        assert_eq!(replies, [Ok(Reply::LeasesUpdated)]);
        assert_eq!(member.lease(7).ttl, 10);
    }

    #[test]
    fn an_installed_snapshot_ends_the_leading() {
        let mut member = Member::new();
        member.lead(1);
        member.lessor.replaced(Revision(5), Revision(-1));
        assert!(!member.lessor.leads(Term(1)));
    }

    #[test]
    fn an_earlier_alarm_wakes_who_waits_for_the_first() {
        let mut member = Member::new();
        member.lead(1);
        let moved = |member: &Member| {
            let moved = futures_util::FutureExt::now_or_never(member.lessor.moved());
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
