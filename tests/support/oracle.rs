//! Record of every attempted write and its outcome.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::time::Instant;

/// The outcome of a write, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed at this revision.
    Acknowledged(i64),
    /// Certainly not applied.
    Refused,
    /// Applied once, or never.
    Unknown,
}

/// An attempted write. Its value is unique.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub key: String,
    pub value: String,
    pub began: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

/// The least that a linearizable read that begins now must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    pub revision: i64,
    pub of_key: i64,
}

/// Clones share one record.
#[derive(Debug, Clone, Default)]
pub struct Oracle(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    attempts: Vec<Attempt>,
    newest: BTreeMap<String, i64>,
    revision: i64,
}

/// The number of writes with each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
}

impl Oracle {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    pub fn note(&self, attempt: Attempt) {
        let mut memory = self.memory();
        if let Outcome::Acknowledged(revision) = attempt.outcome {
            let newest = memory.newest.entry(attempt.key.clone()).or_default();
            *newest = revision.max(*newest);
            memory.revision = revision.max(memory.revision);
        }
        memory.attempts.push(attempt);
    }

    pub fn floor(&self, key: &str) -> Floor {
        let memory = self.memory();
        let of_key = memory.newest.get(key).copied().unwrap_or_default();
        Floor { revision: memory.revision, of_key }
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.memory().attempts.clone()
    }

    pub fn tally(&self) -> Tally {
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
