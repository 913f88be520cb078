//! Chooses the next step.

use std::collections::BTreeSet;

use super::{
    blocked::{Blocked, BlockedBy},
    observed::{Member, Observed},
    quorum::is_majority,
    target::Target,
};
use crate::types::MemberId;

/// The planner's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The membership matches the target as far as the existing members allow. One of them may be
    /// out of contact.
    Settled,
    Do(Step),
    /// A change is due but not possible yet.
    Wait(Blocked),
}

/// One change of the membership. The next one is planned after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Leaves the joint configuration for its incoming set.
    FinishJoint,
    /// One joint change. Members that lose their vote stay as learners.
    ChangeVoters { add: BTreeSet<MemberId>, remove: BTreeSet<MemberId> },
    /// Removes learners. Their ids cannot return.
    Remove(BTreeSet<MemberId>),
    /// Transfers leadership to a staying, caught-up voter: from a leader that will lose its vote, or whose
    /// disk hangs.
    HandOver { to: MemberId },
}

/// Plans at most one step towards the target. The order of the members does not matter.
pub fn plan(observed: &Observed) -> Plan {
    if observed.desired.as_ref().is_some_and(|d| d.replicas == 0) {
        // All members hibernate, and resume with the same membership.
        return Plan::Settled;
    }
    if !observed.committed {
        let late_voters = observed.members.iter().filter(|m| m.votes() && !m.acks);
        return Plan::Wait(Blocked::new(BlockedBy::UncommittedChange, late_voters));
    }
    if observed.is_joint() {
        return leave_joint(observed);
    }
    let target = Target::of(observed);
    let (step, blocked) = match change_voters(observed, &target) {
        Ok(step) => (step, None),
        Err(blocked) => (None, Some(blocked)),
    };
    // A blocked change of voters does not delay the removal of learners.
    let Some(step) = step.or_else(|| remove_learners(observed, &target)) else {
        return blocked.or_else(|| target.blocked()).map_or(Plan::Settled, Plan::Wait);
    };
    if !is_majority(observed.new_voters(), Member::is_ready) {
        let late = observed.new_voters().filter(|m| !m.is_ready());
        return Plan::Wait(Blocked::new(BlockedBy::CurrentVoters, late));
    }
    Plan::Do(step)
}

/// Leaving a joint configuration appends an entry, which needs a majority of both sets. Voters that still
/// catch up count: the entry is committed once they have, and no other step is possible before.
fn leave_joint(observed: &Observed) -> Plan {
    if !is_majority(observed.old_voters(), Member::progresses) {
        let late = observed.old_voters().filter(|m| !m.progresses());
        return Plan::Wait(Blocked::new(BlockedBy::CurrentVoters, late));
    }
    if !is_majority(observed.new_voters(), Member::progresses) {
        let late = observed.new_voters().filter(|m| !m.progresses());
        return Plan::Wait(Blocked::new(BlockedBy::NextVoters, late));
    }
    let leader_stays = observed.new_voters().any(|m| m.id() == observed.me);
    if !leader_stays {
        let target = Target::of(observed);
        let ready = observed.new_voters().filter(|m| m.is_ready());
        let successor = ready.min_by_key(|m| (!target.keeps(m), m.ordinal(), m.id()));
        if let Some(successor) = successor {
            return Plan::Do(Step::HandOver { to: successor.id() });
        }
    }
    Plan::Do(Step::FinishJoint)
}

/// The due change of voters, or the hand-over that must precede it.
fn change_voters(observed: &Observed, target: &Target<'_>) -> Result<Option<Step>, Blocked> {
    if let Some(successor) = target.successor_of_stalled_leader() {
        return Ok(Some(Step::HandOver { to: successor.id() }));
    }
    if target.leader_leaves() {
        let successors = observed.new_voters().filter(|m| target.keeps(m) && m.progresses());
        let ready = successors.clone().filter(|m| m.is_ready());
        if let Some(successor) = ready.min_by_key(|m| m.ordinal()) {
            return Ok(Some(Step::HandOver { to: successor.id() }));
        }
        if successors.clone().next().is_some() {
            return Err(Blocked::new(BlockedBy::Successor, successors));
        }
    }
    let present: BTreeSet<MemberId> = observed.new_voters().map(Member::id).collect();
    let next = target.next_voters();
    if next == present {
        return Ok(None);
    }
    let members = observed.members.iter().filter(|m| next.contains(&m.id()));
    if !is_majority(members.clone(), Member::is_ready) {
        return Err(Blocked::new(BlockedBy::NextVoters, members.filter(|m| !m.is_ready())));
    }
    let add = next.difference(&present).copied().collect();
    let remove = present.difference(&next).copied().collect();
    Ok(Some(Step::ChangeVoters { add, remove }))
}

/// Removes the members without a vote that the target does not keep.
fn remove_learners(observed: &Observed, target: &Target<'_>) -> Option<Step> {
    let leaves = |m: &&Member| !m.votes() && !target.keeps(m) && m.id() != observed.me;
    let leaving: BTreeSet<_> = observed.members.iter().filter(leaves).map(Member::id).collect();
    (!leaving.is_empty()).then_some(Step::Remove(leaving))
}
