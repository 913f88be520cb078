//! The leader's ledger of members that are permitted to stop: pure, with `now` passed in.
//!
//! A member with a permit counts as stopped: it is no part of the majority that the next permit relies
//! on, and the planner does not consider it caught up. So of two voters that ask at the same time, at
//! most one is permitted if the quorum needs the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::planner::{self, Observed};
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

/// The permits that are in force.
#[derive(Debug, Default)]
pub struct StopPermits(BTreeMap<MemberId, Permit>);

impl StopPermits {
    pub fn grant(&mut self, member: MemberId, boot: u64, now: Instant) {
        self.0.insert(member, Permit { boot, granted_at: now });
    }

    /// Grants a permit if the voters in contact, without the permit holders, keep a majority without
    /// this member. Also if every other voter is in contact: waiting would not improve that.
    pub fn request(
        &mut self,
        mut observed: Observed,
        member: MemberId,
        boot: u64,
        now: Instant,
    ) -> StopPermit {
        for other in &mut observed.members {
            other.in_contact &= !self.0.contains_key(&other.id());
        }
        let missing = observed.members.iter().filter(|m| m.votes() && !m.in_contact);
        let missing: Vec<String> = missing
            .filter(|other| other.id() != member)
            .map(|other| other.ordinal().to_string())
            .collect();
        if planner::may_stop(&observed, member) || missing.is_empty() {
            self.grant(member, boot, now);
            return StopPermit::Granted;
        }
        StopPermit::Wait(format!("ordinal {} has not returned yet", missing.join(", ")))
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

    #[test]
    fn voters_that_are_all_in_contact_do_not_wait_for_each_other() {
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
