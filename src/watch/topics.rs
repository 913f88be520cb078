//! What is watched: distinct keys and ranges, each known once, however many watch it.

use std::{collections::HashMap, sync::Arc};

use super::ranges::{Range, Ranges};
use crate::{state::Record, types::KeyRange};

/// The keys of a watch. Clones share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    One(Arc<[u8]>),
    Range(Range),
}

impl Keys {
    /// Copies, so that what a request brought does not keep its buffer.
    pub(super) fn of(keys: &KeyRange) -> Keys {
        match keys {
            KeyRange::One(key) => Keys::One((**key).into()),
            KeyRange::Span { start, end } => {
                Keys::Range(Range { start: (**start).into(), end: Some((**end).into()) })
            }
            KeyRange::From(start) => Keys::Range(Range { start: (**start).into(), end: None }),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Keys::One(key) => key.len(),
            Keys::Range(range) => range.start.len() + range.end.as_ref().map_or(0, |end| end.len()),
        }
    }
}

/// As in etcd's texts: `key`, or `start..end`.
impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Keys::One(key) => write!(f, "{}", key.escape_ascii()),
            Keys::Range(Range { start, end }) => {
                write!(f, "{}..", start.escape_ascii())?;
                end.as_ref().map_or(Ok(()), |end| write!(f, "{}", end.escape_ascii()))
            }
        }
    }
}

/// Finds the numbers that keys were given.
#[derive(Debug, Default)]
pub(super) struct Topics {
    // Only looked up, never walked: its order is nobody's.
    single: HashMap<Arc<[u8]>, u32>,
    ranges: Ranges,
}

impl Topics {
    pub(super) fn get(&self, keys: &Keys) -> Option<u32> {
        match keys {
            Keys::One(key) => self.single.get(&**key).copied(),
            Keys::Range(range) => self.ranges.get(range),
        }
    }

    /// Adds keys that are not in here.
    pub(super) fn insert(&mut self, keys: Keys, number: u32) {
        match keys {
            Keys::One(key) => drop(self.single.insert(key, number)),
            Keys::Range(range) => self.ranges.insert(range, number),
        }
    }

    pub(super) fn remove(&mut self, keys: &Keys) {
        match keys {
            Keys::One(key) => drop(self.single.remove(&**key)),
            Keys::Range(range) => self.ranges.remove(range),
        }
        if self.single.capacity() > 64 && self.single.len() < self.single.capacity() / 8 {
            self.single.shrink_to_fit();
        }
    }

    /// Who watches what: pairs of a number and the place of a record that belongs to it, in order of
    /// the numbers, then of the records. And how many of the records that is about: whole revisions,
    /// one at least, and no more once there are `pairs_max`.
    pub(super) fn matching(
        &self,
        records: &[Arc<Record>],
        pairs_max: usize,
    ) -> (Vec<(u32, u32)>, usize) {
        let mut found = Vec::new();
        let mut revision = None;
        for (at, record) in records.iter().enumerate() {
            let begins = revision.replace(record.meta.id.main) != Some(record.meta.id.main);
            if begins && at > 0 && found.len() >= pairs_max {
                found.sort_unstable();
                return (found, at);
            }
            let (key, at) = (&*record.meta.key, at as u32);
            if let Some(number) = self.single.get(key) {
                found.push((*number, at));
            }
            self.ranges.holding(key, &mut |number| found.push((number, at)));
        }
        found.sort_unstable();
        (found, records.len())
    }
}

/// Cuts what [`Topics::matching`] found by number.
pub(super) fn by_topic(found: &[(u32, u32)]) -> impl Iterator<Item = (u32, Vec<u32>)> {
    let runs = found.chunk_by(|(one, _), (other, _)| one == other);
    runs.map(|run| (run[0].0, run.iter().map(|(_, at)| *at).collect()))
}
