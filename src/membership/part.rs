//! How a pod that is told to stop does so: by what is to become of it.
//!
//! | Kubernetes says | the member |
//! |---|---|
//! | no replicas, or the set is gone | hibernates: stops at once |
//! | this ordinal is not wanted | leaves: serves until it votes no more, and has nothing to lead; then says that it is done, and is removed |
//! | it is wanted | restarts: hands over, then stops as soon as the others can do without it |
//! | nothing, for a while | as a restart |
//!
//! Whatever happens, it is over before the grace period is: being killed then is a crash like any other.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Fellows, Intent, News, Orchestrator, Standing, Steward,
    formation::Formation,
    identity::Identity,
    standing::{self, Kept},
    steward::MayStop,
};
use crate::{
    lane::Lanes,
    node::NodePort,
    proto::peer::{NotLeader, may_stop_reply},
    raft::Raft,
    types::Desired,
};

/// The first question is asked again for so long.
const FRESH: Duration = Duration::from_secs(2);
/// Without an answer by then it is taken for a restart.
const UNANSWERED: Duration = Duration::from_secs(10);
/// A leaver answers for so long after it was told to go: who looks at endpoints hears of it meanwhile, and
/// many that leave at once do not send their clients to each other.
const NOTICE: Duration = Duration::from_secs(1);
/// Between two questions while something is waited for.
const ASK_EVERY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is left of the grace period to close everything; half of it, if it is short.
const RESERVE: Duration = Duration::from_secs(15);
const HAND_OVER: Duration = Duration::from_secs(2);
/// After so many election timeouts without a quorum there is none to keep.
const QUORUM_TIMEOUTS: u32 = 4;
/// Whoever votes no more is removed within this.
const REMOVAL: Duration = Duration::from_secs(2);

/// Whether the member comes back to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parted {
    /// With all others, some time.
    ToSleep,
    ToReturn,
    ForGood,
}

/// What a member that parts needs.
#[derive(Debug)]
pub struct Parting<'a, N, P> {
    pub formation: &'a Arc<Formation>,
    pub lanes: Lanes,
    pub steward: &'a Steward<N>,
    pub raft: &'a Raft,
    pub peers: &'a P,
    pub me: &'a Identity,
    /// How long Kubernetes waits from the signal on.
    pub grace: Duration,
}

impl<N: NodePort, P: Fellows> Parting<'_, N, P> {
    /// When all has to be over that a member told to stop now waits for.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.grace - RESERVE.min(self.grace / 2)
    }

    /// Serves on until this member may stop.
    pub async fn wait(&self, pods: &dyn Orchestrator, deadline: Instant) -> Parted {
        let parting = async {
            match self.intent(pods).await {
                Some(Intent::Hibernate) => {
                    tracing::info!("hibernating: all pods stop");
                    Parted::ToSleep
                }
                Some(Intent::Scale(desired)) if !desired.wants(self.me.ordinal) => {
                    self.leave(pods, desired).await
                }
                Some(Intent::Scale(_)) | None => self.restart().await,
            }
        };
        let parted = tokio::time::timeout_at(deadline, parting).await;
        parted.unwrap_or_else(|_| {
            let why =
                "the grace period is almost over: stopping although others may need this member";
            tracing::warn!("{why}");
            pods.say(News::warning("Stopping", why.into()));
            Parted::ToReturn
        })
    }

    /// Asks anew; for longer than [`FRESH`] only if nobody answers at all.
    async fn intent(&self, pods: &dyn Orchestrator) -> Option<Intent> {
        let begun = Instant::now();
        loop {
            match pods.intent().await {
                Ok(intent) => return Some(intent),
                Err(e) if begun.elapsed() >= UNANSWERED => {
                    tracing::warn!(error = %e, "nobody says whether this pod is to leave: it is not");
                    return None;
                }
                Err(_) if begun.elapsed() < FRESH => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    /// Stays until the others do without it, as long as that is what is wanted.
    async fn leave(&self, pods: &dyn Orchestrator, desired: Desired) -> Parted {
        tracing::info!("leaving: this ordinal is not wanted any more");
        let begun = Instant::now();
        self.desire(desired).await;
        let mut asked = begun;
        loop {
            let has_left = begun.elapsed() >= NOTICE && self.has_left();
            // Not without a last question: it may be wanted again since.
            if has_left || asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                match pods.intent().await {
                    Ok(Intent::Hibernate) => return Parted::ToSleep,
                    Ok(Intent::Scale(desired)) if desired.wants(self.me.ordinal) => {
                        tracing::info!("this ordinal is wanted again: restarting");
                        self.desire(desired).await;
                        return self.restart().await;
                    }
                    Ok(Intent::Scale(desired)) => self.desire(desired).await,
                    // What was wanted holds until somebody says otherwise.
                    Err(_) => {}
                }
                if has_left && self.has_left() {
                    tracing::info!("this member has left");
                    let message = "the other members go on without this one";
                    pods.say(News::of_pod("Left", message.into()));
                    return Parted::ForGood;
                }
                if self.standing().await == Standing::Removed {
                    return Parted::ForGood;
                }
                if !self.votes() && self.quorum_is_lost(begun) {
                    tracing::info!("there is no quorum to let this member go: it serves nobody");
                    return Parted::ToReturn;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lets all members know how many there are to be. Who asks does so again, so it does not wait for long.
    async fn desire(&self, desired: Desired) {
        let _ = tokio::time::timeout(ASK_EVERY, self.steward.desire(desired)).await;
    }

    /// Whether the committed membership, of one voter set, does not need this member, and none that is
    /// planned by what the members know to be wanted will.
    fn has_left(&self) -> bool {
        let (committed, newest) = (self.raft.committed_membership(), self.raft.membership());
        let desired = &self.raft.view().roster().desired;
        committed.at == newest.at
            && committed.voters.len() == 1
            && !committed.is_voter(self.me.member)
            && !self.raft.leadership().is_mine()
            && !desired.as_ref().is_some_and(|desired| desired.wants(self.me.ordinal))
    }

    /// Of a member that left [for good](Parted::ForGood), and serves nobody any more: says so to the leader,
    /// which then removes it. Its data is set aside at the next start, without a detour; if it does not
    /// hear of its removal here, the next start finds out.
    pub async fn be_removed(&self, deadline: Instant) {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.raft.leadership().leader {
                // Asked again until it is removed; an answer would say no more.
                let _ = self.peers.may_stop(leader).await;
            }
            if self.standing().await == Standing::Removed {
                break;
            }
            if self.raft.membership().is_voter(self.me.member) {
                tracing::info!("this member votes again: it stops as one that restarts");
                let _ = tokio::time::timeout_at(deadline, self.restart()).await;
                return;
            }
            if begun.elapsed() > REMOVAL {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let formation = self.formation.clone();
        let buried = self.lanes.run("identity", move || formation.bury()).await;
        if !matches!(buried, Ok(Some(Ok(())))) {
            tracing::warn!(?buried, "the volume is not marked as a dead member's");
        }
    }

    /// Of a member that serves nobody any more: whoever was handed the lead may have stopped since.
    pub async fn lead_no_more(&self) {
        self.raft.hand_over(&self.steward.let_go(), HAND_OVER).await;
    }

    async fn standing(&self) -> Standing {
        let kept = Kept::of(self.raft, self.me.member);
        standing::ask(self.peers, self.me, kept, self.steward.ordinals(), standing::PATIENCE).await
    }

    /// Hands over, if it leads, as soon as the others would do without this voter; and stays until the
    /// leader says so, who then is another one.
    async fn restart(&self) -> Parted {
        let mut said = String::new();
        let (begun, mut told_to_wait) = (Instant::now(), Instant::now());
        let mut lost = false;
        loop {
            let led = self.raft.leadership().is_mine();
            match self.may_stop().await {
                Some(MayStop::Yes) if led => {
                    self.raft.hand_over(&self.steward.let_go(), HAND_OVER).await;
                    // The new leader may not have found the others yet: it is asked, too. Without one,
                    // there is nobody else.
                    if self.raft.leadership().is_mine() {
                        return Parted::ToReturn;
                    }
                }
                Some(MayStop::Yes) => return Parted::ToReturn,
                Some(MayStop::Wait(why)) => {
                    told_to_wait = Instant::now();
                    if why != said {
                        tracing::info!("not stopping yet: {why}");
                        said = why;
                    }
                }
                Some(MayStop::NotLeader) | None => {}
            }
            let before = mem::replace(&mut lost, self.quorum_is_lost(begun.max(told_to_wait)));
            // Not at the first look: after a pause of this process all looks old.
            if lost && before {
                tracing::info!("there is no quorum to keep: this member makes no difference");
                return Parted::ToReturn;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether nothing was heard of a quorum for so long, and for so long since `then`, that there is none.
    fn quorum_is_lost(&self, then: Instant) -> bool {
        let limit = self.raft.timing().election_timeout * QUORUM_TIMEOUTS;
        then.elapsed() > limit && self.raft.quorum_age().is_none_or(|age| age > limit)
    }

    /// Whether it votes, as far as it knows.
    fn votes(&self) -> bool {
        let (committed, newest) = (self.raft.committed_membership(), self.raft.membership());
        [committed, newest].iter().any(|known| known.is_voter(self.me.member))
    }

    /// Who has no vote may stop whatever the leader says, but asks, so as not to be given one now.
    async fn may_stop(&self) -> Option<MayStop> {
        let said = self.ask_leader().await;
        match said {
            None | Some(MayStop::NotLeader) if !self.votes() => Some(MayStop::Yes),
            said => said,
        }
    }

    async fn ask_leader(&self) -> Option<MayStop> {
        let leader = self.raft.leadership().leader?;
        if leader.member == self.me.member {
            return Some(self.steward.may_stop(self.me.member, self.me.boot));
        }
        match self.peers.may_stop(leader).await.ok()?.result? {
            may_stop_reply::Result::Granted(_) => Some(MayStop::Yes),
            may_stop_reply::Result::Wait(why) => Some(MayStop::Wait(why)),
            may_stop_reply::Result::NotLeader(NotLeader { .. }) => Some(MayStop::NotLeader),
        }
    }
}
