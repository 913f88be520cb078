//! Detects that this member was removed, or that its volume was rolled back, while it was away.
//!
//! Raft does not notify a removed member; the leader simply stops replicating to it. So a member without
//! contact to a leader asks the other members. And a starting member asks, before it takes part,
//! whether its volume holds every entry that it has acknowledged: Raft cannot detect a loss.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{
    identity::Identity,
    member_rpc::MemberRpc,
    orchestrator::{Intent, Orchestrator, last_leader},
    quorum_hint::QuorumHint,
};
use crate::{
    proto::peer::{StandingReply, StandingRequest, standing_reply::Standing as Wire},
    raft::Raft,
    types::{ClusterId, DesiredReplicas, MemberId, Ordinal},
};

/// Limit on an answer to a running member.
pub const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// Limit on an answer to a starting member. Longer, because only the leader can detect a rolled-back
/// volume, and it confirms its leadership with a quorum first.
pub const STARTUP_STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// A running member asks after this time without a quorum.
const CHECK_AFTER: Duration = Duration::from_secs(10);
/// The first check comes earlier, for a member that was removed while it was away.
const FIRST_CHECK_AFTER: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A member's status, as the other members know it. The greater status takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberStatus {
    /// No member could answer for certain.
    Unknown,
    Member,
    /// Removed: the id cannot return.
    Removed,
    /// The volume is an older copy: the member could break its promises to Raft.
    RolledBack,
}

impl MemberStatus {
    /// Whether the member must never take part under its id again.
    pub fn is_dead(self) -> bool {
        matches!(self, MemberStatus::Removed | MemberStatus::RolledBack)
    }
}

/// The asking member's own log and membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalIndexes {
    /// The last entry of the log of a member that does not take part yet.
    pub last_index: u64,
    /// The entry of the last committed membership that lists this member. Zero: the member knows none,
    /// so no answer can prove its removal.
    pub membership_index: u64,
}

impl LocalIndexes {
    /// The indexes of a running member. Its log grows while the request is under way, so `last_index`
    /// excludes a verdict by log length.
    pub fn of(raft: &Raft, member: MemberId) -> LocalIndexes {
        let committed = raft.committed_membership();
        let at = committed.at.filter(|_| committed.has(member));
        LocalIndexes { last_index: u64::MAX, membership_index: at.map_or(0, |at| at.index) }
    }
}

/// Asks all these members at once. The worst answer counts, because a member gives one only for certain.
pub async fn ask_member_status(
    peers: &impl MemberRpc,
    me: &Identity,
    indexes: LocalIndexes,
    ordinals: BTreeSet<Ordinal>,
    timeout: Duration,
) -> MemberStatus {
    let request = StandingRequest {
        cluster_id: me.cluster.0,
        member_id: me.member.0,
        ordinal: me.ordinal.0,
        boot: me.boot,
        last_index: indexes.last_index,
        membership_index: indexes.membership_index,
        // The client fills it in.
        address: String::new(),
    };
    let others = ordinals.into_iter().filter(|o| *o != me.ordinal);
    let ask = |o| tokio::time::timeout(timeout, peers.member_status(o, request.clone()));
    let answers = others.map(ask);
    let answers = futures_util::future::join_all(answers).await;
    let replies = answers.into_iter().filter_map(|answer| answer.ok()?.ok());
    replies.map(from_wire).max().unwrap_or(MemberStatus::Unknown)
}

fn from_wire(reply: StandingReply) -> MemberStatus {
    match reply.standing() {
        Wire::Unknown => MemberStatus::Unknown,
        Wire::Member => MemberStatus::Member,
        Wire::Removed => MemberStatus::Removed,
        Wire::RolledBack => MemberStatus::RolledBack,
    }
}

/// Resolves once another member answers that this one is dead. Until then, reports a missing majority.
pub async fn wait_until_removed(
    peers: &impl MemberRpc,
    me: &Identity,
    raft: &Raft,
    known: &BTreeSet<Ordinal>,
    pods: Option<&dyn Orchestrator>,
) -> MemberStatus {
    let mut last_contact = Instant::now();
    let mut check_after = FIRST_CHECK_AFTER;
    let mut hint = QuorumHint::default();
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        // Contact with any leader counts, even with one that this member does not list yet.
        if raft.quorum_age().is_some_and(|age| age < FIRST_CHECK_AFTER) {
            (last_contact, check_after) = (Instant::now(), CHECK_AFTER);
            continue;
        }
        if last_contact.elapsed() < check_after {
            continue;
        }
        (last_contact, check_after) = (Instant::now(), CHECK_AFTER);
        let mut ordinals = known.clone();
        ordinals.extend(raft.members().into_iter().map(|m| m.member_ref.ordinal));
        // All known members may have moved to other ordinals.
        if let Some(pods) = pods {
            ordinals.extend(last_leader(pods).await);
        }
        let indexes = LocalIndexes::of(raft, me.member);
        let status = ask_member_status(peers, me, indexes, ordinals, STATUS_TIMEOUT).await;
        if status.is_dead() {
            return status;
        }
        if let Some(pods) = pods
            && let Some(desired) = desired_replicas(pods).await
        {
            hint.report(pods, &desired, &raft.membership());
        }
    }
}

/// The desired replicas; `None` if the set hibernates, or Kubernetes does not answer.
async fn desired_replicas(pods: &dyn Orchestrator) -> Option<DesiredReplicas> {
    match pods.intent().await {
        Ok(Intent::Scale(desired)) => Some(desired),
        Ok(Intent::Hibernate) | Err(_) => None,
    }
}

/// Answers another member. The caller prevents joins meanwhile.
pub async fn check_member(
    request: StandingRequest,
    cluster: ClusterId,
    raft: &Raft,
) -> StandingReply {
    let status = status_of(request, cluster, raft).await;
    StandingReply { standing: status.into(), volume: None }
}

async fn status_of(request: StandingRequest, cluster: ClusterId, raft: &Raft) -> Wire {
    if request.cluster_id != cluster.0 {
        return Wire::Unknown;
    }
    let member = MemberId(request.member_id);
    let committed = raft.committed_membership();
    if !committed.has(member) {
        let at = committed.at.map_or(0, |at| at.index);
        // An older membership may be from before the member joined.
        if request.membership_index > 0 && at > request.membership_index {
            return Wire::Removed;
        }
        // Only the leader knows the members that are being added. A used id is never added again.
        let used = raft.view().roster().was_used(member);
        let dead = used && leads(raft).await && !raft.membership().has(member);
        return if dead { Wire::Removed } else { Wire::Unknown };
    }
    let seen = raft.view().roster().members.get(&member).map_or(0, |attributes| attributes.boot);
    if request.boot < seen {
        return Wire::RolledBack;
    }
    // A deposed leader may count acknowledged entries that were never committed.
    let progress = raft.progress().into_iter().find(|p| p.member == member);
    let acknowledged = progress.and_then(|p| p.matched).unwrap_or(0);
    if request.last_index < acknowledged && leads(raft).await {
        return Wire::RolledBack;
    }
    Wire::Member
}

/// Whether this member leads, confirmed by a quorum.
async fn leads(raft: &Raft) -> bool {
    raft.leadership().is_mine() && raft.read_index().await.is_ok()
}
