//! Random histories: pods die and return, lose their volumes, are scaled; disks hang; the leader changes, and its
//! view is stale. Every planned step must be safe ([`assert_safe`](super::assert_safe) and the model check
//! that), and without further events the plan must settle.

use std::{cell::RefCell, collections::BTreeMap};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    super::{Plan, Step},
    cluster::Cluster,
    target,
};
use crate::{
    membership::tests::cases,
    types::{DesiredReplicas, Ordinal},
};

const HISTORIES: u32 = 10_000;
/// Fewer, because each history quiesces twice.
const GENTLE_HISTORIES: u32 = 5_000;
const ORDINALS: u32 = 9;

#[derive(Debug, Clone)]
enum Event {
    Down(Ordinal),
    Up(Ordinal),
    Wipe(Ordinal),
    Scale {
        start: u32,
        replicas: u32,
    },
    /// The StatefulSet returns with a generation that is older by this number.
    Restore(u64),
    /// The leader records the desired replicas.
    RecordDesired,
    /// The leader refreshes its view of the reachable members.
    Look,
    /// The leader's view of one member changes, correctly or not.
    See(Ordinal, bool),
    CatchUp(Ordinal, bool),
    /// A disk hangs, or answers again.
    Hang(Ordinal, bool),
    Elect(Ordinal),
    Join,
    Turn,
    Replicate,
}

#[derive(Debug, Clone)]
struct History {
    founders: u32,
    /// `None`: without a StatefulSet.
    replicas: Option<u32>,
    max_voters: u32,
    events: Vec<Event>,
}

fn event() -> impl Strategy<Value = Event> {
    let ordinal = || (0..ORDINALS).prop_map(Ordinal);
    prop_oneof![
        4 => ordinal().prop_map(Event::Down),
        4 => ordinal().prop_map(Event::Up),
        2 => ordinal().prop_map(Event::Wipe),
        3 => (0u32..10, 0..=ORDINALS).prop_map(|(start, replicas)| {
            let start = start.saturating_sub(7).min(ORDINALS - replicas);
            Event::Scale { start, replicas }
        }),
        1 => (1u64..5).prop_map(Event::Restore),
        3 => Just(Event::RecordDesired),
        4 => Just(Event::Look),
        2 => (ordinal(), any::<bool>()).prop_map(|(o, seen)| Event::See(o, seen)),
        7 => (ordinal(), prop::bool::weighted(0.9)).prop_map(|(o, is)| Event::CatchUp(o, is)),
        2 => (ordinal(), prop::bool::weighted(0.7)).prop_map(|(o, hung)| Event::Hang(o, hung)),
        2 => ordinal().prop_map(Event::Elect),
        5 => Just(Event::Join),
        9 => Just(Event::Turn),
        7 => Just(Event::Replicate),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let replicas = prop::option::weighted(0.85, 1..=ORDINALS);
    (1u32..6, replicas, 1u32..8, vec(event(), 1..40)).prop_map(
        |(founders, replicas, max_voters, events)| History {
            founders,
            replicas,
            max_voters,
            events,
        },
    )
}

impl History {
    fn begin(&self) -> Cluster {
        let set = String::from("kv");
        let desired = |replicas| DesiredReplicas { set, generation: 1, start: 0, replicas };
        Cluster::new(self.founders, self.replicas.map(desired), self.max_voters)
    }
}

/// Applies one event. `gentle`: no event costs a majority, and the leader never considers a dead
/// member reachable.
fn apply_event(cluster: &mut Cluster, event: &Event, gentle: bool) {
    let may_lose = |cluster: &Cluster, ordinal: Ordinal, wiped: bool| {
        let lost = cluster.incarnation_at(ordinal);
        let has = |id| {
            cluster.last().members.get(&id).is_some_and(|o| cluster.incarnation_at(*o) == Some(id))
        };
        (!gentle || cluster.keeps_majorities(|id| cluster.is_well(id) && Some(id) != lost))
            && (!wiped || cluster.keeps_majorities(|id| has(id) && Some(id) != lost))
    };
    match *event {
        Event::Down(o) if may_lose(cluster, o, false) => {
            cluster.down(o);
            if gentle && let Some(id) = cluster.incarnation_at(o) {
                cluster.see(id, false);
            }
        }
        Event::Wipe(o) if may_lose(cluster, o, true) => cluster.wipe(o),
        Event::Down(_) | Event::Wipe(_) => {}
        Event::Up(o) => cluster.up(o),
        Event::Scale { replicas: 0, .. } if gentle => {}
        Event::Scale { start, replicas } => cluster.scale(start, replicas),
        Event::Restore(back) => cluster.restore_set(back),
        Event::RecordDesired => cluster.record_desired(),
        Event::Look => cluster.look(),
        Event::See(o, seen) => {
            if let Some(id) = cluster.incarnation_at(o)
                && (!gentle || !seen || cluster.is_live(id))
            {
                cluster.see(id, seen);
            }
        }
        Event::CatchUp(o, caught_up) => {
            if let Some(id) = cluster.incarnation_at(o) {
                cluster.catch_up(id, caught_up);
            }
        }
        Event::Hang(o, hung) if !hung || may_lose(cluster, o, false) => {
            cluster.hang(o, hung);
            if gentle && let Some(id) = cluster.incarnation_at(o) {
                cluster.see_disk(id);
            }
        }
        Event::Hang(..) => {}
        Event::Elect(o) => {
            if let Some(id) = cluster.incarnation_at(o) {
                cluster.elect(id);
            }
        }
        Event::Join => drop(cluster.join()),
        Event::Turn => {
            let planned = cluster.turn();
            if matches!(planned, Some(Plan::Do(_))) && cluster.view_is_accurate() {
                cluster.replicate();
                assert!(cluster.is_committed(), "{planned:?} cannot be committed");
            }
        }
        Event::Replicate => {
            cluster.replicate();
            cluster.release();
        }
    }
}

/// Starts every wanted pod: then the members are exactly the wanted ones, and the target number votes.
fn heal(cluster: &mut Cluster) {
    let pods: Vec<Ordinal> = cluster.pods.keys().copied().collect();
    for ordinal in &pods {
        cluster.up(*ordinal);
        cluster.hang(*ordinal, false);
    }
    let planned = cluster.quiesce();
    assert_eq!(planned, Some(Plan::Settled));
    let leader = cluster.leader().unwrap();
    let now = cluster.observed(leader);
    let mut ordinals: Vec<Ordinal> = cluster.last().members.values().copied().collect();
    ordinals.sort();
    let wanted: Vec<Ordinal> = pods.into_iter().filter(|o| cluster.is_wanted(*o)).collect();
    assert_eq!(ordinals, wanted, "the members are not those that are wanted");
    let config = cluster.last();
    assert!(config.members.keys().all(|id| cluster.is_live(*id)));
    assert_eq!(config.old, config.new);
    assert_eq!(config.new.len(), target(&now));
}

/// Counts planned steps, so that a test without coverage fails.
#[derive(Default)]
struct Reached(RefCell<BTreeMap<&'static str, u32>>);

impl Reached {
    fn count(&self, event: &'static str) {
        *self.0.borrow_mut().entry(event).or_default() += 1;
    }

    fn steps(&self, cluster: &Cluster) {
        for step in &cluster.steps {
            self.count(match step {
                Step::FinishJoint => "left a joint configuration",
                Step::Remove(_) => "removed",
                Step::HandOver { .. } => "handed over",
                Step::ChangeVoters { add, .. } if add.is_empty() => "fewer voters",
                Step::ChangeVoters { remove, .. } if remove.is_empty() => "more voters",
                Step::ChangeVoters { .. } => "swapped voters",
            });
        }
    }

    #[track_caller]
    fn assert(&self, events: &[&'static str]) {
        let counts = self.0.borrow();
        let rare: Vec<_> = events
            .iter()
            .filter(|w| counts.get(**w).is_none_or(|n| *n < GENTLE_HISTORIES / 50))
            .collect();
        assert!(rare.is_empty(), "too rare: {rare:?}: {counts:?}");
    }
}

const STEPS: [&str; 6] = [
    "left a joint configuration",
    "removed",
    "handed over",
    "fewer voters",
    "more voters",
    "swapped voters",
];

fn over_histories(usual: u32, check: impl Fn(History)) {
    let config = Config { cases: cases(usual), failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&history(), |history| {
        check(history);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

/// Majorities of pods die, the leader acts on a stale view, and volumes are lost as long as a
/// majority of each set of voters keeps theirs.
#[test]
fn every_history_is_safe_and_converges_once_all_pods_run() {
    let reached = Reached::default();
    over_histories(HISTORIES, |history| {
        let mut cluster = history.begin();
        for event in &history.events {
            apply_event(&mut cluster, event, false);
        }
        if cluster.desired.as_ref().is_some_and(|d| d.replicas == 0) {
            cluster.scale(0, 1);
        }
        if !cluster.keeps_majorities(|id| {
            let ordinal = cluster.last().members.get(&id);
            cluster.is_live(id)
                || ordinal.is_some_and(|o| {
                    cluster.is_wanted(*o) && cluster.incarnation_at(*o) == Some(id)
                })
        }) {
            // Too few pods for a majority: an operator must scale up, then down again.
            reached.count("too few pods for a majority");
            let (start, replicas) =
                cluster.desired.as_ref().map_or((0, 0), |d| (d.start, d.replicas));
            cluster.scale(0, ORDINALS);
            heal(&mut cluster);
            cluster.scale(start, replicas);
        }
        heal(&mut cluster);
        reached.steps(&cluster);
    });
    reached.assert(&STEPS);
}

/// If a majority of the voters is always live, and leaving pods stay until they may stop, the live
/// wanted members can continue alone, even if all others never return.
#[test]
fn a_live_majority_is_never_frozen() {
    let reached = Reached::default();
    over_histories(GENTLE_HISTORIES, |history| {
        let mut cluster = history.begin();
        for event in &history.events {
            apply_event(&mut cluster, event, true);
        }
        let planned = cluster.quiesce();
        assert!(planned.is_some(), "no member can be elected");
        reached.count(if planned == Some(Plan::Settled) { "settled" } else { "waits" });
        let pods: Vec<Ordinal> = cluster.pods.keys().copied().collect();
        let (wanted, leavers): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|o| cluster.is_wanted(*o));
        let is_well = |o: &Ordinal| cluster.incarnation_at(*o).is_none_or(|id| cluster.is_well(id));
        let well = wanted.iter().filter(|o| cluster.pods[*o].up && is_well(o)).count();
        if well > 0 {
            leavers.iter().for_each(|o| cluster.down(*o));
            let leader = cluster.leader().expect("the leader has left");
            let voters = &cluster.last().new;
            assert!(cluster.keeps_majorities(|id| cluster.is_well(id)), "{voters:?} are frozen");
            let most = target(&cluster.observed(leader)).min(well);
            assert!(voters.len() >= most - usize::from(most % 2 == 0), "{voters:?} are too few");
            let stays =
                |o: &&Ordinal| cluster.incarnation_at(**o).is_some_and(|id| cluster.is_well(id));
            let mut live = wanted.iter().filter(stays).filter_map(|o| cluster.incarnation_at(*o));
            let spare = live.any(|id| !voters.contains(&id));
            let lost = voters.iter().any(|id| !cluster.is_well(*id));
            assert!(!(spare && lost), "of {voters:?} one is dead or hangs, and a learner is well");
        } else {
            reached.count("no staying member is up");
        }
        heal(&mut cluster);
        reached.steps(&cluster);
    });
    reached.assert(&STEPS);
    reached.assert(&["settled", "waits"]);
}
