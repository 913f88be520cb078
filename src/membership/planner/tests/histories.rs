//! Random histories: pods die and come back, lose their volumes, are scaled, the leader changes and
//! sees wrongly. What was planned on the way is safe ([`judge`](super::judge) and the model say so),
//! and once it is quiet it comes to its end.

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
use crate::types::{Desired, Ordinal};

const HISTORIES: u32 = 10_000;
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
    /// The leader hears what is desired.
    Tell,
    /// The leader sees who answers.
    Look,
    /// It thinks so of this one, rightly or not.
    See(Ordinal, bool),
    CatchUp(Ordinal, bool),
    Elect(Ordinal),
    Join,
    Turn,
    Replicate,
}

#[derive(Debug, Clone)]
struct History {
    founders: u32,
    /// None: nobody runs the pods.
    replicas: Option<u32>,
    max_voters: u32,
    events: Vec<Event>,
}

fn event() -> impl Strategy<Value = Event> {
    let place = || (0..ORDINALS).prop_map(Ordinal);
    prop_oneof![
        4 => place().prop_map(Event::Down),
        4 => place().prop_map(Event::Up),
        2 => place().prop_map(Event::Wipe),
        3 => (0u32..10, 0..=ORDINALS).prop_map(|(start, replicas)| {
            let start = start.saturating_sub(7).min(ORDINALS - replicas);
            Event::Scale { start, replicas }
        }),
        3 => Just(Event::Tell),
        4 => Just(Event::Look),
        2 => (place(), any::<bool>()).prop_map(|(o, seen)| Event::See(o, seen)),
        7 => (place(), prop::bool::weighted(0.9)).prop_map(|(o, is)| Event::CatchUp(o, is)),
        2 => place().prop_map(Event::Elect),
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
        let desired = |replicas| Desired { set, generation: 1, start: 0, replicas };
        Cluster::new(self.founders, self.replicas.map(desired), self.max_voters)
    }
}

/// What happens next. `gentle`: nothing that by itself would stop the cluster, and nobody whom the
/// leader takes for well is gone.
fn happen(cluster: &mut Cluster, event: &Event, gentle: bool) {
    let may_lose = |cluster: &Cluster, ordinal: Ordinal, wiped: bool| {
        let lost = cluster.life_at(ordinal);
        let has =
            |id| cluster.last().members.get(&id).is_some_and(|o| cluster.life_at(*o) == Some(id));
        (!gentle || cluster.keeps_majorities(|id| cluster.is_live(id) && Some(id) != lost))
            && (!wiped || cluster.keeps_majorities(|id| has(id) && Some(id) != lost))
    };
    match *event {
        Event::Down(o) if may_lose(cluster, o, false) => {
            cluster.down(o);
            if gentle && let Some(id) = cluster.life_at(o) {
                cluster.see(id, false);
            }
        }
        Event::Wipe(o) if may_lose(cluster, o, true) => cluster.wipe(o),
        Event::Down(_) | Event::Wipe(_) => {}
        Event::Up(o) => cluster.up(o),
        Event::Scale { replicas: 0, .. } if gentle => {}
        Event::Scale { start, replicas } => cluster.scale(start, replicas),
        Event::Tell => cluster.tell(),
        Event::Look => cluster.look(),
        Event::See(o, seen) => {
            if let Some(id) = cluster.life_at(o)
                && (!gentle || !seen || cluster.is_live(id))
            {
                cluster.see(id, seen);
            }
        }
        Event::CatchUp(o, caught_up) => {
            if let Some(id) = cluster.life_at(o) {
                cluster.catch_up(id, caught_up);
            }
        }
        Event::Elect(o) => {
            if let Some(id) = cluster.life_at(o) {
                cluster.elect(id);
            }
        }
        Event::Join => drop(cluster.join()),
        Event::Turn => {
            let planned = cluster.turn();
            if matches!(planned, Some(Plan::Do(_))) && cluster.sees_no_ghosts() {
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

/// Everybody who is wanted runs: the members are exactly they, and the right number of them votes.
fn heal(cluster: &mut Cluster) {
    let pods: Vec<Ordinal> = cluster.pods.keys().copied().collect();
    pods.iter().for_each(|o| cluster.up(*o));
    let planned = cluster.rest();
    assert_eq!(planned, Some(Plan::Settled));
    let leader = cluster.leader().unwrap();
    let now = cluster.situation(leader);
    let mut places: Vec<Ordinal> = cluster.last().members.values().copied().collect();
    places.sort();
    let wanted: Vec<Ordinal> = pods.into_iter().filter(|o| cluster.wants(*o)).collect();
    assert_eq!(places, wanted, "the members are not those that are wanted");
    let config = cluster.last();
    assert!(config.members.keys().all(|id| cluster.is_live(*id)));
    assert_eq!(config.old, config.new);
    assert_eq!(config.new.len(), target(&now));
}

/// Counts what was planned, so that a test that tests nothing is seen.
#[derive(Default)]
struct Reached(RefCell<BTreeMap<&'static str, u32>>);

impl Reached {
    fn count(&self, what: &'static str) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    fn steps(&self, cluster: &Cluster) {
        for step in &cluster.steps {
            self.count(match step {
                Step::FinishJoint => "left a joint configuration",
                Step::Remove(_) => "took out",
                Step::HandOver { .. } => "handed over",
                Step::ChangeVoters { add, .. } if add.is_empty() => "fewer voters",
                Step::ChangeVoters { remove, .. } if remove.is_empty() => "more voters",
                Step::ChangeVoters { .. } => "swapped voters",
            });
        }
    }

    #[track_caller]
    fn assert(&self, whats: &[&'static str]) {
        let counts = self.0.borrow();
        let seldom: Vec<_> =
            whats.iter().filter(|w| counts.get(**w).is_none_or(|n| *n < HISTORIES / 50)).collect();
        assert!(seldom.is_empty(), "hardly ever {seldom:?}: {counts:?}");
    }
}

const STEPS: [&str; 6] = [
    "left a joint configuration",
    "took out",
    "handed over",
    "fewer voters",
    "more voters",
    "swapped voters",
];

fn over_histories(check: impl Fn(History)) {
    let config = Config { cases: HISTORIES, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&history(), |history| {
        check(history);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

/// Pods die by the majority, the leader acts on what is no longer true, volumes are lost as long as
/// a majority of each set of voters keeps theirs.
#[test]
fn whatever_happens_it_is_safe_and_converges_when_all_is_well() {
    let reached = Reached::default();
    over_histories(|history| {
        let mut cluster = history.begin();
        for event in &history.events {
            happen(&mut cluster, event, false);
        }
        if cluster.desired.as_ref().is_some_and(|d| d.replicas == 0) {
            cluster.scale(0, 1);
        }
        if !cluster.keeps_majorities(|id| {
            let place = cluster.last().members.get(&id);
            cluster.is_live(id)
                || place.is_some_and(|o| cluster.wants(*o) && cluster.life_at(*o) == Some(id))
        }) {
            // Too few are wanted to go on: what people are told is to scale up, then down again.
            reached.count("too few pods to wake");
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

/// Where a majority of the voters lives all the time, and leavers stay until they may go: whoever
/// is wanted and lives can go on alone, whoever else is dead for good.
#[test]
fn a_live_majority_is_never_frozen() {
    let reached = Reached::default();
    over_histories(|history| {
        let mut cluster = history.begin();
        for event in &history.events {
            happen(&mut cluster, event, true);
        }
        let planned = cluster.rest();
        assert!(planned.is_some(), "nobody can lead");
        reached.count(if planned == Some(Plan::Settled) { "settled" } else { "waits" });
        let pods: Vec<Ordinal> = cluster.pods.keys().copied().collect();
        let (wanted, leavers): (Vec<_>, Vec<_>) = pods.into_iter().partition(|o| cluster.wants(*o));
        let well = wanted.iter().filter(|o| cluster.pods[*o].up).count();
        if well > 0 {
            leavers.iter().for_each(|o| cluster.down(*o));
            let leader = cluster.leader().expect("the leader has left");
            let voters = &cluster.last().new;
            assert!(cluster.keeps_majorities(|id| cluster.is_live(id)), "{voters:?} are frozen");
            let most = target(&cluster.situation(leader)).min(well);
            assert!(voters.len() >= most - usize::from(most % 2 == 0), "{voters:?} are too few");
            let stays = |o: &&Ordinal| cluster.life_at(**o).is_some_and(|id| cluster.is_live(id));
            let mut lives = wanted.iter().filter(stays).filter_map(|o| cluster.life_at(*o));
            let spare = lives.any(|id| !voters.contains(&id));
            let silent = voters.iter().any(|id| !cluster.is_live(*id));
            assert!(!(spare && silent), "of {voters:?} one is dead, and a learner is well");
        } else {
            reached.count("nobody who stays lives");
        }
        heal(&mut cluster);
        reached.steps(&cluster);
    });
    reached.assert(&STEPS);
    reached.assert(&["settled", "waits"]);
}
