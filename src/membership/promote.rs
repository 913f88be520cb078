//! Lets learners vote once they have caught up.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    raft::{Raft, RaftMembership},
    stop::Stopping,
    types::MemberId,
};

/// More voters make writes slower and safety no better.
const MAX_VOTERS: usize = 5;
/// A learner this close behind has caught up.
const CAUGHT_UP_ENTRIES: u64 = 100;
/// It must have been so for this many looks in a row.
const STABLE_LOOKS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs on every member, does something on the leader. Ends when `stopping` says so.
pub async fn promote_learners(raft: Raft, mut stopping: Stopping) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stable: BTreeMap<MemberId, u32> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stopping.wait() => return,
        }
        let membership = raft.membership();
        let Some(member) = look(&raft, &membership, &mut stable) else { continue };
        // Without a quorum it may wait for ever.
        let promoted = tokio::select! {
            () = stopping.wait() => return,
            promoted = raft.promote(member, &membership) => promoted,
        };
        match promoted {
            Ok(()) => tracing::info!(%member, "a learner caught up and votes now"),
            Err(e) => tracing::warn!(%member, error = %e, "a learner was not promoted"),
        }
        stable.remove(&member);
    }
}

/// The learner to promote now, if any: the lowest ordinal first.
fn look(
    raft: &Raft,
    membership: &RaftMembership,
    stable: &mut BTreeMap<MemberId, u32>,
) -> Option<MemberId> {
    if !raft.leadership().is_mine() {
        stable.clear();
        return None;
    }
    let members = &membership.members;
    let voters = members.iter().filter(|m| m.voter).count();
    let last = raft.last_index().unwrap_or(0);
    let matched: BTreeMap<MemberId, u64> =
        raft.progress().into_iter().filter_map(|p| Some((p.member, p.matched?))).collect();
    let mut learners: Vec<_> = members.iter().filter(|m| !m.voter).map(|m| m.place).collect();
    learners.sort_by_key(|p| p.ordinal);
    stable.retain(|id, _| learners.iter().any(|p| p.member == *id));
    for place in &learners {
        let near = matched.get(&place.member).is_some_and(|&at| at + CAUGHT_UP_ENTRIES >= last);
        let looks = stable.entry(place.member).or_default();
        *looks = if near { *looks + 1 } else { 0 };
    }
    if voters >= MAX_VOTERS {
        return None;
    }
    learners.iter().map(|p| p.member).find(|id| stable.get(id).is_some_and(|&n| n >= STABLE_LOOKS))
}
