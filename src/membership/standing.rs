//! Whether a member still is one: it may have been removed, or its volume rolled back, while it was away.
//!
//! Who is removed is not told so by Raft: nobody speaks to it any more. So a member that hears of no
//! leader asks the others. And before it takes part at all, a started one asks whether its volume holds
//! what it has acknowledged: Raft could not tell.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{
    Fellows, Intent, Orchestrator, identity::Identity, orchestrator::led_last, waking::Waking,
};
use crate::{
    proto::peer::{StandingReply, StandingRequest, standing_reply::Standing as Wire},
    raft::Raft,
    types::{ClusterId, Desired, MemberId, Ordinal},
};

/// Whoever does not answer a running member within this is not waited for.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Nor a member that starts: longer, because a leader hears from a majority before it says that a
/// volume was rolled back, and nobody else can tell.
pub const PATIENCE_AT_START: Duration = Duration::from_secs(2);

/// What the others say of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody could tell.
    Unknown,
    Member,
    /// Removed: this id is dead.
    Removed,
    /// Its volume is an older copy: it would break its word.
    RolledBack,
}

impl Standing {
    /// Whether it must never again take part under its id.
    pub fn is_dead(self) -> bool {
        matches!(self, Standing::Removed | Standing::RolledBack)
    }
}

/// What a member says of itself when it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The last entry of its log, as long as it takes no part.
    pub last_index: u64,
    /// The entry of the last membership with it that it knows to be committed; zero: it knows none, and
    /// nobody can tell it that it was removed.
    pub membership_index: u64,
}

impl Kept {
    /// As it is now, on a member that runs. What its log holds grows while the question is under way,
    /// so nobody is to judge by that.
    pub fn of(raft: &Raft, member: MemberId) -> Kept {
        let committed = raft.committed_membership();
        let at = committed.at.filter(|_| committed.has(member));
        Kept { last_index: u64::MAX, membership_index: at.map_or(0, |at| at.index) }
    }
}

/// Asks all of these, at once, for so long. The worst answer counts: only who certainly knows gives one.
pub async fn ask(
    peers: &impl Fellows,
    me: &Identity,
    kept: Kept,
    ordinals: BTreeSet<Ordinal>,
    patience: Duration,
) -> Standing {
    let request = StandingRequest {
        cluster_id: me.cluster.0,
        member_id: me.member.0,
        ordinal: me.ordinal.0,
        boot: me.boot,
        last_index: kept.last_index,
        membership_index: kept.membership_index,
    };
    let others = ordinals.into_iter().filter(|o| *o != me.ordinal);
    let answers = others.map(|o| tokio::time::timeout(patience, peers.standing(o, request)));
    let answers = futures_util::future::join_all(answers).await;
    let said = answers.into_iter().filter_map(|answer| answer.ok()?.ok());
    said.map(read).max().unwrap_or(Standing::Unknown)
}

fn read(reply: StandingReply) -> Standing {
    match reply.standing() {
        Wire::Unknown => Standing::Unknown,
        Wire::Member => Standing::Member,
        Wire::Removed => Standing::Removed,
        Wire::RolledBack => Standing::RolledBack,
    }
}

/// How long a member hears of no leader before it asks.
const ALONE: Duration = Duration::from_secs(10);
/// The first time sooner: whoever was removed while it was away need not wait.
const ALONE_AT_START: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Resolves when this member has learned that it is dead. Meanwhile, says what else may keep it alone.
pub async fn dead(
    peers: &impl Fellows,
    me: &Identity,
    raft: &Raft,
    known: &BTreeSet<Ordinal>,
    pods: Option<&dyn Orchestrator>,
) -> Standing {
    let mut heard = Instant::now();
    let mut limit = ALONE_AT_START;
    let mut waking = Waking::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if raft.quorum_age().is_some_and(|age| age < ALONE_AT_START) {
            (heard, limit) = (Instant::now(), ALONE);
            continue;
        }
        if heard.elapsed() < limit {
            continue;
        }
        (heard, limit) = (Instant::now(), ALONE);
        let mut ordinals = known.clone();
        ordinals.extend(raft.members().into_iter().map(|m| m.place.ordinal));
        // All whom this member knows may have moved on.
        if let Some(pods) = pods {
            ordinals.extend(led_last(pods).await);
        }
        let standing = ask(peers, me, Kept::of(raft, me.member), ordinals, PATIENCE).await;
        if standing.is_dead() {
            return standing;
        }
        if let Some(pods) = pods
            && let Some(wanted) = wanted(pods).await
        {
            waking.say_what_it_takes(pods, &wanted, &raft.membership());
        }
    }
}

/// How many pods there are to be. Kubernetes need not be there: then nobody knows.
async fn wanted(pods: &dyn Orchestrator) -> Option<Desired> {
    match pods.intent().await {
        Ok(Intent::Scale(wanted)) => Some(wanted),
        Ok(Intent::Hibernate) | Err(_) => None,
    }
}

/// Answers another member's question. Nobody may be let in meanwhile: the caller holds the door.
pub(super) async fn judge(
    request: StandingRequest,
    cluster: ClusterId,
    raft: &Raft,
) -> StandingReply {
    let standing = verdict(request, cluster, raft).await;
    StandingReply { standing: standing.into() }
}

async fn verdict(request: StandingRequest, cluster: ClusterId, raft: &Raft) -> Wire {
    if request.cluster_id != cluster.0 {
        return Wire::Unknown;
    }
    let member = MemberId(request.member_id);
    let committed = raft.committed_membership();
    if !committed.has(member) {
        let at = committed.at.map_or(0, |at| at.index);
        // An older one may be from before it was let in.
        if request.membership_index > 0 && at > request.membership_index {
            return Wire::Removed;
        }
        // The leader knows of whoever is being let in. An id that was used is added once.
        let used = raft.view().roster().was_used(member);
        let dead = used && leads(raft).await && !raft.membership().has(member);
        return if dead { Wire::Removed } else { Wire::Unknown };
    }
    let seen = raft.view().roster().members.get(&member).map_or(0, |said| said.boot);
    if request.boot < seen {
        return Wire::RolledBack;
    }
    // A deposed leader may remember what was acknowledged to it and never committed.
    let progress = raft.progress().into_iter().find(|p| p.member == member);
    let acknowledged = progress.and_then(|p| p.matched).unwrap_or(0);
    if request.last_index < acknowledged && leads(raft).await {
        return Wire::RolledBack;
    }
    Wire::Member
}

/// Whether this member leads, and a majority has just said so.
async fn leads(raft: &Raft) -> bool {
    raft.leadership().is_mine() && raft.read_index().await.is_ok()
}
