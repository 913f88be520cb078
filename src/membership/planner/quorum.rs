//! Majorities: the losses that a set of voters tolerates.

use super::{
    observed::{Member, Observed},
    target::Target,
};
use crate::types::MemberId;

/// The least number that is more than half of `voters`.
fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether more than half of the set is `good`. False for an empty set.
pub fn is_majority<'a>(
    set: impl Iterator<Item = &'a Member>,
    good: impl Fn(&Member) -> bool,
) -> bool {
    spare(set, good).is_some()
}

/// The number of `good` members beyond a majority; `None`: they are no majority.
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

/// The number of acknowledging voters that may fail, in any combination, before writes stop. `None`: too
/// few acknowledge entries already.
pub fn tolerates(observed: &Observed) -> Option<u32> {
    let old = spare(observed.old_voters(), |m| m.acks)?;
    let new = spare(observed.new_voters(), |m| m.acks)?;
    u32::try_from(old.min(new)).ok()
}

/// Whether the acknowledging voters are a majority without this one, of both sets when the
/// configuration is joint. A voter that only answers heartbeats would not do: no write could be
/// committed until it has caught up.
///
/// Also true if the member's stop changes nothing: for a learner, and for the only voter where the
/// target is one voter, since waiting would not produce a successor.
pub fn may_stop(observed: &Observed, member: MemberId) -> bool {
    let others = |m: &Member| m.acks && m.id() != member;
    if is_majority(observed.old_voters(), others) && is_majority(observed.new_voters(), others) {
        return true;
    }
    let mut voters = observed.members.iter().filter(|m| m.votes());
    let alone = voters.clone().count() == 1 && Target::of(observed).is_single_voter();
    alone || !voters.any(|m| m.id() == member)
}
