//! The planner's input: the cluster as the leader observes it.

use crate::types::{DesiredReplicas, MemberId, MemberRef, Ordinal};

/// The leader's knowledge at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The leader itself.
    pub me: MemberId,
    /// Voters and learners of the last membership entry in the log.
    pub members: Vec<Member>,
    /// Whether that entry is committed.
    pub committed: bool,
    /// `None`: no StatefulSet is followed, so every member is wanted.
    pub desired: Option<DesiredReplicas>,
    /// The limit on voters. Zero counts as one.
    pub max_voters: u32,
}

/// One member, as the leader observes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub member_ref: MemberRef,
    /// Votes in the outgoing set; equal to `new_voter` unless the configuration is joint.
    pub old_voter: bool,
    /// Votes in the incoming set.
    pub new_voter: bool,
    /// Answered within the last election timeout. True for the leader itself.
    pub in_contact: bool,
    /// Has kept up with the log for a while. True for the leader itself.
    pub caught_up: bool,
    /// In contact, and stores the newest entries in time, so it can complete a majority now. False for a
    /// leader whose own disk hangs.
    pub acks: bool,
    /// Owes entries, and has stored none for a while, in contact or not: its disk hangs, or it cannot
    /// install a snapshot. A member that catches up is not stalled.
    pub stalled: bool,
    /// An operator asked to remove this incarnation. The ordinal's next incarnation is not affected.
    pub removal_requested: bool,
}

impl Observed {
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|m| m.old_voter != m.new_voter)
    }

    pub fn old_voters(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|m| m.old_voter)
    }

    pub fn new_voters(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|m| m.new_voter)
    }
}

impl Member {
    pub fn id(&self) -> MemberId {
        self.member_ref.member
    }

    pub fn ordinal(&self) -> Ordinal {
        self.member_ref.ordinal
    }

    /// Votes in either set.
    pub fn votes(&self) -> bool {
        self.old_voter || self.new_voter
    }

    /// Can complete a majority, and has been able to for a while.
    pub fn is_ready(&self) -> bool {
        self.acks && self.caught_up
    }

    /// In contact, and storing entries or able to: it may complete a majority soon.
    pub fn progresses(&self) -> bool {
        self.in_contact && !self.stalled
    }
}
