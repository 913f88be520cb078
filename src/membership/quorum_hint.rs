//! The hint of a member that waits for a majority: the number of pods that a hibernated cluster needs.
//!
//! Hibernation does not change the membership. If three voters are resumed with one pod, they have no
//! majority, and only a scale-up helps.

use std::collections::BTreeSet;

use super::orchestrator::{ClusterEvent, Orchestrator};
use crate::{
    raft::RaftMembership,
    types::{DesiredReplicas, Ordinal},
};

/// The last hint. The same one is not logged again.
#[derive(Debug, Default)]
pub struct QuorumHint(Option<String>);

impl QuorumHint {
    /// Logs a hint and emits an Event if the desired pods cannot elect a leader.
    pub fn report(
        &mut self,
        pods: &dyn Orchestrator,
        desired: &DesiredReplicas,
        membership: &RaftMembership,
    ) {
        let hint = too_few(&voters(membership), desired);
        if let Some(hint) = &hint {
            if self.0.as_ref() != Some(hint) {
                tracing::warn!("{hint}");
            }
            // Events expire, so the Event is emitted again as long as it is true.
            pods.emit(ClusterEvent::warning("Waiting", hint.clone()));
        }
        self.0 = hint;
    }
}

/// The ordinals of each set of voters.
fn voters(membership: &RaftMembership) -> Vec<BTreeSet<Ordinal>> {
    let ordinals = |set: &BTreeSet<_>| {
        let voters = membership.members.iter().map(|m| m.member_ref);
        voters.filter(|voter| set.contains(&voter.member)).map(|voter| voter.ordinal).collect()
    };
    membership.voters.iter().map(ordinals).collect()
}

fn too_few(voter_sets: &[BTreeSet<Ordinal>], desired: &DesiredReplicas) -> Option<String> {
    let short = voter_sets.iter().find(|set| !is_majority(set, desired))?;
    let named: Vec<String> = short.iter().map(Ordinal::to_string).collect();
    let advice = match replicas_needed(voter_sets, desired) {
        Some(replicas) => format!("scale to at least {replicas}"),
        None => "set .spec.ordinals.start back".into(),
    };
    Some(format!(
        "no majority: by this member's log the voters are ordinals {}, but the StatefulSet has replicas={} \
         from ordinal {} on: {advice}",
        named.join(", "),
        desired.replicas,
        desired.start
    ))
}

/// The fewest replicas with a majority of every set. `None`: too many voters are at ordinals before the
/// first pod.
fn replicas_needed(voter_sets: &[BTreeSet<Ordinal>], desired: &DesiredReplicas) -> Option<u32> {
    let last = voter_sets.iter().flatten().max()?;
    let most = last.0.checked_sub(desired.start)?.checked_add(1)?;
    let with = |replicas| DesiredReplicas { replicas, ..desired.clone() };
    let all = |replicas: &u32| voter_sets.iter().all(|set| is_majority(set, &with(*replicas)));
    (1..=most).find(all)
}

fn is_majority(set: &BTreeSet<Ordinal>, desired: &DesiredReplicas) -> bool {
    let there = set.iter().filter(|ordinal| desired.includes(**ordinal)).count();
    there > set.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(sets: &[&[u32]], start: u32, replicas: u32) -> Option<String> {
        let set = |ordinals: &&[u32]| ordinals.iter().copied().map(Ordinal).collect();
        let sets: Vec<BTreeSet<Ordinal>> = sets.iter().map(set).collect();
        too_few(&sets, &DesiredReplicas { set: "a".into(), generation: 1, start, replicas })
    }

    #[test]
    fn too_few_pods_get_the_number_that_is_needed() {
        for (sets, start, replicas, advice) in [
            (&[&[0, 1, 2][..]][..], 0, 1, Some("replicas=1 from ordinal 0 on")),
            (&[&[0, 1, 2]], 0, 1, Some("scale to at least 2")),
            (&[&[0, 1, 2]], 0, 2, None),
            (&[&[0, 1, 2, 3, 4]], 0, 2, Some("scale to at least 3")),
            // Both sets of an interrupted change.
            (&[&[0, 1, 2], &[0, 3, 4]], 0, 2, Some("the voters are ordinals 0, 3, 4")),
            (&[&[0, 1, 2], &[0, 3, 4]], 0, 2, Some("scale to at least 4")),
            (&[&[5, 6, 7]], 5, 1, Some("scale to at least 2")),
            (&[&[0, 1, 2]], 2, 3, Some("set .spec.ordinals.start back")),
            (&[&[0, 1, 2]], 7, 3, Some("set .spec.ordinals.start back")),
            (&[&[0]], 0, 1, None),
        ] {
            let hint = hint(sets, start, replicas);
            match (advice, &hint) {
                (Some(advice), Some(hint)) => assert!(hint.contains(advice), "{hint}"),
                _ => assert_eq!(hint.as_deref(), advice),
            }
        }
    }
}
