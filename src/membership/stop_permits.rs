//! The leader's ledger of members that are permitted to stop: pure, with `now` passed in.
//!
//! A member with a permit counts as stopped: it is no part of the majority that the next permit relies
//! on, and the planner does not consider it caught up. So of two voters that ask at the same time, at
//! most one is permitted if the quorum needs the other.
//!
//! Contact is not enough for that majority: a voter that needs a snapshot, or whose disk hangs, commits
//! nothing. So a member waits while another voter does not acknowledge entries, to the end of its grace
//! period if that voter never does. A member that is stalled itself never waits: nothing can be committed
//! with it, and its restart is the cure. If another voter is away as well, nothing is committed until one
//! of the two returns, whether this member waits or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::planner::{self, Member, Observed};
use crate::types::MemberId;

/// A permit lapses after this time, if the restarted member was not observed before.
const PERMIT_TTL: Duration = Duration::from_secs(30);

/// The leader's answer to a member that wants to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopPermit {
    Granted,
    NotLeader,
    /// With the reason, for operators.
    Wait(String),
}

#[derive(Debug, Clone, Copy)]
struct Permit {
    /// The member's boot count when it asked. A higher one proves that it has restarted.
    boot: u64,
    granted_at: Instant,
}

/// The reason why a voter does not acknowledge entries, for operators.
fn obstacle(voter: &Member) -> String {
    let ordinal = voter.ordinal();
    match (voter.in_contact, voter.stalled) {
        (false, false) => format!("ordinal {ordinal} has not returned yet"),
        // Raft answers no heartbeat while an entry waits for the disk.
        (false, true) => format!("ordinal {ordinal} has not returned yet, or its disk hangs"),
        // A receiver reports no progress while it installs a snapshot.
        (true, true) => format!(
            "ordinal {ordinal} stores no entries: its disk may hang, or it installs a snapshot"
        ),
        (true, false) => format!("ordinal {ordinal} has not caught up yet"),
    }
}

/// The permits that are in force.
#[derive(Debug, Default)]
pub struct StopPermits(BTreeMap<MemberId, Permit>);

impl StopPermits {
    pub fn grant(&mut self, member: MemberId, boot: u64, now: Instant) {
        self.0.insert(member, Permit { boot, granted_at: now });
    }

    /// Grants a permit if the acknowledging voters, without the permit holders, keep a majority without
    /// this member. Also if every other voter acknowledges: waiting would not improve that. Also to a
    /// stalled member.
    pub fn request(
        &mut self,
        mut observed: Observed,
        member: MemberId,
        boot: u64,
        now: Instant,
    ) -> StopPermit {
        for other in &mut observed.members {
            let stops = self.0.contains_key(&other.id());
            (other.in_contact, other.acks) = (other.in_contact && !stops, other.acks && !stops);
        }
        let is_stalled = observed.members.iter().any(|m| m.id() == member && m.stalled);
        let others = observed.members.iter().filter(|m| m.votes() && m.id() != member);
        let missing: Vec<String> = others.filter(|m| !m.acks).map(obstacle).collect();
        if is_stalled || missing.is_empty() || planner::may_stop(&observed, member) {
            self.grant(member, boot, now);
            return StopPermit::Granted;
        }
        StopPermit::Wait(missing.join(", "))
    }

    /// Drops the permits that have lapsed, and those of members that have restarted.
    ///
    /// `boot_of` is the boot count that a member has replicated. `leader` is this member, with the
    /// duration of its leadership: a leader that handed over and was elected again did not stop.
    pub fn drop_stale(
        &mut self,
        boot_of: impl Fn(MemberId) -> Option<u64>,
        leader: (MemberId, Duration),
        now: Instant,
    ) {
        self.0.retain(|id, permit| {
            let age = now.saturating_duration_since(permit.granted_at);
            let restarted = boot_of(*id).is_some_and(|boot| boot > permit.boot);
            let elected_since = *id == leader.0 && age > leader.1;
            age < PERMIT_TTL && !restarted && !elected_since
        });
    }

    pub fn holders(&self) -> BTreeSet<MemberId> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::planner::Member, *};
    use crate::types::{MemberRef, Ordinal};

    const NOT_LEADER: (MemberId, Duration) = (MemberId(0), Duration::ZERO);

    /// Voters with the ids 1, 2, …; those in `silent` are out of contact.
    fn observed(voters: u64, silent: &[u64]) -> Observed {
        let member = |id: u64| Member {
            member_ref: MemberRef { member: MemberId(id), ordinal: Ordinal(id as u32 - 1) },
            old_voter: true,
            new_voter: true,
            in_contact: !silent.contains(&id),
            caught_up: true,
            acks: !silent.contains(&id),
            stalled: false,
            removal_requested: false,
        };
        Observed {
            me: MemberId(1),
            members: (1..=voters).map(member).collect(),
            committed: true,
            desired: None,
            max_voters: 5,
        }
    }

    fn request(permits: &mut StopPermits, observed: Observed, id: u64) -> StopPermit {
        permits.request(observed, MemberId(id), 1, Instant::now())
    }

    #[test]
    fn a_permit_counts_as_a_loss_for_the_next_request() {
        let mut permits = StopPermits::default();
        assert_eq!(request(&mut permits, observed(3, &[]), 2), StopPermit::Granted);
        let second = request(&mut permits, observed(3, &[]), 3);
        assert_eq!(second, StopPermit::Wait("ordinal 1 has not returned yet".into()));
        assert_eq!(permits.holders(), [MemberId(2)].into());
        // A holder may ask again.
        assert_eq!(request(&mut permits, observed(3, &[]), 2), StopPermit::Granted);
    }

    #[test]
    fn a_member_out_of_contact_blocks_a_permit() {
        let mut permits = StopPermits::default();
        let answer = request(&mut permits, observed(3, &[3]), 2);
        assert_eq!(answer, StopPermit::Wait("ordinal 2 has not returned yet".into()));
        assert!(permits.holders().is_empty());
        assert_eq!(request(&mut permits, observed(5, &[3]), 2), StopPermit::Granted);
    }

    /// The voters in `late` answer heartbeats, and do not acknowledge entries.
    fn observed_late(voters: u64, late: &[u64], stalled: bool) -> Observed {
        let mut observed = observed(voters, &[]);
        for member in observed.members.iter_mut().filter(|m| late.contains(&m.id().0)) {
            (member.acks, member.stalled) = (false, stalled);
        }
        observed
    }

    #[test]
    fn a_voter_that_only_answers_heartbeats_blocks_a_permit() {
        for (stalled, reason) in [
            (false, "ordinal 2 has not caught up yet"),
            (true, "ordinal 2 stores no entries: its disk may hang, or it installs a snapshot"),
        ] {
            let mut permits = StopPermits::default();
            let answer = request(&mut permits, observed_late(3, &[3], stalled), 2);
            assert_eq!(answer, StopPermit::Wait(reason.into()));
            let answer = request(&mut permits, observed_late(5, &[3], stalled), 2);
            assert_eq!(answer, StopPermit::Granted);
        }
        let both = request(&mut StopPermits::default(), observed_late(3, &[1, 3], false), 2);
        let reason = "ordinal 0 has not caught up yet, ordinal 2 has not caught up yet";
        assert_eq!(both, StopPermit::Wait(reason.into()));
    }

    #[test]
    fn a_stalled_member_never_waits_and_one_that_catches_up_does() {
        let mut all_but_one = observed_late(3, &[2, 3], true);
        assert_eq!(
            request(&mut StopPermits::default(), all_but_one.clone(), 2),
            StopPermit::Granted
        );
        // The others have no majority without it, and will have one with it.
        all_but_one.members[1].stalled = false;
        let answer = request(&mut StopPermits::default(), all_but_one, 2);
        assert!(matches!(answer, StopPermit::Wait(_)), "{answer:?}");
        // The others have one without it.
        let answer = request(&mut StopPermits::default(), observed_late(3, &[2], false), 2);
        assert_eq!(answer, StopPermit::Granted);
    }

    #[test]
    fn a_stalled_member_may_stop_although_another_voter_is_away() {
        let mut observed = observed(3, &[3]);
        (observed.members[1].acks, observed.members[1].stalled) = (false, true);
        assert_eq!(request(&mut StopPermits::default(), observed, 2), StopPermit::Granted);
    }

    #[test]
    fn voters_that_all_acknowledge_do_not_wait_for_each_other() {
        // One of two: without it the other is no majority, and waiting would not change that.
        assert_eq!(request(&mut StopPermits::default(), observed(2, &[]), 2), StopPermit::Granted);
    }

    #[test]
    fn a_permit_ends_with_time_with_a_restart_and_with_an_election() {
        let granted_at = Instant::now();
        let member = MemberId(2);
        let later = Duration::from_secs(10);
        for (age, boot, leader, stays) in [
            (later, None, NOT_LEADER, true),
            (later, Some(7), NOT_LEADER, true),
            (later, Some(8), NOT_LEADER, false),
            (PERMIT_TTL, Some(7), NOT_LEADER, false),
            // It has led since before the permit: the hand-over has not happened yet.
            (later, Some(7), (member, later * 2), true),
            // It was elected after the permit, or no longer leads.
            (later, Some(7), (member, later / 2), false),
            (later, Some(7), (member, Duration::ZERO), false),
        ] {
            let mut permits = StopPermits::default();
            permits.grant(member, 7, granted_at);
            permits.drop_stale(|_| boot, leader, granted_at + age);
            assert_eq!(permits.holders().contains(&member), stays, "{age:?} {boot:?} {leader:?}");
        }
    }
}
