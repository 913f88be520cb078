//! What should change in the membership next: a pure function of what the leader knows.
//!
//! ```text
//! members, contact, lag, desired ──▶ plan() ──▶ Settled │ Do(one step) │ Wait(for whom, and why)
//! ```
//!
//! The leader asks again after every step and whenever it learns something; nothing is remembered
//! between two questions. So a step must bring the membership closer by itself, and what was done
//! must not look wrong the moment after.
//!
//! Invariants:
//! - Nothing is begun before the last change is committed, and a joint configuration is left first.
//! - Voters change only if majorities of the present and of the next set are in contact and caught
//!   up. A set of voters without a live majority is never proposed, an empty one neither.
//! - Only a learner that has caught up begins to vote, and only a learner is taken out: whoever
//!   leaves loses its vote first.
//! - Of two members at one ordinal, the one with the higher id is the place's life.
//! - Who votes and is to stay and answers keeps its vote, whatever its ordinal: a member that comes
//!   and goes costs one change each time it goes, and none when it comes back.
//!
//! Growing from one to three, with the third still behind:
//!
//! ```text
//! voters {0}      learners 1, 2    Wait: 2 has to catch up (two voters are worse than one)
//! voters {0}      learners 1, 2    Do: change voters, add 1 and 2
//! voters {0,1,2}                   Settled
//! ```

mod places;
mod quorum;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeSet;

pub use quorum::{may_stop, tolerates};
pub use waiting::{Waiting, Why};

use crate::types::{Desired, MemberId, PeerPlace};
use places::Places;
use quorum::is_majority;

/// What the leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The leader itself.
    pub me: MemberId,
    /// All of the last membership entry in the log, voters and learners.
    pub members: Vec<Member>,
    /// Whether that entry is committed.
    pub committed: bool,
    /// None: nobody runs the pods, so every member is wanted.
    pub desired: Option<Desired>,
    /// No more than so many vote. Zero is as one.
    pub max_voters: u32,
}

/// One member, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub place: PeerPlace,
    /// Votes in the outgoing set; the same as `new_voter` unless the configuration is joint.
    pub old_voter: bool,
    /// Votes in the incoming set.
    pub new_voter: bool,
    /// Answered within the last few election timeouts. The leader itself: true.
    pub in_contact: bool,
    /// Has kept up with the log for a while. The leader itself: true.
    pub caught_up: bool,
    /// Somebody wants this life of its place removed. Its next life is as welcome as any.
    pub told_to_leave: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The membership is as wanted, as far as the members that there are go. One of them may be
    /// out of contact.
    Settled,
    Do(Step),
    /// Something is to change, and cannot yet.
    Wait(Waiting),
}

/// One step; the next one is planned after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Leave the joint configuration for its incoming set.
    FinishJoint,
    /// One joint change. Those who lose their vote stay as learners.
    ChangeVoters { add: BTreeSet<MemberId>, remove: BTreeSet<MemberId> },
    /// Takes learners out for good: their ids are dead.
    Remove(BTreeSet<MemberId>),
    /// The leader is to lose its vote: somebody who stays, votes and has caught up should lead.
    HandOver { to: MemberId },
}

impl Situation {
    fn is_joint(&self) -> bool {
        self.members.iter().any(|m| m.old_voter != m.new_voter)
    }

    fn old_voters(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|m| m.old_voter)
    }

    fn new_voters(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|m| m.new_voter)
    }
}

impl Member {
    fn votes(&self) -> bool {
        self.old_voter || self.new_voter
    }

    fn is_ready(&self) -> bool {
        self.in_contact && self.caught_up
    }
}

/// At most one step towards the wanted membership. The order of the members does not matter.
pub fn plan(situation: &Situation) -> Plan {
    if situation.desired.as_ref().is_some_and(|d| d.replicas == 0) {
        // All sleep. They wake as they were.
        return Plan::Settled;
    }
    if !situation.committed {
        let voters = situation.members.iter().filter(|m| m.votes() && !m.in_contact);
        return Plan::Wait(Waiting::new(Why::Uncommitted, voters));
    }
    if situation.is_joint() {
        return leave_joint(situation);
    }
    let places = Places::of(situation);
    let (step, late) = match change_voters(situation, &places) {
        Ok(step) => (step, None),
        Err(late) => (None, Some(late)),
    };
    // What waits for one member does not keep others from going.
    let Some(step) = step.or_else(|| remove_learners(situation, &places)) else {
        return late.or_else(|| places.awaited()).map_or(Plan::Settled, Plan::Wait);
    };
    if !is_majority(situation.new_voters(), Member::is_ready) {
        let voters = situation.new_voters().filter(|m| !m.is_ready());
        return Plan::Wait(Waiting::new(Why::PresentVoters, voters));
    }
    Plan::Do(step)
}

/// It takes majorities of both sets to append what ends a joint change.
fn leave_joint(situation: &Situation) -> Plan {
    if !is_majority(situation.old_voters(), |m| m.in_contact) {
        let voters = situation.old_voters().filter(|m| !m.in_contact);
        return Plan::Wait(Waiting::new(Why::PresentVoters, voters));
    }
    if !is_majority(situation.new_voters(), |m| m.in_contact) {
        let voters = situation.new_voters().filter(|m| !m.in_contact);
        return Plan::Wait(Waiting::new(Why::NextVoters, voters));
    }
    let leads_on = situation.new_voters().any(|m| m.place.member == situation.me);
    if !leads_on {
        let places = Places::of(situation);
        let ready = situation.new_voters().filter(|m| m.is_ready());
        if let Some(to) = ready.min_by_key(|m| (!places.stays(m), m.place.ordinal, m.place.member))
        {
            return Plan::Do(Step::HandOver { to: to.place.member });
        }
    }
    Plan::Do(Step::FinishJoint)
}

/// The change of voters to make, or the hand-over before it; else for whom it waits.
fn change_voters(situation: &Situation, places: &Places<'_>) -> Result<Option<Step>, Waiting> {
    if places.leader_goes() {
        let heirs = situation.new_voters().filter(|m| places.stays(m) && m.in_contact);
        if let Some(heir) = heirs.clone().filter(|m| m.is_ready()).min_by_key(|m| m.place.ordinal) {
            return Ok(Some(Step::HandOver { to: heir.place.member }));
        }
        if heirs.clone().next().is_some() {
            return Err(Waiting::new(Why::Heir, heirs));
        }
    }
    let present: BTreeSet<MemberId> = situation.new_voters().map(|m| m.place.member).collect();
    let next = places.next_voters();
    if next == present {
        return Ok(None);
    }
    let members = situation.members.iter().filter(|m| next.contains(&m.place.member));
    if !is_majority(members.clone(), Member::is_ready) {
        return Err(Waiting::new(Why::NextVoters, members.filter(|m| !m.is_ready())));
    }
    let add = next.difference(&present).copied().collect();
    let remove = present.difference(&next).copied().collect();
    Ok(Some(Step::ChangeVoters { add, remove }))
}

/// Members without a vote whose place is not wanted, or has another life.
fn remove_learners(situation: &Situation, places: &Places<'_>) -> Option<Step> {
    let goes = |m: &&Member| !m.votes() && !places.stays(m) && m.place.member != situation.me;
    let gone: BTreeSet<_> = situation.members.iter().filter(goes).map(|m| m.place.member).collect();
    (!gone.is_empty()).then_some(Step::Remove(gone))
}
