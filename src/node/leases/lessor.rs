//! The leader's clock for leases, told by the apply lane what becomes of them.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::{sync::Notify, time::Instant};

use super::timers::{Due, Renewal, Timers};
use crate::{
    state::{EventSink, LeaseChange, Published, View},
    types::{LeaseId, Revision, Term},
};

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

#[derive(Debug, Default)]
struct Counters {
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
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

    /// Takes over from the leaders before `term`, all of whose entries are applied. Every lease has
    /// from now on what the state says is left of it.
    pub(super) fn begin(&self, term: Term, view: &View, now: Instant) {
        // What is applied while we look is told afterwards, and says the same again: it waits here.
        let mut leading = self.leading();
        let mut timers = Timers::default();
        view.leases().into_iter().for_each(|lease| timers.set(lease, now));
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
        let granted = changes.iter().filter(|change| matches!(change, LeaseChange::Granted(_)));
        self.counters.granted.fetch_add(granted.count() as u64, Relaxed);
        let gone = changes.iter().filter(|change| matches!(change, LeaseChange::Gone(_)));
        self.counters.revoked.fetch_add(gone.count() as u64, Relaxed);
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
