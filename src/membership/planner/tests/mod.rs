//! The planner by examples, on arbitrary situations, and through random histories.

mod scripts;

use std::collections::BTreeSet;

use super::{Member, Situation, Step};
use crate::types::MemberId;

/// What the membership is once the step is committed. Contact and lag stay as they are.
fn after(situation: &Situation, step: &Step) -> Situation {
    let mut next = situation.clone();
    match step {
        Step::FinishJoint => next.members.iter_mut().for_each(|m| m.old_voter = m.new_voter),
        Step::ChangeVoters { add, remove } => {
            for member in &mut next.members {
                let id = member.place.member;
                let votes = (member.new_voter || add.contains(&id)) && !remove.contains(&id);
                (member.old_voter, member.new_voter) = (votes, votes);
            }
        }
        Step::Remove(gone) => next.members.retain(|m| !gone.contains(&m.place.member)),
        Step::HandOver { to } => next.me = *to,
    }
    next
}

fn ids<'a>(members: impl Iterator<Item = &'a Member>) -> BTreeSet<MemberId> {
    members.map(|m| m.place.member).collect()
}
