//! Who is to stay, and who should vote.

use std::collections::{BTreeMap, BTreeSet};

use super::{Member, Situation, Waiting, Why};
use crate::types::{MemberId, Ordinal};

/// The situation, place by place.
pub(super) struct Places<'a> {
    situation: &'a Situation,
    /// The members at each wanted place, the newest last.
    wanted: BTreeMap<Ordinal, Vec<&'a Member>>,
    /// How many should vote.
    target: usize,
}

/// Who comes first when votes are given out. Up to `Replaced` they answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The leader: another one costs an election.
    Leader,
    /// Votes and has caught up.
    Voter,
    /// Votes and is behind: it answers, so it gets the log.
    VoterBehind,
    /// Has no vote, and caught up.
    Learner,
    /// Votes until the next life of its place has caught up.
    Replaced,
    /// Votes and is out of contact. It may come back, so nobody gives up its vote for nothing.
    SilentVoter,
    SilentReplaced,
}

impl<'a> Places<'a> {
    pub(super) fn of(situation: &'a Situation) -> Places<'a> {
        let mut wanted: BTreeMap<Ordinal, Vec<&Member>> = BTreeMap::new();
        let desired = situation.desired.as_ref();
        for member in &situation.members {
            let ordinal = member.place.ordinal;
            if !member.told_to_leave && desired.is_none_or(|d| d.wants(ordinal)) {
                wanted.entry(ordinal).or_default().push(member);
            }
        }
        wanted.values_mut().for_each(|lives| lives.sort_by_key(|m| m.place.member));
        let pods = desired.map_or(wanted.len(), |d| d.replicas as usize);
        let target = odd(pods.min(situation.max_voters as usize));
        Places { situation, wanted, target }
    }

    /// Whether it is the newest life of a wanted place.
    pub(super) fn stays(&self, member: &Member) -> bool {
        let lives = self.wanted.get(&member.place.ordinal);
        lives.and_then(|l| l.last()).is_some_and(|m| m.place.member == member.place.member)
    }

    /// Whether the leader is to leave, or votes no more: Raft lets it lead on as a learner.
    pub(super) fn leader_goes(&self) -> bool {
        let mut mine = self.voters().filter(|m| m.place.member == self.situation.me);
        mine.next().is_none_or(|me| !self.stays(me))
    }

    /// Who should vote next: as many as are wanted, or as can be had.
    ///
    /// Never so many that those who do not answer could stop it: of five, of whom two go and two
    /// are dead, one is left. And never two where one will do, but for a time: from two voters on
    /// the way to more, none is taken back, because one copy of the last writes would be too few.
    pub(super) fn next_voters(&self) -> BTreeSet<MemberId> {
        let present: BTreeSet<MemberId> = self.voters().map(|m| m.place.member).collect();
        let seats = self.seats();
        let answering = seats.iter().filter(|(rank, _)| *rank <= Rank::Replaced).count();
        if answering == 0 {
            return present;
        }
        let size = odd(self.target.min(seats.len()).min(2 * answering - 1));
        let two_copies = present.len() == 2 && self.voters().all(|m| self.stays(m));
        if size == 1 && self.target > 1 && two_copies {
            return present;
        }
        let mut next: Vec<MemberId> =
            seats.iter().map(|(_, m)| m.place.member).take(size).collect();
        let me = self.situation.me;
        if present.contains(&me) && self.leader_goes() && !next.contains(&me) {
            // Nobody who stays votes yet. It votes beside the first that do, then hands over.
            next.truncate((size - 1).max(1));
            next.push(me);
        }
        next.into_iter().collect()
    }

    /// For whom it waits once there is nothing to do, if for anybody.
    pub(super) fn awaited(&self) -> Option<Waiting> {
        let staying = self.voters().filter(|m| self.stays(m));
        let (count, all) = (staying.clone().count(), self.voters().all(|m| self.stays(m)));
        if all && count >= self.target {
            return None;
        }
        let held = !all && !staying.clone().any(|m| m.in_contact);
        let newest = self.wanted.values().filter_map(|lives| lives.last().copied());
        let late = newest.filter(|m| !m.is_ready() && (held || !m.votes()));
        let waiting = Waiting::new(if held { Why::Successors } else { Why::Learners }, late);
        let places = self.empty_places(self.target.saturating_sub(count));
        if waiting.for_members.is_empty() && !places.is_empty() {
            return Some(Waiting::new(Why::Pods(places), []));
        }
        Some(waiting)
    }

    /// Whether all votes that are wanted are in one hand.
    pub(super) fn wants_one_voter(&self) -> bool {
        self.target == 1
    }

    /// One candidate for a vote from each place that has one, the first choice first.
    fn seats(&self) -> Vec<(Rank, &'a Member)> {
        let mut seats: Vec<_> = self.wanted.values().filter_map(|lives| self.seat(lives)).collect();
        seats.sort_by_key(|(rank, m)| (*rank, m.place.ordinal));
        seats
    }

    fn seat(&self, lives: &[&'a Member]) -> Option<(Rank, &'a Member)> {
        let newest = *lives.last()?;
        let rank = match (newest.votes(), newest.in_contact, newest.caught_up) {
            (true, ..) if newest.place.member == self.situation.me => Rank::Leader,
            (true, true, true) => Rank::Voter,
            (true, true, false) => Rank::VoterBehind,
            (true, false, _) => Rank::SilentVoter,
            (false, true, true) => Rank::Learner,
            (false, ..) => {
                let old = *lives.iter().rev().find(|m| m.votes())?;
                let rank = if old.in_contact { Rank::Replaced } else { Rank::SilentReplaced };
                return Some((rank, old));
            }
        };
        Some((rank, newest))
    }

    /// The first wanted places that nobody has joined from, at most so many.
    fn empty_places(&self, most: usize) -> BTreeSet<Ordinal> {
        let Some(desired) = &self.situation.desired else { return BTreeSet::new() };
        let ordinals = (0..desired.replicas).map_while(|n| desired.start.checked_add(n));
        ordinals.map(Ordinal).filter(|o| !self.wanted.contains_key(o)).take(most).collect()
    }

    fn voters(&self) -> impl Iterator<Item = &'a Member> + Clone + use<'a> {
        self.situation.new_voters()
    }
}

/// The largest odd number up to `n`, at least one.
fn odd(n: usize) -> usize {
    n.max(1) - usize::from(n > 0 && n.is_multiple_of(2))
}
