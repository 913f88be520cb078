//! Who is a member of the Raft group, and how the leader changes that.
//!
//! Every change names the membership it was decided on, and is refused if that is not the last one any
//! more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers, Instant as _, Precondition,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, RaftError},
};

use super::{ProposeError, Raft, convert, leadership::place};
use crate::types::{LogPosition, MemberId, Ordinal, PeerPlace};

/// A member of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMember {
    pub place: PeerPlace,
    /// Of any set, while a change is under way.
    pub voter: bool,
}

/// All members, as of one entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftMembership {
    pub members: Vec<RaftMember>,
    /// One set; two while a change is under way, the new one last.
    pub voters: Vec<BTreeSet<MemberId>>,
    pub at: Option<LogPosition>,
}

impl RaftMembership {
    pub fn has(&self, member: MemberId) -> bool {
        self.members.iter().any(|m| m.place.member == member)
    }

    /// Whether it votes, in the only set or in one of two.
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.iter().any(|set| set.contains(&member))
    }
}

/// How a peer is doing, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerProgress {
    pub member: MemberId,
    /// The last entry it is known to hold.
    pub matched: Option<u64>,
    /// Since its last answer to a heartbeat.
    pub silent_for: Option<Duration>,
}

impl Raft {
    /// All members: by the last membership entry in the log, committed or not.
    pub fn members(&self) -> Vec<RaftMember> {
        self.membership().members
    }

    /// The same, with the entry that says so: what is decided by it is guarded by it.
    pub fn membership(&self) -> RaftMembership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        membership(&metrics.membership_config)
    }

    /// All members by the last membership entry that this member knows to be committed.
    pub fn committed_membership(&self) -> RaftMembership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        membership(&metrics.committed_membership_config)
    }

    /// As the leader: how far each peer has come. Empty elsewhere.
    pub fn progress(&self) -> Vec<PeerProgress> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let heard = |id: &MemberId| {
            let answered = metrics.heartbeat.as_ref()?.get(id)?.as_ref()?;
            Some(answered.elapsed())
        };
        let all = metrics.replication.iter().flatten();
        all.map(|(id, at)| PeerProgress {
            member: *id,
            matched: at.as_ref().map(|at| at.index),
            silent_for: heard(id),
        })
        .collect()
    }

    /// As the leader: adds a learner, if the membership still is the one it was decided on.
    pub async fn add_learner(
        &self,
        place: PeerPlace,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        let nodes = BTreeMap::from([(place.member, place.ordinal)]);
        self.change(ChangeMembers::AddNodes(nodes), decided_on).await
    }

    /// As the leader: lets a learner vote, if the membership still is the one it was decided on.
    pub async fn promote(
        &self,
        member: MemberId,
        decided_on: &RaftMembership,
    ) -> Result<(), ProposeError> {
        let promoted =
            self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member])), decided_on).await;
        match promoted {
            Ok(()) => self.metrics.promoted.increment(),
            Err(_) => self.metrics.not_promoted.increment(),
        }
        promoted
    }

    /// As the leader: changes who votes, in one joint change, and leaves it. Who votes no more stays
    /// as a learner. Waits until both steps are committed.
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

    /// As the leader: ends a change of voters that somebody began.
    pub async fn finish_change(&self, decided_on: &RaftMembership) -> Result<(), ProposeError> {
        let goal = decided_on.voters.last().cloned().unwrap_or_default();
        self.change(ChangeMembers::ReplaceAllVoters(goal), decided_on).await
    }

    /// As the leader: takes learners out.
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
                Err(ProposeError::NotLeader(place(to.leader_id, to.leader_node)))
            }
            Err(e) => Err(ProposeError::Unknown(e.to_string())),
        }
    }
}

fn membership(stored: &convert::StoredMembership) -> RaftMembership {
    let (at, membership) = (stored.log_id(), stored.membership());
    let voters = membership.get_joint_config().clone();
    let member = |(id, ordinal): (&MemberId, &Ordinal)| RaftMember {
        place: PeerPlace { member: *id, ordinal: *ordinal },
        voter: voters.iter().any(|set| set.contains(id)),
    };
    let members = membership.nodes().map(member).collect();
    RaftMembership { members, voters, at: at.as_ref().map(convert::position) }
}
