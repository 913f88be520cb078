//! The target: the members that stay, and the members that should vote.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    blocked::{Blocked, BlockedBy},
    observed::{Member, Observed},
};
use crate::types::{MemberId, Ordinal};

/// The target membership for one observation.
pub struct Target<'a> {
    observed: &'a Observed,
    /// The incarnations at each wanted ordinal, the newest last.
    incarnations: BTreeMap<Ordinal, Vec<&'a Member>>,
    voter_count: usize,
}

/// The order in which members are chosen as voters. Members up to `Replaced` are in contact and can
/// complete a majority, now or once they have caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The leader: replacing it costs an election.
    Leader,
    /// A caught-up voter.
    Voter,
    /// A voter that is behind but reachable, so it will catch up.
    VoterBehind,
    /// A caught-up learner.
    Learner,
    /// A voter that keeps its vote until the next incarnation at its ordinal has caught up.
    Replaced,
    /// A voter in contact that stores no entries. A restart of its pod may cure it, so its vote is taken
    /// only for a better candidate.
    StalledVoter,
    /// A voter out of contact. It may return, so its vote is taken only for a better candidate.
    SilentVoter,
    SilentReplaced,
}

impl<'a> Target<'a> {
    pub fn of(observed: &'a Observed) -> Target<'a> {
        let mut incarnations: BTreeMap<Ordinal, Vec<&Member>> = BTreeMap::new();
        let desired = observed.desired.as_ref();
        for member in &observed.members {
            let ordinal = member.ordinal();
            if !member.removal_requested && desired.is_none_or(|d| d.includes(ordinal)) {
                incarnations.entry(ordinal).or_default().push(member);
            }
        }
        incarnations.values_mut().for_each(|members| members.sort_by_key(|m| m.id()));
        let pods = desired.map_or(incarnations.len(), |d| d.replicas as usize);
        let voter_count = odd(pods.min(observed.max_voters as usize));
        Target { observed, incarnations, voter_count }
    }

    /// Whether the member is the newest incarnation at a wanted ordinal.
    pub fn keeps(&self, member: &Member) -> bool {
        let incarnations = self.incarnations.get(&member.ordinal());
        incarnations.and_then(|all| all.last()).is_some_and(|newest| newest.id() == member.id())
    }

    /// Whether the leader leaves or has lost its vote: Raft lets it lead on as a learner.
    pub fn leader_leaves(&self) -> bool {
        let mut leader = self.voters().filter(|m| m.id() == self.observed.me);
        leader.next().is_none_or(|leader| !self.keeps(leader))
    }

    /// The voter that takes over from a leader whose own disk hangs. Such a leader commits entries, but
    /// without its own copy, and it can give its vote to a learner only once it does not lead.
    pub fn successor_of_stalled_leader(&self) -> Option<&'a Member> {
        let me = self.observed.me;
        if !self.observed.members.iter().any(|m| m.id() == me && m.stalled) {
            return None;
        }
        let ready = self.voters().filter(|m| m.id() != me && self.keeps(m) && m.is_ready());
        ready.min_by_key(|m| m.ordinal())
    }

    /// The members that should vote next: the target number, or as many as are available.
    ///
    /// The unreachable and stalled members of the set are always a minority of it: if two of five leave
    /// and two are dead, one voter remains. The set never has two voters if one suffices, with one exception:
    /// of two voters on the way to more, both stay, because one copy of the last writes would be too
    /// few.
    pub fn next_voters(&self) -> BTreeSet<MemberId> {
        let present: BTreeSet<MemberId> = self.voters().map(Member::id).collect();
        let candidates = self.candidates();
        let reachable = candidates.iter().filter(|(rank, _)| *rank <= Rank::Replaced).count();
        if reachable == 0 {
            return present;
        }
        let size = odd(self.voter_count.min(candidates.len()).min(2 * reachable - 1));
        let two_copies = present.len() == 2 && self.voters().all(|m| self.keeps(m));
        if size == 1 && self.voter_count > 1 && two_copies {
            return present;
        }
        let mut next: Vec<MemberId> = candidates.iter().map(|(_, m)| m.id()).take(size).collect();
        let me = self.observed.me;
        if present.contains(&me) && self.leader_leaves() && !next.contains(&me) {
            // No staying member votes yet. The leader votes with the first that do, then hands over.
            next.truncate((size - 1).max(1));
            next.push(me);
        }
        next.into_iter().collect()
    }

    /// The obstacle, if no step is due although the target is not reached.
    pub fn blocked(&self) -> Option<Blocked> {
        let staying = self.voters().filter(|m| self.keeps(m));
        let (count, all_stay) = (staying.clone().count(), self.voters().all(|m| self.keeps(m)));
        if all_stay && count >= self.voter_count {
            return None;
        }
        let no_successor = !all_stay && !staying.clone().any(|m| m.progresses());
        let newest = self.incarnations.values().filter_map(|all| all.last().copied());
        let late = newest.filter(|m| !m.is_ready() && (no_successor || !m.votes()));
        let by = if no_successor { BlockedBy::StayingMembers } else { BlockedBy::Learners };
        let blocked = Blocked::new(by, late);
        let missing = self.empty_ordinals(self.voter_count.saturating_sub(count));
        if blocked.waiting_for.is_empty() && !missing.is_empty() {
            return Some(Blocked::new(BlockedBy::MissingPods(missing), []));
        }
        Some(blocked)
    }

    pub fn is_single_voter(&self) -> bool {
        self.voter_count == 1
    }

    /// One candidate for each ordinal that has one, the first choice first.
    fn candidates(&self) -> Vec<(Rank, &'a Member)> {
        let mut candidates: Vec<_> =
            self.incarnations.values().filter_map(|all| self.candidate(all)).collect();
        candidates.sort_by_key(|(rank, m)| (*rank, m.ordinal()));
        candidates
    }

    fn candidate(&self, incarnations: &[&'a Member]) -> Option<(Rank, &'a Member)> {
        let newest = *incarnations.last()?;
        let rank = match newest.votes() {
            true if newest.id() == self.observed.me => Rank::Leader,
            true if newest.is_ready() => Rank::Voter,
            true if newest.progresses() => Rank::VoterBehind,
            true if newest.in_contact => Rank::StalledVoter,
            true => Rank::SilentVoter,
            false if newest.is_ready() => Rank::Learner,
            false => {
                let old = *incarnations.iter().rev().find(|m| m.votes())?;
                let rank = if old.progresses() { Rank::Replaced } else { Rank::SilentReplaced };
                return Some((rank, old));
            }
        };
        Some((rank, newest))
    }

    /// The first wanted ordinals without a member, up to `count_max`.
    fn empty_ordinals(&self, count_max: usize) -> BTreeSet<Ordinal> {
        let Some(desired) = &self.observed.desired else { return BTreeSet::new() };
        let ordinals = (0..desired.replicas).map_while(|n| desired.start.checked_add(n));
        let empty = ordinals.map(Ordinal).filter(|o| !self.incarnations.contains_key(o));
        empty.take(count_max).collect()
    }

    fn voters(&self) -> impl Iterator<Item = &'a Member> + Clone + use<'a> {
        self.observed.new_voters()
    }
}

/// The largest odd number up to `n`, at least one.
fn odd(n: usize) -> usize {
    n.max(1) - usize::from(n > 0 && n.is_multiple_of(2))
}
