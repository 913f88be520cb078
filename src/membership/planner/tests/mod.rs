//! Tests of the planner: scripted examples, random states, and random histories.

mod cluster;
mod histories;
mod random_states;
mod scripts;

use std::collections::BTreeSet;

use super::{Member, Observed, Step};
use crate::types::{MemberId, Ordinal};

/// The membership after the step is committed. Contact and lag stay the same.
fn apply(observed: &Observed, step: &Step) -> Observed {
    let mut next = observed.clone();
    match step {
        Step::FinishJoint => next.members.iter_mut().for_each(|m| m.old_voter = m.new_voter),
        Step::ChangeVoters { add, remove } => {
            for member in &mut next.members {
                let id = member.id();
                let votes = (member.new_voter || add.contains(&id)) && !remove.contains(&id);
                (member.old_voter, member.new_voter) = (votes, votes);
            }
        }
        Step::Remove(removed) => next.members.retain(|m| !removed.contains(&m.id())),
        Step::HandOver { to } => next.me = *to,
    }
    next
}

/// Panics if the step breaks an invariant that holds in every state.
fn assert_safe(now: &Observed, step: &Step) {
    let voters = voters_of(now);
    assert!(now.committed, "a change starts before the previous one is committed");
    match step {
        Step::FinishJoint => {
            assert!(is_joint(now), "there is no joint configuration");
            assert_majority(&pick(now, &voters), Member::progresses);
            let old: Vec<_> = now.members.iter().filter(|m| m.old_voter).collect();
            assert_majority(&old, Member::progresses);
        }
        Step::HandOver { to } => {
            let stalled = pick(now, &[now.me].into()).iter().any(|m| m.stalled);
            let leaves = stalled || !voters.contains(&now.me) || !keeps(now, now.me);
            assert!(leaves && *to != now.me, "a leader hands over although it could continue");
            assert!(voters.contains(to) && pick(now, &[*to].into()).into_iter().all(ready));
        }
        Step::Remove(removed) => {
            assert_majority(&pick(now, &voters), ready);
            let removed: Vec<_> = pick(now, removed).into_iter().map(|m| m.id()).collect();
            assert!(!removed.is_empty() && !is_joint(now));
            assert!(
                !removed.iter().any(|id| voters.contains(id) || *id == now.me || keeps(now, *id))
            );
        }
        Step::ChangeVoters { add, remove } => assert_safe_change(now, add, remove),
    }
}

fn assert_safe_change(now: &Observed, add: &BTreeSet<MemberId>, remove: &BTreeSet<MemberId>) {
    let present = voters_of(now);
    let next: BTreeSet<MemberId> = &(&present | add) - remove;
    assert!(!is_joint(now), "the joint configuration is not left first");
    assert!(!(add.is_empty() && remove.is_empty()), "nothing changes");
    assert!(add.is_disjoint(&present) && remove.is_subset(&present));
    assert!(!remove.contains(&now.me), "removes the leader before it has handed over");
    assert_eq!(pick(now, add).len(), add.len(), "adds a voter that is not a member");
    assert!(pick(now, add).into_iter().all(ready), "adds a learner that has not caught up");
    assert!(add.iter().all(|id| keeps(now, *id)), "adds a leaving member");
    assert_majority(&pick(now, &present), ready);
    assert_majority(&pick(now, &next), ready);
    let leader_still_votes = next.contains(&now.me) && !keeps(now, now.me);
    assert!(next.len() % 2 == 1 || leader_still_votes, "an even number of voters");
    assert!(next.len() <= target(now) + usize::from(leader_still_votes), "too many voters");
    let kept = |m: &Member| keeps(now, m.id()) && m.progresses();
    assert!(add.is_empty() || !pick(now, remove).into_iter().any(kept), "a needless swap");
    let ordinals: BTreeSet<Ordinal> = pick(now, &present).iter().map(|m| m.ordinal()).collect();
    let welcome = !pick(now, &present).iter().any(|m| m.removal_requested);
    let all_wanted =
        welcome && ordinals.len() == present.len() && ordinals.iter().all(|o| is_wanted(now, *o));
    if all_wanted && present.len() % 2 == 1 && present.len() <= target(now) {
        assert!(next.len() >= present.len(), "fewer voters, although none leaves");
        let lost = |ids| pick(now, ids).iter().filter(|m| !m.progresses()).count();
        assert!(lost(&next) <= lost(&present), "tolerates fewer losses");
        let well = |ids| pick(now, ids).into_iter().filter(|m| ready(m)).count();
        assert!(well(&next) >= well(&present), "fewer voters are ready");
    }
}

fn ready(member: &Member) -> bool {
    member.in_contact && member.acks && member.caught_up && !member.stalled
}

fn pick<'a>(now: &'a Observed, ids: &BTreeSet<MemberId>) -> Vec<&'a Member> {
    now.members.iter().filter(|m| ids.contains(&m.id())).collect()
}

#[track_caller]
fn assert_majority(set: &[&Member], good: impl Fn(&Member) -> bool) {
    let fine = set.iter().filter(|m| good(m)).count();
    assert!(2 * fine > set.len(), "only {fine} of {} could commit it", set.len());
}

fn is_joint(now: &Observed) -> bool {
    now.members.iter().any(|m| m.old_voter != m.new_voter)
}

/// The incoming set.
fn voters_of(now: &Observed) -> BTreeSet<MemberId> {
    now.members.iter().filter(|m| m.new_voter).map(|m| m.id()).collect()
}

fn is_wanted(now: &Observed, ordinal: Ordinal) -> bool {
    now.desired.as_ref().is_none_or(|d| d.includes(ordinal))
}

fn keeps(now: &Observed, id: MemberId) -> bool {
    now.members.iter().any(|m| {
        let newer = |o: &Member| o.ordinal() == m.ordinal() && o.id() > id && !o.removal_requested;
        let newest = !now.members.iter().any(newer);
        m.id() == id && !m.removal_requested && newest && is_wanted(now, m.ordinal())
    })
}

/// The number of voters once every member is up and caught up.
fn target(now: &Observed) -> usize {
    let welcome = now.members.iter().filter(|m| !m.removal_requested);
    let ordinals: BTreeSet<Ordinal> = welcome.map(|m| m.ordinal()).collect();
    let replicas = now.desired.as_ref().map_or(ordinals.len(), |d| d.replicas as usize);
    let most = replicas.min(now.max_voters as usize);
    (1..=most).rev().find(|n| n % 2 == 1).unwrap_or(1)
}
