//! A cluster that slept and wakes with too few pods: the member that waits says how many it takes.
//!
//! A pause keeps the members as they are. So three voters that are woken as one pod have no majority,
//! and no planner can change that: only who scales.

use std::collections::BTreeSet;

use super::{News, Orchestrator};
use crate::{
    raft::RaftMembership,
    types::{Desired, Ordinal},
};

/// What was said last: the log need not say the same again.
#[derive(Debug, Default)]
pub(super) struct Waking(Option<String>);

impl Waking {
    /// Says so, if the pods that are wanted are fewer than it takes to have a leader.
    pub(super) fn say_what_it_takes(
        &mut self,
        pods: &dyn Orchestrator,
        wanted: &Desired,
        membership: &RaftMembership,
    ) {
        let why = too_few(&voters(membership), wanted);
        if let Some(why) = &why {
            if self.0.as_ref() != Some(why) {
                tracing::warn!("{why}");
            }
            // Events do not last: it is told as long as it is so.
            pods.say(News::warning("Waiting", why.clone()));
        }
        self.0 = why;
    }
}

/// Where the voters of each set live.
fn voters(membership: &RaftMembership) -> Vec<BTreeSet<Ordinal>> {
    let places = |set: &BTreeSet<_>| {
        let members = membership.members.iter().map(|m| m.place);
        members.filter(|place| set.contains(&place.member)).map(|place| place.ordinal).collect()
    };
    membership.voters.iter().map(places).collect()
}

fn too_few(voter_sets: &[BTreeSet<Ordinal>], wanted: &Desired) -> Option<String> {
    let short = voter_sets.iter().find(|set| !is_majority(set, wanted))?;
    let named: Vec<String> = short.iter().map(Ordinal::to_string).collect();
    let named = named.join(", ");
    let pods = match wanted.replicas {
        1 => "1 pod is".to_string(),
        n => format!("{n} pods are"),
    };
    let advice = match enough(voter_sets, wanted) {
        Some(replicas) => format!("scale to at least {replicas}"),
        None => "set .spec.ordinals.start back".into(),
    };
    Some(format!(
        "as far as this member knows, the voters are ordinals {named}, and {pods} wanted from ordinal {} \
         on, which is no majority of them: {advice}",
        wanted.start
    ))
}

/// The fewest replicas that have a majority of every set; `None`: there are too many voters before the
/// first pod.
fn enough(voter_sets: &[BTreeSet<Ordinal>], wanted: &Desired) -> Option<u32> {
    let last = voter_sets.iter().flatten().max()?;
    let most = last.0.checked_sub(wanted.start)?.checked_add(1)?;
    let with = |replicas| Desired { replicas, ..wanted.clone() };
    let all = |replicas: &u32| voter_sets.iter().all(|set| is_majority(set, &with(*replicas)));
    (1..=most).find(all)
}

fn is_majority(set: &BTreeSet<Ordinal>, wanted: &Desired) -> bool {
    let there = set.iter().filter(|ordinal| wanted.wants(**ordinal)).count();
    there > set.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sets: &[&[u32]], start: u32, replicas: u32) -> Option<String> {
        let set = |ordinals: &&[u32]| ordinals.iter().copied().map(Ordinal).collect();
        let sets: Vec<BTreeSet<Ordinal>> = sets.iter().map(set).collect();
        too_few(&sets, &Desired { set: "a".into(), generation: 1, start, replicas })
    }

    #[test]
    fn too_few_pods_are_told_how_many_it_takes() {
        for (sets, start, replicas, advice) in [
            (&[&[0, 1, 2][..]][..], 0, 1, Some("1 pod is wanted from ordinal 0 on")),
            (&[&[0, 1, 2]], 0, 1, Some("scale to at least 2")),
            (&[&[0, 1, 2]], 0, 2, None),
            (&[&[0, 1, 2, 3, 4]], 0, 2, Some("scale to at least 3")),
            // Both sets of a change that was under way.
            (&[&[0, 1, 2], &[0, 3, 4]], 0, 2, Some("the voters are ordinals 0, 3, 4")),
            (&[&[0, 1, 2], &[0, 3, 4]], 0, 2, Some("scale to at least 4")),
            (&[&[5, 6, 7]], 5, 1, Some("scale to at least 2")),
            (&[&[0, 1, 2]], 2, 3, Some("set .spec.ordinals.start back")),
            (&[&[0, 1, 2]], 7, 3, Some("set .spec.ordinals.start back")),
            (&[&[0]], 0, 1, None),
        ] {
            let said = said(sets, start, replicas);
            match (advice, &said) {
                (Some(advice), Some(said)) => assert!(said.contains(advice), "{said}"),
                _ => assert_eq!(said.as_deref(), advice),
            }
        }
    }
}
