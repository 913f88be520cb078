//! Histories of a StatefulSet whose control plane is restored from backups, against the replicated record.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    super::restored_set::{READS, Reading, RestoreDetector, reopen},
    cases,
};
use crate::{
    state::{MemoryStorage, StateMachine},
    types::{Command, DesiredReplicas, LogPosition, Term},
};

fn desired(generation: u64, replicas: u32) -> DesiredReplicas {
    DesiredReplicas { set: "a".into(), generation, start: 0, replicas }
}

#[derive(Debug, Clone)]
enum Step {
    Scale(u32),
    /// The control plane returns to an older generation, with that generation's replicas.
    Restore(usize),
    /// The leader reads the set and proposes.
    Poll,
    /// Another leader, which knows no earlier reading.
    Elect,
    /// The leader reads the set, and is deposed before it has proposed everything.
    PollAndElect,
    /// A leaving member reads the set, and proposes the reading later.
    Read,
    Propose,
}

/// The set, its history, and the replicated record.
struct World {
    history: Vec<DesiredReplicas>,
    machine: StateMachine,
    index: u64,
    detector: RestoreDetector,
    delayed: Option<DesiredReplicas>,
}

impl World {
    fn new() -> World {
        let machine =
            StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], []).unwrap();
        let history = vec![desired(1, 3)];
        World { history, machine, index: 0, detector: Default::default(), delayed: None }
    }

    fn propose(&mut self, desired: DesiredReplicas) {
        let position = LogPosition { term: Term(1), index: self.index };
        self.index += 1;
        self.machine.apply(position, [Command::SetDesiredReplicas(desired)]).unwrap();
        self.machine.publish();
    }

    fn recorded(&self) -> Option<DesiredReplicas> {
        self.machine.view().roster().desired.clone()
    }

    fn present(&self) -> DesiredReplicas {
        self.history.last().expect("the first generation").clone()
    }

    fn poll(&mut self) {
        let (read, recorded) = (self.present(), self.recorded());
        match (self.detector.observe(&read, recorded.as_ref()), recorded) {
            (Reading::Restored, Some(recorded)) => {
                self.propose(reopen(&recorded));
                let (before, after) = (Some(recorded), self.recorded());
                let numbers = |d: Option<DesiredReplicas>| d.map(|d| (d.start, d.replicas));
                assert_eq!(numbers(before), numbers(after), "reopening changes the plan");
                self.propose(read);
            }
            (Reading::Older, _) => {
                let before = self.recorded();
                self.propose(read);
                assert_eq!(self.recorded(), before, "one older reading is accepted");
            }
            (Reading::Current | Reading::Restored, _) => self.propose(read),
        }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Scale(replicas) => {
                let generation = self.present().generation + 1;
                self.history.push(desired(generation, replicas));
            }
            Step::Restore(back) => {
                let keep = self.history.len().saturating_sub(back).max(1);
                self.history.truncate(keep);
            }
            Step::Poll => self.poll(),
            Step::Elect => self.detector = RestoreDetector::default(),
            Step::PollAndElect => {
                let (read, recorded) = (self.present(), self.recorded());
                let reading = self.detector.observe(&read, recorded.as_ref());
                if let (Reading::Restored, Some(recorded)) = (reading, recorded) {
                    self.propose(reopen(&recorded));
                }
                self.detector = RestoreDetector::default();
            }
            Step::Read => self.delayed = Some(self.present()),
            Step::Propose => {
                if let Some(read) = self.delayed.take() {
                    self.propose(read);
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u32..9).prop_map(Step::Scale),
        2 => (1usize..6).prop_map(Step::Restore),
        6 => Just(Step::Poll),
        1 => Just(Step::Elect),
        1 => Just(Step::PollAndElect),
        1 => Just(Step::Read),
        1 => Just(Step::Propose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2000), ..ProptestConfig::default() })]

    /// Whatever was recorded before, and by any member.
    #[test]
    fn three_polls_follow_the_present_set(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.play(step));
        (0..READS).for_each(|_| world.poll());
        prop_assert_eq!(world.recorded(), Some(world.present()));
    }
}
