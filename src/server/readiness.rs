//! Readiness: whether clients and the orchestrator may rely on this member. Pure functions.
//!
//! A member is ready if it has caught up, can write its log, and a quorum follows its leader and commits.
//!
//! One exemption: with `OrderedReady`, a StatefulSet creates the next pod only once all existing pods are
//! ready. While it still has to create pods, a member need not have a quorum that only those can give: the
//! quorum and the pods would wait for each other for ever.
//!
//! - The number of pods decides, not the ordinal of this one: the exemption ends for all members when the
//!   last pod exists. So it never applies to a rolling update, which begins only when all pods exist and
//!   recreates a deleted pod first.
//! - At once, if the voters among the existing pods are no majority. Otherwise after a while: an existing
//!   pod may have lost its volume, so that its vote counts in the membership but is gone.
//! - Not while there is a quorum without the missing pods: a pod that is no member is not ready while a
//!   cluster with a quorum answers it. A member that had a quorum while the same pods existed is probably
//!   cut off, and is ready only much later: the number of pods does not show that one was replaced and
//!   lost its vote.
//! - A disruption budget permits no eviction meanwhile, because a missing pod counts as a disruption.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    membership::PodCreation,
    types::{MemberId, MemberRef, Ordinal},
};

/// A member without a quorum for this time is not ready.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(10);
/// A member whose log has an uncommitted entry of this age is not ready: its leader commits nothing.
///
/// Longer than what slow disks take: without burst credits, or frozen for a snapshot, those of a majority
/// stall for tens of seconds. All members would leave the endpoints at the same time, although they serve
/// serializable reads and watches, and no other member would be better.
const UNCOMMITTED_AGE_MAX: Duration = Duration::from_secs(60);
/// A member whose log is being written for this time is not ready: its disk hangs.
const LOG_WRITE_MAX: Duration = Duration::from_secs(10);
/// A member that is further behind the commit index is not ready: its serializable reads are too stale.
const LAG_ENTRIES_MAX: u64 = 1000;
/// While pods are missing, a pod without a quorum, or without a cluster, is ready after this time.
const LATER_PODS_AFTER: Duration = Duration::from_secs(30);
/// The same for a member that had a quorum while the same number of pods existed.
const CUT_OFF_AFTER: Duration = Duration::from_secs(600);

/// The reason why a probe succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    Serving,
    /// Without a quorum, so that the StatefulSet creates the remaining pods. With the sentence for
    /// operators.
    AwaitingPods(String),
}

/// What a running member knows about itself.
#[derive(Debug, Clone, Default)]
pub struct MemberFacts {
    /// Time since the last known quorum contact of a leader.
    pub quorum_age: Option<Duration>,
    /// The age of the oldest uncommitted entry in the own log.
    pub uncommitted_for: Duration,
    /// Entries that the leader has committed and this member has not applied.
    pub lag: u64,
    /// Those of them that were committed when this member first heard of a leader.
    pub initial_lag: u64,
    pub log_writing_for: Duration,
    /// Time since the start of this process.
    pub uptime: Duration,
    /// Each set of voters of the last membership.
    pub voters: Vec<BTreeSet<Ordinal>>,
    pub creation: Option<PodCreation>,
    /// Time since which `creation` has not changed.
    pub creation_age: Duration,
}

/// The ordinals of each set of voters.
pub fn voter_ordinals(
    sets: &[BTreeSet<MemberId>],
    members: impl Iterator<Item = MemberRef> + Clone,
) -> Vec<BTreeSet<Ordinal>> {
    let ordinals = |set: &BTreeSet<MemberId>| {
        members.clone().filter(|m| set.contains(&m.member)).map(|m| m.ordinal).collect()
    };
    sets.iter().map(ordinals).collect()
}

/// The readiness of a running member, or the reason why it is not ready.
pub fn member_readiness(facts: &MemberFacts) -> Result<Ready, String> {
    if facts.log_writing_for > LOG_WRITE_MAX {
        let seconds = facts.log_writing_for.as_secs();
        return Err(format!("the log has not been written for {seconds} s: the disk hangs"));
    }
    let Err(obstacle) = quorum(facts) else { return caught_up(facts) };
    let without_quorum = facts.quorum_age.unwrap_or(facts.uptime).min(facts.uptime);
    let had_quorum = without_quorum < facts.creation_age.min(facts.uptime);
    let wait = if had_quorum { CUT_OFF_AFTER } else { LATER_PODS_AFTER };
    match facts.creation {
        Some(pods) if lacks_majority(&facts.voters, pods) || without_quorum > wait => {
            Ok(Ready::AwaitingPods(awaiting(&obstacle, pods)))
        }
        _ => Err(obstacle),
    }
}

fn caught_up(facts: &MemberFacts) -> Result<Ready, String> {
    if facts.initial_lag > 0 {
        return Err(format!("catching up: {} log entries behind", facts.initial_lag));
    }
    if facts.lag > LAG_ENTRIES_MAX {
        return Err(format!("{} log entries behind", facts.lag));
    }
    Ok(Ready::Serving)
}

fn quorum(facts: &MemberFacts) -> Result<(), String> {
    match facts.quorum_age {
        Some(age) if age < QUORUM_AGE_MAX => {}
        Some(age) => return Err(format!("no quorum for {} s", age.as_secs())),
        None => return Err("no quorum yet".into()),
    }
    if facts.uncommitted_for > UNCOMMITTED_AGE_MAX {
        let seconds = facts.uncommitted_for.as_secs();
        return Err(format!("the leader has committed nothing for {seconds} s"));
    }
    Ok(())
}

/// Whether the voters among the existing pods are no majority of one of the sets.
fn lacks_majority(voters: &[BTreeSet<Ordinal>], pods: PodCreation) -> bool {
    let existing = |set: &BTreeSet<Ordinal>| set.iter().filter(|o| pods.has_created(**o)).count();
    voters.iter().any(|set| existing(set) <= set.len() / 2)
}

/// The readiness of a pod that is not a member of a cluster yet, after `waited`. `answer_age` is the time
/// since a cluster with a quorum last answered it.
pub fn pristine_readiness(
    creation: Option<PodCreation>,
    waited: Duration,
    answer_age: Option<Duration>,
) -> Result<Ready, String> {
    let obstacle = match answer_age {
        Some(age) if age <= LATER_PODS_AFTER => "waiting to join a cluster that has a quorum",
        _ => "waiting to become a member: no cluster with a quorum answers",
    };
    let unanswered = answer_age.unwrap_or(waited).min(waited);
    match creation {
        Some(pods) if unanswered > LATER_PODS_AFTER => {
            Ok(Ready::AwaitingPods(awaiting(obstacle, pods)))
        }
        _ => Err(obstacle.into()),
    }
}

fn awaiting(obstacle: &str, pods: PodCreation) -> String {
    format!(
        "ready without a quorum ({obstacle}): the StatefulSet has created {} of {} pods, and with \
         OrderedReady it creates the next one only once all of these are ready",
        pods.created, pods.replicas
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn healthy() -> MemberFacts {
        MemberFacts {
            quorum_age: Some(seconds(1)),
            uptime: seconds(3600),
            lag: 5,
            voters: vec![ordinals(&[0, 1, 2])],
            ..MemberFacts::default()
        }
    }

    fn ordinals(ordinals: &[u32]) -> BTreeSet<Ordinal> {
        ordinals.iter().copied().map(Ordinal).collect()
    }

    fn pods(first: u32, created: u32, replicas: u32) -> Option<PodCreation> {
        Some(PodCreation { first: Ordinal(first), created, replicas })
    }

    #[test]
    fn ready_needs_a_quorum_that_commits_little_lag_and_a_disk_that_answers() {
        assert_eq!(member_readiness(&healthy()), Ok(Ready::Serving));
        for (facts, reason) in [
            (MemberFacts { quorum_age: None, ..healthy() }, "no quorum yet"),
            (MemberFacts { quorum_age: Some(seconds(11)), ..healthy() }, "no quorum for 11 s"),
            (
                MemberFacts { uncommitted_for: seconds(61), ..healthy() },
                "the leader has committed nothing for 61 s",
            ),
            (MemberFacts { lag: 20_000, ..healthy() }, "20000 log entries behind"),
            // Few entries, but all that the cluster has: this member has just joined, with nothing.
            (MemberFacts { initial_lag: 5, ..healthy() }, "catching up: 5 log entries behind"),
            (
                MemberFacts { log_writing_for: seconds(11), ..healthy() },
                "the log has not been written for 11 s: the disk hangs",
            ),
        ] {
            assert_eq!(member_readiness(&facts), Err(reason.into()));
        }
    }

    #[test]
    fn a_stall_of_all_disks_leaves_the_endpoints_while_it_is_short() {
        let stalled = MemberFacts { uncommitted_for: seconds(60), ..healthy() };
        assert_eq!(member_readiness(&stalled), Ok(Ready::Serving));
    }

    #[test]
    fn a_quorum_that_only_missing_pods_can_give_is_not_waited_for() {
        let started = MemberFacts { quorum_age: None, uptime: seconds(6), ..healthy() };
        let exempt = |voters: &[&[u32]], creation| {
            let voters = voters.iter().map(|set| ordinals(set)).collect();
            let facts = MemberFacts { voters, creation, ..started.clone() };
            matches!(member_readiness(&facts), Ok(Ready::AwaitingPods(_)))
        };
        for (voters, creation, is_exempt) in [
            (&[&[0, 1, 2][..]][..], pods(0, 1, 3), true),
            (&[&[0, 1, 2]], pods(0, 2, 3), false),
            (&[&[0, 1, 2, 3, 4]], pods(0, 2, 5), true),
            (&[&[0, 1, 2, 3, 4]], pods(0, 3, 5), false),
            // All pods exist, or are created in parallel.
            (&[&[0, 1, 2]], None, false),
            // Learners at the lowest ordinals, and a change of voters that was interrupted.
            (&[&[2, 3, 4]], pods(0, 3, 5), true),
            (&[&[2, 3, 4]], pods(0, 4, 5), false),
            (&[&[0, 1, 2], &[0, 3, 4]], pods(0, 2, 5), true),
            (&[&[0, 1, 2], &[0, 3, 4]], pods(0, 4, 5), false),
            // Another `ordinals.start`.
            (&[&[5, 6, 7]], pods(5, 1, 3), true),
            (&[&[5, 6, 7]], pods(5, 2, 3), false),
            (&[&[0, 1, 2]], pods(2, 1, 3), true),
        ] {
            assert_eq!(exempt(voters, creation), is_exempt, "{voters:?}, {creation:?}");
        }
    }

    #[test]
    fn an_existing_pod_that_lost_its_vote_delays_the_others_and_does_not_block_them() {
        // Ordinal 0 lost its volume: by the membership it has a vote, so ordinal 1 expects a quorum.
        let facts = |uptime| MemberFacts {
            quorum_age: None,
            uptime: seconds(uptime),
            creation: pods(0, 2, 3),
            ..healthy()
        };
        assert_eq!(member_readiness(&facts(30)), Err("no quorum yet".into()));
        assert!(matches!(member_readiness(&facts(31)), Ok(Ready::AwaitingPods(_))));
        // The pods have changed since the contact.
        let contact = |age| MemberFacts {
            quorum_age: Some(seconds(age)),
            creation_age: seconds(19),
            ..facts(3600)
        };
        assert_eq!(member_readiness(&contact(20)), Err("no quorum for 20 s".into()));
        assert!(matches!(member_readiness(&contact(31)), Ok(Ready::AwaitingPods(_))));
        // Whatever else this member lacks, another pod cannot give.
        let hung = MemberFacts { log_writing_for: seconds(11), ..facts(31) };
        assert!(member_readiness(&hung).is_err());
        assert_eq!(
            member_readiness(&MemberFacts { creation: None, ..facts(3600) }),
            Err("no quorum yet".into())
        );
    }

    #[test]
    fn a_member_that_had_a_quorum_of_the_same_pods_is_cut_off() {
        let facts = |age, creation_age, uptime| MemberFacts {
            quorum_age: Some(seconds(age)),
            creation_age: seconds(creation_age),
            uptime: seconds(uptime),
            creation: pods(0, 4, 5),
            ..healthy()
        };
        assert_eq!(member_readiness(&facts(31, 3600, 7200)), Err("no quorum for 31 s".into()));
        assert_eq!(member_readiness(&facts(600, 3600, 7200)), Err("no quorum for 600 s".into()));
        // A replaced pod may have lost its vote, so no member waits for ever.
        assert!(matches!(member_readiness(&facts(601, 3600, 7200)), Ok(Ready::AwaitingPods(_))));
        // Its contact was with other pods, or a leader told of a contact before this start.
        assert!(matches!(member_readiness(&facts(50, 40, 7200)), Ok(Ready::AwaitingPods(_))));
        assert!(matches!(member_readiness(&facts(50, 40, 40)), Ok(Ready::AwaitingPods(_))));
    }

    #[test]
    fn a_pod_without_a_cluster_waits_a_while_for_the_existing_pods() {
        let readiness = |waited| pristine_readiness(pods(0, 1, 3), seconds(waited), None);
        assert!(readiness(30).is_err());
        let Ok(Ready::AwaitingPods(text)) = readiness(31) else {
            panic!("the remaining pods are never created")
        };
        assert!(text.contains("no cluster with a quorum answers"), "{text}");
        assert!(text.contains("has created 1 of 3 pods"), "{text}");
        assert!(pristine_readiness(None, seconds(3600), None).is_err());
    }

    #[test]
    fn a_pod_that_a_cluster_with_a_quorum_answers_is_not_ready_before_it_is_a_member() {
        let after = |age| pristine_readiness(pods(0, 4, 5), seconds(3600), Some(seconds(age)));
        assert_eq!(after(1), Err("waiting to join a cluster that has a quorum".into()));
        assert!(after(30).is_err());
        assert!(matches!(after(31), Ok(Ready::AwaitingPods(_))), "the quorum is lost");
    }
}
