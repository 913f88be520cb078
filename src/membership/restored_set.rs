//! A restored control plane: the StatefulSet returns with its uid and an older generation.
//!
//! `metadata.generation` only grows, so the log ignores a lower one of the same set: it is a stale reading.
//! After the control plane was restored from a backup that rule would ignore every scale. Readings are never
//! cached, so a lower generation in several polls in a row is the present one.
//!
//! The leader then replicates two commands that every build applies alike, because generations of different
//! sets are not compared:
//!
//! ```text
//! recorded                set a, generation 8, 5 replicas
//! reopen                  set "a (restored)", generation 8, 5 replicas     the plan stays the same
//! the reading             set a, generation 3, 3 replicas                  the plan follows it
//! ```
//!
//! A reopened record accepts any reading of the set. A stale one in between would hold for a few polls.

use crate::types::DesiredReplicas;

/// A lower generation is accepted when it was read in this many polls in a row.
const READS: u32 = 3;

/// The outcome of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The log accepts it.
    Current,
    /// Older than the recorded one: the log ignores it.
    Older,
    /// Older, and read again and again.
    Restored,
}

/// One leader's consecutive readings of a lower generation.
#[derive(Debug, Default)]
pub struct RestoreDetector(Option<Lower>);

#[derive(Debug, Clone, Copy)]
struct Lower {
    generation: u64,
    recorded: u64,
    reads: u32,
}

impl RestoreDetector {
    pub fn observe(
        &mut self,
        read: &DesiredReplicas,
        recorded: Option<&DesiredReplicas>,
    ) -> Reading {
        let Some(recorded) =
            recorded.filter(|known| known.set == read.set && known.generation > read.generation)
        else {
            self.0 = None;
            return Reading::Current;
        };
        // A generation that decreases again shows that the control plane is not settled.
        let same = self.0.filter(|lower| {
            lower.recorded == recorded.generation && lower.generation <= read.generation
        });
        let reads = same.map_or(1, |lower| lower.reads.saturating_add(1));
        let (generation, recorded) = (read.generation, recorded.generation);
        self.0 = Some(Lower { generation, recorded, reads });
        if reads < READS { Reading::Older } else { Reading::Restored }
    }
}

/// The recorded replicas, in a form that any reading of the set replaces.
pub fn reopen(recorded: &DesiredReplicas) -> DesiredReplicas {
    DesiredReplicas { set: format!("{} (restored)", recorded.set), ..recorded.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        membership::tests::cases,
        state::{MemoryStorage, StateMachine},
        types::{Command, LogPosition, Term},
    };

    fn desired(generation: u64, replicas: u32) -> DesiredReplicas {
        DesiredReplicas { set: "a".into(), generation, start: 0, replicas }
    }

    #[test]
    fn a_lower_generation_is_accepted_at_the_third_reading_in_a_row() {
        let recorded = desired(8, 5);
        let reads = |generations: &[u64]| {
            let mut detector = RestoreDetector::default();
            let read = |g: &u64| detector.observe(&desired(*g, 3), Some(&recorded));
            generations.iter().map(read).collect::<Vec<_>>()
        };
        let (current, older, restored) = (Reading::Current, Reading::Older, Reading::Restored);
        assert_eq!(reads(&[3, 3, 3, 3]), [older, older, restored, restored]);
        assert_eq!(reads(&[3, 4, 7]), [older, older, restored], "scaled meanwhile");
        assert_eq!(reads(&[3, 3, 2, 2, 2]), [older, older, older, older, restored]);
        assert_eq!(reads(&[3, 3, 9, 3, 3]), [older, older, current, older, older]);
        assert_eq!(reads(&[8]), [current]);
        let other = DesiredReplicas { set: "b".into(), ..desired(1, 3) };
        let mut detector = RestoreDetector::default();
        assert_eq!(detector.observe(&other, Some(&recorded)), current);
        assert_eq!(detector.observe(&other, None), current);
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
}
