//! The reconciler: on the leader, drives the membership towards its target.
//!
//! ```text
//! observe ──▶ planner ──▶ execute one step          every 200 ms, and again after each step
//! StatefulSet ──▶ desired replicas, replicated      replicas.rs
//! ```
//!
//! Every step is guarded by the membership that it was planned on: Raft refuses the step if the
//! membership has changed since.

mod catch_up;
mod execute;
mod observe;
mod overview;
mod replicas;
mod stalls;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use self::{catch_up::CatchUp, stalls::Stalls};
use super::{
    orchestrator::{ClusterEvent, LeaderUpdate, Orchestrator},
    planner::{self, Plan},
    reminder::REMINDER_INTERVAL,
    stop_permits::{StopPermit, StopPermits},
};
use crate::{
    node::NodePort,
    raft::Raft,
    shutdown::ShutdownSignal,
    types::{ClusterId, MemberId, MemberRef, Ordinal, Term},
};

const RECONCILE_INTERVAL: Duration = Duration::from_millis(200);
/// Limit on a leadership transfer, which normally takes milliseconds.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// A new leader grants no stop permit to a voter for this many election timeouts: it does not know yet
/// which voters are reachable, or hold a permit of the previous leader.
const SETTLE_ELECTION_TIMEOUTS: u32 = 2;
/// A blocked plan is reported as an Event after this time.
const EVENT_AFTER: Duration = Duration::from_secs(5);

/// Reconciles the membership while this member leads.
pub struct MembershipReconciler<N> {
    pub(super) raft: Raft,
    pub(super) node: N,
    pub(super) cluster: ClusterId,
    max_voters: u32,
    orchestrator: Option<Arc<dyn Orchestrator>>,
    catch_up: Mutex<CatchUp>,
    stalls: Mutex<Stalls>,
    permits: Mutex<StopPermits>,
    /// The start of this member's current leadership.
    leads_since: Mutex<Option<(Term, Instant)>>,
    /// Members that an operator is removing; each entry lives as long as its request.
    pub(super) requested_removals: Mutex<BTreeSet<MemberId>>,
    plan: watch::Sender<Plan>,
}

impl<N> fmt::Debug for MembershipReconciler<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembershipReconciler")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl<N: NodePort> MembershipReconciler<N> {
    pub fn new(
        raft: Raft,
        node: N,
        cluster: ClusterId,
        max_voters: u32,
        orchestrator: Option<Arc<dyn Orchestrator>>,
    ) -> MembershipReconciler<N> {
        MembershipReconciler {
            raft,
            node,
            cluster,
            max_voters,
            orchestrator,
            catch_up: Mutex::default(),
            stalls: Mutex::default(),
            permits: Mutex::default(),
            leads_since: Mutex::default(),
            plan: watch::Sender::new(Plan::Settled),
            requested_removals: Mutex::default(),
        }
    }

    /// The last plan, on the leader.
    pub fn plan(&self) -> Plan {
        self.plan.borrow().clone()
    }

    /// Whether the StatefulSet decides the number of members. Operators cannot change it then.
    pub fn follows_pods(&self) -> bool {
        self.orchestrator.is_some()
    }

    /// The ordinals of this cluster's members.
    pub fn ordinals(&self) -> BTreeSet<Ordinal> {
        self.raft.members().into_iter().map(|m| m.member_ref.ordinal).collect()
    }

    /// Plans and executes one step after the other, until `stopping` resolves.
    pub async fn run(&self, mut stopping: ShutdownSignal) {
        let mut tick = tokio::time::interval(RECONCILE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reporter = BlockedReporter::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.wait() => return,
            }
            if !self.raft.leadership().is_mine() {
                lock(&self.catch_up).clear();
                self.plan.send_if_modified(|plan| {
                    std::mem::replace(plan, Plan::Settled) != Plan::Settled
                });
                reporter = BlockedReporter::default();
                continue;
            }
            self.leads_for();
            let membership = self.raft.membership();
            self.record_progress(&membership);
            let observed = self.observe_membership(&membership);
            // The target is unknown until the replicas of the StatefulSet are recorded.
            if self.orchestrator.is_some() && observed.desired.is_none() {
                continue;
            }
            let plan = self.defer_removals(planner::plan(&observed), &observed);
            self.plan.send_replace(plan.clone());
            match plan {
                Plan::Settled => reporter = BlockedReporter::default(),
                Plan::Wait(blocked) => {
                    if let Some(reason) = reporter.report(&blocked.to_string(), Instant::now()) {
                        self.emit(ClusterEvent::of_set("Waiting", reason));
                    }
                }
                Plan::Do(step) => {
                    reporter = BlockedReporter::default();
                    tokio::select! {
                        () = stopping.wait() => return,
                        () = self.execute(&step, &membership) => {}
                    }
                }
            }
        }
    }

    /// Publishes the active leader into `leader` until `stopping` resolves. A leader without a quorum is
    /// not active.
    pub async fn publish_leader(
        &self,
        leader: watch::Sender<LeaderUpdate>,
        mut stopping: ShutdownSignal,
    ) {
        let mut leadership = self.raft.watch_active_leadership();
        loop {
            let now = leadership.now();
            leader.send_replace(LeaderUpdate {
                cluster: self.cluster,
                term: now.term,
                leader: now.leader.map(|leader: MemberRef| leader.ordinal),
                is_me: now.is_mine(),
            });
            tokio::select! {
                () = stopping.wait() => return,
                changed = leadership.changed() => if changed.is_none() { return },
            }
        }
    }

    /// Decides as the leader whether a member may stop. A member with a permit counts as stopped from
    /// then on.
    pub fn may_stop(&self, member: MemberId, boot: u64) -> StopPermit {
        if !self.raft.leadership().is_mine() {
            return StopPermit::NotLeader;
        }
        if !self.raft.membership().is_voter(member) {
            lock(&self.permits).grant(member, boot, Instant::now());
            return StopPermit::Granted;
        }
        if self.leads_for() < self.raft.timing().election_timeout * SETTLE_ELECTION_TIMEOUTS {
            return StopPermit::Wait("the leader was elected a moment ago".into());
        }
        let observed = self.observe();
        // The lock is held throughout: of two concurrent requests, each must see the other's permit.
        let mut permits = lock(&self.permits);
        self.drop_stale_permits(&mut permits);
        permits.request(observed, member, boot, Instant::now())
    }

    /// The members that hold a stop permit.
    pub fn stop_permits(&self) -> BTreeSet<MemberId> {
        let mut permits = lock(&self.permits);
        self.drop_stale_permits(&mut permits);
        permits.holders()
    }

    fn drop_stale_permits(&self, permits: &mut StopPermits) {
        let roster = self.raft.view().roster();
        let boot_of = |id| roster.members.get(&id).map(|attributes| attributes.boot);
        let leader = (self.raft.leadership().me, self.leads_for());
        permits.drop_stale(boot_of, leader, Instant::now());
    }

    /// The time since the first call in this leadership. Zero if this member does not lead.
    fn leads_for(&self) -> Duration {
        let now = self.raft.leadership();
        let mut since = lock(&self.leads_since);
        if !now.is_mine() {
            *since = None;
            return Duration::ZERO;
        }
        match *since {
            Some((term, at)) if term == now.term => at.elapsed(),
            _ => {
                *since = Some((now.term, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn emit(&self, event: ClusterEvent) {
        if let Some(pods) = &self.orchestrator {
            pods.emit(event);
        }
    }
}

/// Logs the reason of a blocked plan at once, and emits an Event once it has lasted, again and again.
#[derive(Debug, Default)]
struct BlockedReporter {
    reason: String,
    next_event: Option<Instant>,
}

impl BlockedReporter {
    /// Returns the reason if an Event is due at `now`.
    fn report(&mut self, reason: &str, now: Instant) -> Option<String> {
        if reason != self.reason {
            tracing::info!(reason, "membership change blocked");
            *self = BlockedReporter { reason: reason.into(), next_event: Some(now + EVENT_AFTER) };
        }
        self.next_event.filter(|next| now > *next)?;
        self.next_event = Some(now + REMINDER_INTERVAL);
        Some(self.reason.clone())
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_plan_is_an_event_once_it_has_lasted_and_again_while_it_lasts() {
        let (mut reporter, begun) = (BlockedReporter::default(), Instant::now());
        let mut events = |reason: &str, seconds: std::ops::Range<u64>| {
            let due = |s| reporter.report(reason, begun + Duration::from_secs(s)).map(|_| s);
            seconds.filter_map(due).collect::<Vec<_>>()
        };
        assert!(events("a", 0..6).is_empty());
        assert_eq!(events("a", 6..1300), [6, 607, 1208]);
        // Another reason starts over, as does a plan that was not blocked in between.
        assert_eq!(events("b", 1300..1310), [1306]);
        reporter = BlockedReporter::default();
        assert_eq!(reporter.report("b", begun), None);
    }
}
