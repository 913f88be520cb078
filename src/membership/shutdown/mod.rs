//! The graceful shutdown of a pod after SIGTERM.
//!
//! | the StatefulSet | the member |
//! |---|---|
//! | has no replicas, or is gone | hibernates: it stops at once |
//! | excludes this ordinal | leaves: it serves until it neither votes nor leads, drains, and is removed |
//! | includes this ordinal | restarts: it hands over, and stops once the others keep a quorum |
//! | gives no answer for a while | as for a restart |
//!
//! The [decision table](decision) is pure; here is the loop that observes and acts. The shutdown ends
//! before the grace period: a SIGKILL after it is a crash like any other.

mod decision;

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use self::decision::ShutdownKind;
use self::decision::{
    Action, Drained, Leaving, Observation, Request, Restarting, StopReason, next,
};
use super::{
    bootstrap::Bootstrap,
    identity::Identity,
    member_rpc::MemberRpc,
    orchestrator::{ClusterEvent, Intent, Orchestrator},
    reconcile::{HAND_OVER_TIMEOUT, MembershipReconciler},
    removal::{self, LocalIndexes, MemberStatus},
    stop_permits::StopPermit,
};
use crate::{
    lane::Lanes,
    node::NodePort,
    proto::peer::{NotLeader, may_stop_reply},
    raft::Raft,
    types::Ordinal,
};

/// The first request to the orchestrator is retried at a short interval for this time.
const FAST_RETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Without an answer by then the shutdown counts as a restart.
const INTENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A leaving member serves at least this long: meanwhile the removal of its endpoint reaches the clients,
/// and members that leave together do not send their clients to each other.
const LEAVE_NOTICE: Duration = Duration::from_secs(1);
/// Interval of requests to the orchestrator while a member leaves.
const INTENT_INTERVAL: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The part of the grace period that is kept for closing the storage; half of a shorter period.
const CLOSE_RESERVE: Duration = Duration::from_secs(15);
/// A quorum counts as lost after this many election timeouts without contact.
const QUORUM_LOST_ELECTION_TIMEOUTS: u32 = 4;
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The shutdown of one member.
#[derive(Debug)]
pub struct GracefulShutdown<'a, N, P> {
    pub bootstrap: &'a Arc<Bootstrap>,
    pub lanes: Lanes,
    pub reconciler: &'a MembershipReconciler<N>,
    pub raft: &'a Raft,
    pub peers: &'a P,
    pub me: &'a Identity,
    /// The time from SIGTERM to SIGKILL.
    pub grace: Duration,
}

impl<N: NodePort, P: MemberRpc> GracefulShutdown<'_, N, P> {
    /// The end of all waiting, for a shutdown that starts now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.grace - CLOSE_RESERVE.min(self.grace / 2)
    }

    /// Keeps serving until this member may stop, or until `deadline`.
    pub async fn wait(&self, pods: &dyn Orchestrator, deadline: Instant) -> ShutdownKind {
        let reason = tokio::time::timeout_at(deadline, self.run(pods)).await;
        match reason {
            Ok(reason) => reason.kind(),
            Err(_) => {
                let why = "the grace period is almost over: this member stops although others may \
                           need it";
                tracing::warn!("{why}");
                pods.emit(ClusterEvent::warning("Stopping", why.into()));
                ShutdownKind::Restart
            }
        }
    }

    async fn run(&self, pods: &dyn Orchestrator) -> StopReason {
        let intent = self.first_intent(pods).await;
        let request = request(intent.as_ref(), self.me.ordinal);
        match next(Observation::Terminating(request)) {
            Action::Stop(reason) => {
                log_stop(reason);
                reason
            }
            Action::Leave => {
                tracing::info!("leaving: the StatefulSet excludes this ordinal");
                self.leave(pods, intent).await
            }
            _ => self.restart().await,
        }
    }

    /// Asks the orchestrator until it answers; `None` after [`INTENT_TIMEOUT`].
    async fn first_intent(&self, pods: &dyn Orchestrator) -> Option<Intent> {
        let started = Instant::now();
        loop {
            match pods.intent().await {
                Ok(intent) => return Some(intent),
                Err(e) if started.elapsed() >= INTENT_TIMEOUT => {
                    tracing::warn!(error = %e, "no answer from Kubernetes, restarting this member");
                    return None;
                }
                Err(_) if started.elapsed() < FAST_RETRY_TIMEOUT => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Err(_) => tokio::time::sleep(INTENT_INTERVAL).await,
            }
        }
    }

    /// Serves until the other members do without this one.
    async fn leave(&self, pods: &dyn Orchestrator, intent: Option<Intent>) -> StopReason {
        let started = Instant::now();
        self.record_desired(intent).await;
        let mut asked = started;
        loop {
            let has_left = started.elapsed() >= LEAVE_NOTICE && self.has_left();
            // A member that has left asks once more: the StatefulSet may include it again.
            if has_left || asked.elapsed() >= INTENT_INTERVAL {
                asked = Instant::now();
                let intent = pods.intent().await.ok();
                let request = request(intent.as_ref(), self.me.ordinal);
                if request != Request::Hibernate {
                    if request == Request::Included {
                        tracing::info!("restarting: the StatefulSet includes this ordinal again");
                    }
                    self.record_desired(intent).await;
                }
                let observed = self.observe_leaving(request, has_left, started).await;
                match next(Observation::Leaving(observed)) {
                    Action::Restart => return self.restart().await,
                    Action::Stop(reason) => {
                        log_stop(reason);
                        if reason == StopReason::Left {
                            let message = "the other members continue without this one";
                            pods.emit(ClusterEvent::of_pod("Left", message.into()));
                        }
                        return reason;
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Gathers only the facts that matter: another member is not asked needlessly.
    async fn observe_leaving(&self, request: Request, had_left: bool, started: Instant) -> Leaving {
        let observed = Leaving { request, ..Leaving::default() };
        if matches!(request, Request::Hibernate | Request::Included) {
            return observed;
        }
        if had_left && self.has_left() {
            return Leaving { has_left: true, ..observed };
        }
        let is_removed = self.member_status().await == MemberStatus::Removed;
        let (votes, quorum_lost) = (self.votes(), self.quorum_is_lost(started));
        Leaving { is_removed, votes, quorum_lost, ..observed }
    }

    /// Hands over if this member leads, and serves until the leader permits it to stop.
    async fn restart(&self) -> StopReason {
        let started = Instant::now();
        let mut last_refusal = started;
        let mut logged = String::new();
        let mut quorum_lost = false;
        loop {
            let leads = self.raft.leadership().is_mine();
            let permit = self.may_stop().await;
            if let Some(StopPermit::Wait(reason)) = &permit {
                last_refusal = Instant::now();
                if *reason != logged {
                    tracing::info!(reason, "not stopping yet");
                    logged.clone_from(reason);
                }
            }
            let is_permitted = permit == Some(StopPermit::Granted);
            let mut observed = Restarting { is_permitted, leads, ..Restarting::default() };
            if next(Observation::Restarting(observed)) == Action::HandOver {
                self.raft
                    .transfer_leadership(&self.reconciler.stop_permits(), HAND_OVER_TIMEOUT)
                    .await;
                // The new leader must permit the stop too: it may not have reached the other voters
                // yet. If no member took over, this member's permit is final.
                observed.is_permitted = self.raft.leadership().is_mine();
                observed.leads = false;
            }
            if !observed.is_permitted {
                let is_lost = self.quorum_is_lost(started.max(last_refusal));
                observed.quorum_was_lost = mem::replace(&mut quorum_lost, is_lost);
                observed.quorum_lost = is_lost;
            }
            if let Action::Stop(reason) = next(Observation::Restarting(observed)) {
                log_stop(reason);
                return reason;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Completes the [leave](ShutdownKind::Leave) of a drained member: reports to the leader, which then
    /// removes it. If this member does not learn of its removal in time, its next start does.
    pub async fn complete_leave(&self, deadline: Instant) {
        let started = Instant::now();
        loop {
            if let Some(leader) = self.raft.leadership().leader {
                // The request itself reports that this member has drained; the answer is not needed.
                let _ = self.peers.may_stop(leader).await;
            }
            let observed = Drained {
                is_removed: self.member_status().await == MemberStatus::Removed,
                votes: self.raft.membership().is_voter(self.me.member),
                timed_out: started.elapsed() > REMOVAL_TIMEOUT,
            };
            match next(Observation::Drained(observed)) {
                Action::MarkRemoved => break,
                Action::Restart => {
                    tracing::info!("restarting: this member votes again");
                    let _ = tokio::time::timeout_at(deadline, self.restart()).await;
                    return;
                }
                Action::Finish => return,
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        let bootstrap = self.bootstrap.clone();
        let marked = self.lanes.run("identity", move || bootstrap.mark_removed()).await;
        if !matches!(marked, Ok(Some(Ok(())))) {
            tracing::warn!(?marked, "volume not marked as removed");
        }
    }

    /// Hands over once more after draining: the previous successor may have stopped since.
    pub async fn hand_over_again(&self) {
        self.raft.transfer_leadership(&self.reconciler.stop_permits(), HAND_OVER_TIMEOUT).await;
    }

    /// Replicates the desired replicas, so that the leader does not depend on its own next poll. Bounded,
    /// because the caller repeats it.
    async fn record_desired(&self, intent: Option<Intent>) {
        if let Some(Intent::Scale(desired)) = intent {
            let recorded = self.reconciler.set_desired_replicas(desired);
            let _ = tokio::time::timeout(INTENT_INTERVAL, recorded).await;
        }
    }

    /// Whether the committed membership does without this member, is not joint, and the recorded
    /// replicas exclude it, so that no later plan needs it.
    fn has_left(&self) -> bool {
        let (committed, newest) = (self.raft.committed_membership(), self.raft.membership());
        let desired = &self.raft.view().roster().desired;
        committed.at == newest.at
            && committed.voters.len() == 1
            && !committed.is_voter(self.me.member)
            && !self.raft.leadership().is_mine()
            && !desired.as_ref().is_some_and(|desired| desired.includes(self.me.ordinal))
    }

    async fn member_status(&self) -> MemberStatus {
        let indexes = LocalIndexes::of(self.raft, self.me.member);
        let ordinals = self.reconciler.ordinals();
        let timeout = removal::STATUS_TIMEOUT;
        removal::ask_member_status(self.peers, self.me, indexes, ordinals, timeout).await
    }

    /// Whether the quorum was out of contact for several election timeouts, all of them after `since`.
    fn quorum_is_lost(&self, since: Instant) -> bool {
        let limit = self.raft.timing().election_timeout * QUORUM_LOST_ELECTION_TIMEOUTS;
        since.elapsed() > limit && self.raft.quorum_age().is_none_or(|age| age > limit)
    }

    /// Whether this member votes, in the committed or in the newest membership that it knows.
    fn votes(&self) -> bool {
        let (committed, newest) = (self.raft.committed_membership(), self.raft.membership());
        [committed, newest].iter().any(|known| known.is_voter(self.me.member))
    }

    /// A learner may stop without a leader. It asks all the same, so that it is not promoted now.
    async fn may_stop(&self) -> Option<StopPermit> {
        let answer = self.ask_leader().await;
        match answer {
            None | Some(StopPermit::NotLeader) if !self.votes() => Some(StopPermit::Granted),
            answer => answer,
        }
    }

    async fn ask_leader(&self) -> Option<StopPermit> {
        let leader = self.raft.leadership().leader?;
        if leader.member == self.me.member {
            return Some(self.reconciler.may_stop(self.me.member, self.me.boot));
        }
        match self.peers.may_stop(leader).await.ok()?.result? {
            may_stop_reply::Result::Granted(_) => Some(StopPermit::Granted),
            may_stop_reply::Result::Wait(reason) => Some(StopPermit::Wait(reason)),
            may_stop_reply::Result::NotLeader(NotLeader { .. }) => Some(StopPermit::NotLeader),
        }
    }
}

fn request(intent: Option<&Intent>, ordinal: Ordinal) -> Request {
    match intent {
        None => Request::Unknown,
        Some(Intent::Hibernate) => Request::Hibernate,
        Some(Intent::Scale(desired)) if desired.includes(ordinal) => Request::Included,
        Some(Intent::Scale(_)) => Request::Excluded,
    }
}

fn log_stop(reason: StopReason) {
    match reason {
        StopReason::Hibernating => tracing::info!("stopping: the StatefulSet hibernates"),
        StopReason::Left => tracing::info!("stopping: this member has left"),
        StopReason::Removed => tracing::info!("stopping: this member was removed"),
        StopReason::Permitted => tracing::debug!("stopping: the leader permits it"),
        StopReason::NoQuorum => tracing::info!("stopping: the quorum is lost"),
    }
}
