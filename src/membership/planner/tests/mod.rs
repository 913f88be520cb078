//! The planner by examples, on arbitrary situations, and through random histories.

mod cluster;
mod histories;
mod scripts;
mod situations;

use std::collections::BTreeSet;

use super::{Member, Situation, Step};
use crate::types::{MemberId, Ordinal};

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

/// Panics if the step breaks what must hold of every step, however things came to be as they are.
fn judge(now: &Situation, step: &Step) {
    let voters = voters_of(now);
    assert!(now.committed, "something is begun before the last change is committed");
    match step {
        Step::FinishJoint => {
            assert!(is_joint(now), "there is no joint configuration");
            assert_majority(&pick(now, &voters), |m| m.in_contact);
            let old: Vec<_> = now.members.iter().filter(|m| m.old_voter).collect();
            assert_majority(&old, |m| m.in_contact);
        }
        Step::HandOver { to } => {
            let goes = !voters.contains(&now.me) || !stays(now, now.me);
            assert!(goes && *to != now.me, "a leader hands over that could go on");
            assert!(voters.contains(to) && pick(now, &[*to].into()).into_iter().all(ready));
        }
        Step::Remove(gone) => {
            assert_majority(&pick(now, &voters), ready);
            let gone: Vec<_> = pick(now, gone).into_iter().map(|m| m.place.member).collect();
            assert!(!gone.is_empty() && !is_joint(now));
            assert!(!gone.iter().any(|id| voters.contains(id) || *id == now.me || stays(now, *id)));
        }
        Step::ChangeVoters { add, remove } => judge_change(now, add, remove),
    }
}

fn judge_change(now: &Situation, add: &BTreeSet<MemberId>, remove: &BTreeSet<MemberId>) {
    let present = voters_of(now);
    let next: BTreeSet<MemberId> = &(&present | add) - remove;
    assert!(!is_joint(now), "the joint configuration is not left first");
    assert!(!(add.is_empty() && remove.is_empty()), "nothing changes");
    assert!(add.is_disjoint(&present) && remove.is_subset(&present));
    assert!(!remove.contains(&now.me), "the leader before it has handed over");
    assert_eq!(pick(now, add).len(), add.len(), "who is no member cannot vote");
    assert!(pick(now, add).into_iter().all(ready), "a learner that has not caught up");
    assert!(add.iter().all(|id| stays(now, *id)), "one that is to leave");
    assert_majority(&pick(now, &present), ready);
    assert_majority(&pick(now, &next), ready);
    let beside = next.contains(&now.me) && !stays(now, now.me);
    assert!(next.len() % 2 == 1 || beside, "an even number of voters");
    assert!(next.len() <= target(now) + usize::from(beside), "too many voters");
    let kept = |m: &Member| stays(now, m.place.member) && m.in_contact;
    assert!(add.is_empty() || !pick(now, remove).into_iter().any(kept), "a needless swap");
    let places: BTreeSet<Ordinal> = pick(now, &present).iter().map(|m| m.place.ordinal).collect();
    let welcome = !pick(now, &present).iter().any(|m| m.told_to_leave);
    let all_wanted =
        welcome && places.len() == present.len() && places.iter().all(|o| wants(now, *o));
    if all_wanted && present.len() % 2 == 1 && present.len() <= target(now) {
        assert!(next.len() >= present.len(), "fewer voters, and none was to leave");
        let silent = |ids| pick(now, ids).iter().filter(|m| !m.in_contact).count();
        assert!(silent(&next) <= silent(&present), "less can be lost");
    }
}

fn ready(member: &Member) -> bool {
    member.in_contact && member.caught_up
}

fn pick<'a>(now: &'a Situation, ids: &BTreeSet<MemberId>) -> Vec<&'a Member> {
    now.members.iter().filter(|m| ids.contains(&m.place.member)).collect()
}

#[track_caller]
fn assert_majority(set: &[&Member], good: impl Fn(&Member) -> bool) {
    let fine = set.iter().filter(|m| good(m)).count();
    assert!(2 * fine > set.len(), "only {fine} of {} could commit it", set.len());
}

fn is_joint(now: &Situation) -> bool {
    now.members.iter().any(|m| m.old_voter != m.new_voter)
}

/// The incoming set.
fn voters_of(now: &Situation) -> BTreeSet<MemberId> {
    now.members.iter().filter(|m| m.new_voter).map(|m| m.place.member).collect()
}

fn wants(now: &Situation, ordinal: Ordinal) -> bool {
    now.desired.as_ref().is_none_or(|d| d.wants(ordinal))
}

fn stays(now: &Situation, id: MemberId) -> bool {
    now.members.iter().any(|m| {
        let newer = |o: &Member| {
            o.place.ordinal == m.place.ordinal && o.place.member > id && !o.told_to_leave
        };
        let newest = !now.members.iter().any(newer);
        m.place.member == id && !m.told_to_leave && newest && wants(now, m.place.ordinal)
    })
}

/// How many voters there should be once all is well.
fn target(now: &Situation) -> usize {
    let welcome = now.members.iter().filter(|m| !m.told_to_leave);
    let places: BTreeSet<Ordinal> = welcome.map(|m| m.place.ordinal).collect();
    let replicas = now.desired.as_ref().map_or(places.len(), |d| d.replicas as usize);
    let most = replicas.min(now.max_voters as usize);
    (1..=most).rev().find(|n| n % 2 == 1).unwrap_or(1)
}
