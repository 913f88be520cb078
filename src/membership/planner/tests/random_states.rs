//! Random states, including unreachable ones: every plan is safe, and following the plans settles.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::{Member, Observed, Plan, plan},
    apply, assert_safe, voters_of,
};
use crate::{
    membership::tests::cases,
    types::{DesiredReplicas, MemberId, MemberRef, Ordinal},
};

/// More steps than any change of a cluster this small takes.
const STEPS_MAX: usize = 8;

fn member() -> impl Strategy<Value = Member> {
    let up = || prop::bool::weighted(0.7);
    let requested = prop::bool::weighted(0.1);
    let parts = (0u32..7, 0u8..10, up(), up(), requested, (up(), up()));
    parts.prop_map(|(ordinal, votes, in_contact, caught_up, removal_requested, (acks, moves))| {
        Member {
            removal_requested,
            member_ref: MemberRef { member: MemberId(0), ordinal: Ordinal(ordinal) },
            old_voter: votes < 5 || votes == 9,
            new_voter: votes < 5,
            in_contact,
            caught_up,
            acks: in_contact && acks,
            stalled: !(moves || in_contact && acks),
        }
    })
}

fn observed() -> impl Strategy<Value = Observed> {
    let desired = prop::option::weighted(0.8, (0u32..3, 0u32..7));
    (vec(member(), 1..10), any::<Index>(), desired, 0u32..8, 0u8..10, any::<bool>()).prop_map(
        |(mut members, me, desired, max_voters, committed, joint)| {
            for (n, member) in members.iter_mut().enumerate() {
                // Higher ids at lower ordinals too.
                member.member_ref.member = MemberId((n as u64 * 7) % 11 + 1);
                if !joint {
                    member.old_voter = member.new_voter;
                }
            }
            let me = me.index(members.len());
            let leader = &mut members[me];
            (leader.in_contact, leader.caught_up) = (true, true);
            leader.stalled &= !leader.acks;
            // Raft lets a leader that has lost its vote lead on.
            leader.old_voter |= committed > 1;
            leader.new_voter |= !joint && leader.old_voter;
            if !joint {
                leader.old_voter = leader.new_voter;
            }
            let set = String::from("kv");
            let desired = desired.map(|(start, replicas)| DesiredReplicas {
                set,
                generation: 1,
                start,
                replicas,
            });
            let me = leader.id();
            Observed { me, members, committed: committed > 0, desired, max_voters }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(10_000), failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_step_is_unsafe_and_steps_come_to_an_end(mut now in observed()) {
        let mut seen = vec![voters_of(&now)];
        for _ in 0..STEPS_MAX {
            let next = plan(&now);
            let mut turned = now.clone();
            turned.members.reverse();
            prop_assert_eq!(&plan(&turned), &next, "the order of the members matters");
            let Plan::Do(step) = next else { return Ok(()) };
            assert_safe(&now, &step);
            now = apply(&now, &step);
            let voters = voters_of(&now);
            prop_assert!(!voters.is_empty(), "no voters are left");
            if Some(&voters) != seen.last() {
                prop_assert!(!seen.contains(&voters), "back to {voters:?} from {seen:?}");
                seen.push(voters);
            }
        }
        prop_assert!(false, "the plan does not settle: {seen:?}");
    }
}
