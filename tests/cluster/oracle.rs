//! What the cluster promised: every write that was tried, and what became of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::time::Instant;

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, at this revision, for ever.
    Acknowledged(i64),
    /// Certainly not done.
    Refused,
    /// Done once, or never.
    Unknown,
}

/// A write that was tried. Its value is unlike that of any other.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// What a linearizable read that begins now must see, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) revision: i64,
    pub(crate) of_key: i64,
}

/// Remembers. Clones are the same oracle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    attempts: Vec<Attempt>,
    newest: BTreeMap<String, i64>,
    revision: i64,
}

/// A run in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
}

impl Oracle {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    pub(crate) fn note(&self, attempt: Attempt) {
        let mut memory = self.memory();
        if let Outcome::Acknowledged(revision) = attempt.outcome {
            let newest = memory.newest.entry(attempt.key.clone()).or_default();
            *newest = revision.max(*newest);
            memory.revision = revision.max(memory.revision);
        }
        memory.attempts.push(attempt);
    }

    pub(crate) fn floor(&self, key: &str) -> Floor {
        let memory = self.memory();
        let of_key = memory.newest.get(key).copied().unwrap_or_default();
        Floor { revision: memory.revision, of_key }
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.memory().attempts.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        let memory = self.memory();
        let mut tally = Tally::default();
        for attempt in &memory.attempts {
            match attempt.outcome {
                Outcome::Acknowledged(_) => tally.acknowledged += 1,
                Outcome::Refused => tally.refused += 1,
                Outcome::Unknown => tally.unknown += 1,
            }
        }
        tally
    }
}
