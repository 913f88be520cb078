//! The members of the Raft group, and the leader's changes to them.
//!
//! A change names the membership that it was decided on. It fails if that is no longer the last one in
//! the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant as _, Precondition,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, RaftError},
};

use super::{
    convert::{self, leader_ref},
    error::ProposeError,
    handle::Raft,
};
use crate::types::{LogPosition, MemberId, MemberRef, Ordinal};

/// A member of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMember {
    pub member_ref: MemberRef,
    /// A voter of any set, during a joint change.
    pub voter: bool,
}

/// All members, as of one log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMembership {
    pub members: Vec<RaftMember>,
    /// One set; during a joint change two, the new one last.
    pub voters: Vec<BTreeSet<MemberId>>,
    pub at: Option<LogPosition>,
}

impl RaftMembership {
    pub fn has(&self, member: MemberId) -> bool {
        self.members.iter().any(|m| m.member_ref.member == member)
    }

    /// Whether the member is a voter of any set.
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.iter().any(|set| set.contains(&member))
    }
}

/// Replication progress of a peer, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProgress {
    pub member: MemberId,
    /// Index of the last entry that the peer is known to hold.
    pub matched: Option<u64>,
    /// Time since its last reply to a heartbeat.
    pub silent_for: Option<Duration>,
    /// Whether a snapshot is being sent to it.
    pub receives_snapshot: bool,
    /// Bytes of snapshots that it has acknowledged, in total.
    pub snapshot_bytes: u64,
}

impl Raft {
    /// All members, by the last membership entry in the log, committed or not.
    pub fn members(&self) -> Vec<RaftMember> {
        self.membership().members
    }

    /// The membership by the last membership entry in the log. Decisions based on it pass it back as
    /// their guard.
    pub fn membership(&self) -> RaftMembership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        membership(&metrics.membership_config)
    }

    /// The membership by the last membership entry that this member knows to be committed.
    pub fn committed_membership(&self) -> RaftMembership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        membership(&metrics.committed_membership_config)
    }

    /// As the leader: the progress of each peer. Empty on other members.
    pub fn progress(&self) -> Vec<PeerProgress> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let since_reply = |id: &MemberId| {
            let replied = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
            Some(replied.elapsed())
        };
        let all = metrics.replication.iter().flatten();
        all.map(|(id, at)| {
            // This member sends itself no snapshot, and has no metrics as a peer.
            let peer = (*id != self.me).then(|| self.metrics.peers.of(*id));
            let sent = peer.as_ref().map(|peer| &peer.sent);
            PeerProgress {
                member: *id,
                matched: at.as_ref().map(|at| at.index),
                silent_for: since_reply(id),
                receives_snapshot: sent.is_some_and(|sent| sent.under_way.get() > 0),
                snapshot_bytes: sent.map_or(0, |sent| sent.acknowledged_bytes.get()),
            }
        })
        .collect()
    }

    /// As the leader: adds a learner.
    pub async fn add_learner(
        &self,
        member_ref: MemberRef,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        let nodes = BTreeMap::from([(member_ref.member, member_ref.ordinal)]);
        self.change(ChangeMembers::AddNodes(nodes), decided_on).await
    }

    /// As the leader: adds and removes voters in one joint change. Removed voters stay as learners.
    /// Waits until the joint membership and the final one are committed.
    pub async fn change_voters(
        &self,
        add: BTreeSet<MemberId>,
        remove: BTreeSet<MemberId>,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        let promoted = add.len() as u64;
        let changes = [ChangeMembers::AddVoterIds(add), ChangeMembers::RemoveVoters(remove)];
        let changed = self.change(ChangeMembers::Batch(changes.into()), decided_on).await;
        match changed {
            Ok(()) => (0..promoted).for_each(|_| self.metrics.promoted.increment()),
            Err(_) => self.metrics.not_promoted.increment(),
        }
        changed
    }

    /// As the leader: completes a joint change that an earlier leader began.
    pub async fn finish_change(&self, decided_on: &RaftMembership) -> Result<(), ProposeError> {
        let goal = decided_on.voters.last().cloned().unwrap_or_default();
        self.change(ChangeMembers::ReplaceAllVoters(goal), decided_on).await
    }

    /// As the leader: removes learners.
    pub async fn remove_learners(
        &self,
        members: BTreeSet<MemberId>,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes(members), decided_on).await
    }

    async fn change(
        &self,
        change: ChangeMembers<MemberId, Ordinal>,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        let last_membership_log_id = decided_on.at.map(convert::log_id);
        let guard = Precondition::LastMembershipLogId { last_membership_log_id };
        match self.raft.change_membership_if(change, true, [guard]).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader(leader_ref(to.leader_id, to.leader_node)))
            }
            Err(e) => Err(ProposeError::Unknown(e.to_string())),
        }
    }
}

fn membership(stored: &convert::StoredMembership) -> RaftMembership {
    let (at, membership) = (stored.log_id(), stored.membership());
    let voters = membership.get_joint_config().clone();
    let member = |(id, ordinal): (&MemberId, &Ordinal)| RaftMember {
        member_ref: MemberRef { member: *id, ordinal: *ordinal },
        voter: voters.iter().any(|set| set.contains(id)),
    };
    let members = membership.nodes().map(member).collect();
    RaftMembership { members, voters, at: at.as_ref().map(convert::position) }
}
