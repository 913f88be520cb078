//! Majorities: what a set of voters can lose.

use super::{Member, Situation, places::Places};
use crate::types::MemberId;

/// The least number that is more than half of `voters`.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether those of the set that are `good` are more than half of it. Never true of nobody.
pub(super) fn is_majority<'a>(
    set: impl Iterator<Item = &'a Member>,
    good: impl Fn(&Member) -> bool,
) -> bool {
    spare(set, good).is_some()
}

/// How many of those that are `good` could be lost, if they are a majority.
fn spare<'a>(
    set: impl Iterator<Item = &'a Member>,
    good: impl Fn(&Member) -> bool,
) -> Option<usize> {
    let (mut all, mut fine) = (0, 0);
    for member in set {
        all += 1;
        fine += usize::from(good(member));
    }
    fine.checked_sub(majority(all))
}

/// How many of the voters in contact may go before writes stop, whichever they are. None: too few
/// are in contact already.
pub fn tolerates(situation: &Situation) -> Option<u32> {
    let old = spare(situation.old_voters(), |m| m.in_contact)?;
    let new = spare(situation.new_voters(), |m| m.in_contact)?;
    u32::try_from(old.min(new)).ok()
}

/// Whether the voters in contact are a majority without this one, of both sets when the
/// configuration is joint.
///
/// True as well where it makes no difference: of a member that has no vote, and of the only voter
/// where one is all that is wanted, since nobody could take over by waiting.
pub fn may_stop(situation: &Situation, member: MemberId) -> bool {
    let others = |m: &Member| m.in_contact && m.place.member != member;
    if is_majority(situation.old_voters(), others) && is_majority(situation.new_voters(), others) {
        return true;
    }
    let mut voters = situation.members.iter().filter(|m| m.votes());
    let alone = voters.clone().count() == 1 && Places::of(situation).wants_one_voter();
    alone || !voters.any(|m| m.place.member == member)
}
