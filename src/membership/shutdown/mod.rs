//! The graceful shutdown of a pod after SIGTERM.
//!
//! | the StatefulSet | the member |
//! |---|---|
//! | has no replicas, or is gone | hibernates: it stops at once |
//! | is forbidden to the pod, which could read it before | the same: the manifests are being deleted |
//! | excludes this ordinal | leaves: it serves until it neither votes nor leads, drains, and is removed |
//! | includes this ordinal | restarts: it hands over, and stops once the others keep a quorum |
//! | gives no answer for a while | as for a restart |
//!
//! A member that leaves or restarts is a lame duck first: it serves on until its endpoints are withdrawn
//! ([`withdrawal`]). A stop permit lapses, so the member asks for one only then.
//!
//! The [decision table](decision) is pure; here is the loop that observes and acts. The shutdown ends
//! before the [grace period](grace): a SIGKILL after it is a crash like any other.

mod decision;
mod grace;
mod own_set;
#[cfg(test)]
mod tests;
mod withdrawal;

use std::{mem, pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use self::{decision::ShutdownKind, grace::GracePeriod, own_set::OwnSet};
use self::{
    decision::{Action, Drained, Leaving, Observation, Request, Restarting, StopReason, next},
    own_set::RETRY_INTERVAL,
    withdrawal::withdrawn,
};
use super::{
    bootstrap::Bootstrap,
    identity::Identity,
    member_rpc::MemberRpc,
    orchestrator::{ClusterEvent, Intent, OrchestratorError},
    reconcile::{HAND_OVER_TIMEOUT, MembershipReconciler},
    removal::{self, LocalIndexes, MemberStatus},
    stop_permits::StopPermit,
};
use crate::{
    lane::Lanes,
    node::NodePort,
    proto::peer::{NotLeader, may_stop_reply},
    raft::Raft,
};

/// The first request to the orchestrator is retried at a short interval for this time.
const FAST_RETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Without an answer by then the shutdown counts as a restart.
const INTENT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Limit on replicating the desired replicas. The caller repeats it.
const RECORD_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on a hand-over while the manifests are being deleted. If they are not, it saves an election.
const REVOKED_HAND_OVER_TIMEOUT: Duration = Duration::from_millis(500);
/// A quorum counts as lost after this many election timeouts without contact.
const QUORUM_LOST_ELECTION_TIMEOUTS: u32 = 4;
/// The part of the rest of the grace period that the last hand-over may take.
const HAND_OVER_DIVISOR: u32 = 4;
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
}

impl<N: NodePort, P: MemberRpc> GracefulShutdown<'_, N, P> {
    /// Keeps serving until this member may stop, or until the grace period is almost over.
    pub async fn wait(&self, set: &OwnSet, grace: &GracePeriod) -> ShutdownKind {
        let reason = tokio::select! {
            biased;
            reason = self.run(set, grace) => reason,
            () = grace.waiting_ended() => {
                let why = "the grace period is almost over: this member stops although others may \
                           need it";
                tracing::warn!("{why}");
                set.pods().emit(ClusterEvent::warning("Stopping", why.into()));
                return ShutdownKind::Restart;
            }
            never = grace.follow(set.pods()) => match never {},
        };
        log_stop(reason);
        if reason == StopReason::Revoked {
            self.hand_over(REVOKED_HAND_OVER_TIMEOUT).await;
        }
        if reason == StopReason::Left {
            let message = "the other members continue without this one";
            set.pods().emit(ClusterEvent::of_pod("Left", message.into()));
        }
        reason.kind()
    }

    async fn run(&self, set: &OwnSet, grace: &GracePeriod) -> StopReason {
        let (request, intent) = first_request(set).await;
        match next(Observation::Terminating(request)) {
            Action::Stop(reason) => reason,
            Action::Leave => {
                tracing::info!("leaving: the StatefulSet excludes this ordinal");
                self.leave(set, grace, intent).await
            }
            _ => self.restart(set, grace).await,
        }
    }

    /// Serves until the other members do without this one.
    async fn leave(
        &self,
        set: &OwnSet,
        grace: &GracePeriod,
        intent: Result<Intent, OrchestratorError>,
    ) -> StopReason {
        let started = Instant::now();
        let mut withdrawal = pin!(withdrawn(set.pods(), grace));
        let mut is_withdrawn = false;
        self.record_desired(intent).await;
        let mut asked = started;
        loop {
            let has_left = is_withdrawn && self.has_left();
            // A member that has left asks once more: the StatefulSet may include it again.
            if has_left || asked.elapsed() >= set.interval() {
                asked = Instant::now();
                let (request, intent) = set.read().await;
                if request == Request::Included {
                    tracing::info!("restarting: the StatefulSet includes this ordinal again");
                }
                self.record_desired(intent).await;
                let observed = self.observe_leaving(request, has_left, started).await;
                match next(Observation::Leaving(observed)) {
                    Action::Restart => return self.restart(set, grace).await,
                    Action::Stop(reason) => return reason,
                    _ => {}
                }
            }
            tokio::select! {
                () = &mut withdrawal, if !is_withdrawn => is_withdrawn = true,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Gathers only the facts that matter: another member is not asked needlessly.
    async fn observe_leaving(&self, request: Request, had_left: bool, started: Instant) -> Leaving {
        let observed = Leaving { request, ..Leaving::default() };
        if matches!(request, Request::Hibernate | Request::Revoked | Request::Included) {
            return observed;
        }
        if had_left && self.has_left() {
            return Leaving { has_left: true, ..observed };
        }
        let is_removed = self.member_status().await == MemberStatus::Removed;
        let (votes, quorum_lost) = (self.votes(), self.quorum_is_lost(started));
        Leaving { is_removed, votes, quorum_lost, ..observed }
    }

    /// Serves until this member may stop, or the StatefulSet asks it to stop at once.
    async fn restart(&self, set: &OwnSet, grace: &GracePeriod) -> StopReason {
        let permitted = async {
            // First of all: meanwhile the next leader settles, before which it permits no stop, and the
            // Service of the leader selects its pod, before this one is not ready.
            self.hand_over(HAND_OVER_TIMEOUT).await;
            withdrawn(set.pods(), grace).await;
            self.stop_when_permitted().await
        };
        tokio::select! {
            reason = permitted => reason,
            reason = set.hibernation() => reason,
        }
    }

    /// Hands over if this member leads, and serves until the leader permits it to stop.
    async fn stop_when_permitted(&self) -> StopReason {
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
                self.hand_over(HAND_OVER_TIMEOUT).await;
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
                return reason;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Completes the [leave](ShutdownKind::Leave) of a drained member: reports to the leader, which then
    /// removes it. If this member does not learn of its removal in time, its next start does.
    pub async fn complete_leave(&self, set: &OwnSet, grace: &GracePeriod) {
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
                    tokio::select! {
                        _ = self.restart(set, grace) => {}
                        () = grace.waiting_ended() => {}
                    }
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
    pub async fn hand_over_again(&self, grace: &GracePeriod) {
        self.hand_over(grace.deadline().share_of_rest(HAND_OVER_DIVISOR, HAND_OVER_TIMEOUT)).await;
    }

    async fn hand_over(&self, limit: Duration) {
        self.raft.transfer_leadership(&self.reconciler.stop_permits(), limit).await;
    }

    /// Replicates the desired replicas, so that the leader does not depend on its own next poll.
    async fn record_desired(&self, intent: Result<Intent, OrchestratorError>) {
        if let Ok(Intent::Scale(desired)) = intent {
            let recorded = self.reconciler.set_desired_replicas(desired);
            let _ = tokio::time::timeout(RECORD_TIMEOUT, recorded).await;
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

/// Asks the orchestrator until it answers; without an answer, for [`INTENT_TIMEOUT`].
async fn first_request(set: &OwnSet) -> (Request, Result<Intent, OrchestratorError>) {
    let started = Instant::now();
    loop {
        let (request, answer) = set.read().await;
        match &answer {
            Err(_) if request == Request::Revoked => return (request, answer),
            Err(e) if started.elapsed() >= INTENT_TIMEOUT => {
                tracing::warn!(error = %e, "no answer from Kubernetes, restarting this member");
                return (request, answer);
            }
            Err(_) if started.elapsed() < FAST_RETRY_TIMEOUT => {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(_) => tokio::time::sleep(set.interval()).await,
            Ok(_) => return (request, answer),
        }
    }
}

fn log_stop(reason: StopReason) {
    match reason {
        StopReason::Hibernating => tracing::info!("stopping: the StatefulSet hibernates"),
        StopReason::Revoked => tracing::info!(
            "stopping: the StatefulSet may no longer be read, its manifests are being deleted"
        ),
        StopReason::Left => tracing::info!("stopping: this member has left"),
        StopReason::Removed => tracing::info!("stopping: this member was removed"),
        StopReason::Permitted => tracing::debug!("stopping: the leader permits it"),
        StopReason::NoQuorum => tracing::info!("stopping: the quorum is lost"),
    }
}
