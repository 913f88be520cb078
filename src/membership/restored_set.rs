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
pub const READS: u32 = 3;

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
    use super::*;

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
}
