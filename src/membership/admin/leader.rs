//! The leader's side: executes a membership command, or answers why it cannot.

use std::time::Duration;

use tokio::time::Instant;

use super::wire;
use crate::{
    membership::{
        join_service,
        planner::{self, Blocked, BlockedBy, Observed, Plan},
        reconcile::{HAND_OVER_TIMEOUT, MembershipReconciler, lock},
    },
    node::{MembershipError, NodeError, NodePort},
    proto::peer::{AddAt, ChangeMembersReply, change_members_request::Change},
    raft::RaftMembership,
    types::{Command, CommandError, MemberAttributes, MemberId, MemberRef, Ordinal},
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A change that is blocked for this time plus an election timeout is refused. A new leader needs the
/// election timeout to learn which members are reachable.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(1);

impl<N: NodePort> MembershipReconciler<N> {
    /// Answers a change that another member forwards.
    pub async fn handle_change(&self, change: Change) -> ChangeMembersReply {
        wire::to_wire(self.change(change).await)
    }

    pub async fn change(&self, change: Change) -> Result<MemberId, MembershipError> {
        if !self.raft.leadership().is_mine() {
            return Err(MembershipError::NotLeader);
        }
        let limit = self.raft.timing().request_timeout();
        let done = async {
            match change {
                Change::Add(add) => self.add(add).await,
                Change::Remove(member) => self.remove(MemberId(member)).await,
                Change::Promote(member) => self.promote(MemberId(member)).await,
                Change::MoveLeader(to) => self.move_leader(MemberId(to)).await,
            }
        };
        tokio::time::timeout(limit, done).await.unwrap_or(Err(NodeError::Timeout.into()))
    }

    /// Reserves an ordinal for a volume that has not joined yet. The id is a placeholder: the volume gets
    /// an id of its own and replaces it, as it would replace a member that lost its volume.
    async fn add(&self, add: AddAt) -> Result<MemberId, MembershipError> {
        let ordinal = Ordinal(add.ordinal);
        if self.raft.members().iter().any(|m| m.member_ref.ordinal == ordinal) {
            return Err(MembershipError::OrdinalTaken);
        }
        let member = self.admit(ordinal, add.nonce).await?;
        if !join_service::add(MemberRef { member, ordinal }, &self.raft).await {
            return Err(MembershipError::NotLeader);
        }
        let peer_urls = add.peer_urls;
        let attributes = MemberAttributes { member, ordinal, peer_urls, ..Default::default() };
        self.node.propose(Command::SetMemberAttributes(attributes)).await?;
        tracing::info!(%member, %ordinal, "member added by an operator");
        Ok(member)
    }

    async fn admit(&self, ordinal: Ordinal, nonce: u64) -> Result<MemberId, MembershipError> {
        let mut nonce = nonce;
        loop {
            let member = join_service::assign(ordinal, nonce, &self.node).await?;
            match self.node.propose(Command::AdmitMember(member)).await {
                Ok(_) => return Ok(member),
                // A concurrent join was admitted with a higher id.
                Err(NodeError::Command(CommandError::MemberIdUsed)) => {
                    nonce = nonce.wrapping_add(1);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Requests the removal from the planner, and waits until it is committed.
    async fn remove(&self, member: MemberId) -> Result<MemberId, MembershipError> {
        if !self.raft.membership().has(member) {
            return Err(MembershipError::NotFound);
        }
        lock(&self.requested_removals).insert(member);
        let _request = RemovalRequest { reconciler: self, member };
        let mut blocked_for = BlockedTimer::default();
        loop {
            let (newest, committed) = (self.raft.membership(), self.raft.committed_membership());
            if !committed.has(member) && !newest.has(member) {
                tracing::info!(%member, "member removed by an operator");
                return Ok(member);
            }
            // The planner may have handed over: the next leader continues.
            if !self.raft.leadership().is_mine() {
                return Err(MembershipError::NotLeader);
            }
            let plan = planner::plan(&self.observe());
            let is_blocked = match &plan {
                Plan::Wait(Blocked { by, .. }) => *by != BlockedBy::UncommittedChange,
                Plan::Settled => true,
                Plan::Do(_) => false,
            };
            if blocked_for.exceeds(self.blocked_timeout(), is_blocked) {
                return Err(MembershipError::NotEnoughStarted);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for the promotion, which the planner decides, or answers why none is due.
    async fn promote(&self, member: MemberId) -> Result<MemberId, MembershipError> {
        let membership = self.raft.membership();
        if !membership.has(member) {
            return Err(MembershipError::NotFound);
        }
        if membership.is_voter(member) {
            return Err(MembershipError::NotLearner);
        }
        let mut blocked_for = BlockedTimer::default();
        loop {
            if votes(&self.raft.committed_membership(), member) {
                return Ok(member);
            }
            if !self.raft.leadership().is_mine() {
                return Err(MembershipError::NotLeader);
            }
            let observed = self.observe();
            let plan = planner::plan(&observed);
            let is_blocked = observed.committed && !matches!(plan, Plan::Do(_));
            if blocked_for.exceeds(self.blocked_timeout(), is_blocked) {
                return Err(not_promoted(member, &plan, &observed));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn move_leader(&self, to: MemberId) -> Result<MemberId, MembershipError> {
        if !votes(&self.raft.membership(), to) {
            return Err(MembershipError::BadTransferee);
        }
        if self.raft.leadership().me != to {
            self.raft.transfer_leadership_to(to, HAND_OVER_TIMEOUT).await;
        }
        match self.raft.leadership().leader {
            Some(leader) if leader.member == to => Ok(to),
            _ => Err(MembershipError::TransferTimedOut),
        }
    }

    fn blocked_timeout(&self) -> Duration {
        BLOCKED_TIMEOUT + self.raft.timing().election_timeout
    }
}

/// Withdraws the request when the command ends: a member that is not removed by then stays.
struct RemovalRequest<'a, N> {
    reconciler: &'a MembershipReconciler<N>,
    member: MemberId,
}

impl<N> Drop for RemovalRequest<'_, N> {
    fn drop(&mut self) {
        lock(&self.reconciler.requested_removals).remove(&self.member);
    }
}

/// The start of an uninterrupted blockage.
#[derive(Debug, Default)]
struct BlockedTimer(Option<Instant>);

impl BlockedTimer {
    /// Whether the change has been blocked for `limit` without interruption.
    fn exceeds(&mut self, limit: Duration, is_blocked: bool) -> bool {
        if !is_blocked {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= limit
    }
}

fn votes(membership: &RaftMembership, member: MemberId) -> bool {
    membership.voters.iter().all(|set| set.contains(&member))
}

/// The reason why a learner is not promoted although no change is under way.
fn not_promoted(member: MemberId, plan: &Plan, observed: &Observed) -> MembershipError {
    let learner = observed.members.iter().find(|m| m.id() == member);
    match learner {
        None => return MembershipError::NotFound,
        Some(learner) if !learner.is_ready() => return MembershipError::NotInSync,
        Some(_) => {}
    }
    let voters = observed.new_voters().count();
    if voters >= observed.max_voters as usize {
        return MembershipError::Refused(format!(
            "{voters} members vote, as many as --max-voters allows: this learner votes once a voter is \
             lost or removed, and serves reads and watches meanwhile"
        ));
    }
    if matches!(plan, Plan::Wait(blocked) if blocked.by == BlockedBy::CurrentVoters) {
        return MembershipError::NotEnoughStarted;
    }
    MembershipError::Refused(format!(
        "{} voters would tolerate no more losses than {voters}: this learner votes once there is one more \
         member, or a voter is lost or removed, and serves reads and watches meanwhile",
        voters + 1
    ))
}
