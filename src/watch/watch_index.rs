//! The index of watched keys: assigns an ID to each distinct key and range, however many watches share
//! it, and finds the IDs that a record concerns.

use std::{collections::HashMap, sync::Arc};

use super::interval_tree::{Interval, IntervalTree};
use crate::{state::Record, types::KeyRange};

/// The keys of a watch. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    One(Arc<[u8]>),
    Range(Interval),
}

impl Keys {
    /// Copies the keys, so that a watch does not keep the buffer of its request.
    pub fn of(keys: &KeyRange) -> Keys {
        match keys {
            KeyRange::One(key) => Keys::One((**key).into()),
            KeyRange::Span { start, end } => {
                Keys::Range(Interval { start: (**start).into(), end: Some((**end).into()) })
            }
            KeyRange::From(start) => Keys::Range(Interval { start: (**start).into(), end: None }),
        }
    }

    pub fn bytes(&self) -> usize {
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
            Keys::Range(Interval { start, end }) => {
                write!(f, "{}..", start.escape_ascii())?;
                end.as_ref().map_or(Ok(()), |end| write!(f, "{}", end.escape_ascii()))
            }
        }
    }
}

/// Maps keys to IDs that the caller chooses.
#[derive(Debug, Default)]
pub struct WatchIndex {
    // Never iterated, so its random order has no effect.
    single: HashMap<Arc<[u8]>, u32>,
    ranges: IntervalTree,
}

impl WatchIndex {
    pub fn get(&self, keys: &Keys) -> Option<u32> {
        match keys {
            Keys::One(key) => self.single.get(&**key).copied(),
            Keys::Range(range) => self.ranges.get(range),
        }
    }

    /// Adds keys that are not in the index.
    pub fn insert(&mut self, keys: Keys, id: u32) {
        match keys {
            Keys::One(key) => drop(self.single.insert(key, id)),
            Keys::Range(range) => self.ranges.insert(range, id),
        }
    }

    pub fn remove(&mut self, keys: &Keys) {
        match keys {
            Keys::One(key) => drop(self.single.remove(&**key)),
            Keys::Range(range) => self.ranges.remove(range),
        }
        if self.single.capacity() > 64 && self.single.len() < self.single.capacity() / 8 {
            self.single.shrink_to_fit();
        }
    }

    /// Matches records to keys: pairs of an ID and the position of a record on its keys, ordered by ID,
    /// then by position. Also returns the number of matched records: whole revisions, at least one, and
    /// no further revision after `pairs_max` pairs.
    pub fn matching(&self, records: &[Arc<Record>], pairs_max: usize) -> (Vec<(u32, u32)>, usize) {
        let mut pairs = Vec::new();
        let mut revision = None;
        for (at, record) in records.iter().enumerate() {
            let begins = revision.replace(record.meta.id.main) != Some(record.meta.id.main);
            if begins && at > 0 && pairs.len() >= pairs_max {
                pairs.sort_unstable();
                return (pairs, at);
            }
            let (key, at) = (&*record.meta.key, at as u32);
            if let Some(id) = self.single.get(key) {
                pairs.push((*id, at));
            }
            self.ranges.for_each_containing(key, &mut |id| pairs.push((id, at)));
        }
        pairs.sort_unstable();
        (pairs, records.len())
    }
}

/// Splits the pairs of [`WatchIndex::matching`] by ID.
pub fn by_keys(pairs: &[(u32, u32)]) -> impl Iterator<Item = (u32, Vec<u32>)> {
    let runs = pairs.chunk_by(|(one, _), (other, _)| one == other);
    runs.map(|run| (run[0].0, run.iter().map(|(_, at)| *at).collect()))
}
