//! The index: every key in order, each with the history of its versions. Values are not in it.
//!
//! Keys are in leaves: sorted arrays of at most [`LEAF_KEYS`] keys, found through a map of their lower
//! bounds. A key costs 64 bytes, its own bytes and little slack, for any order of insertion. That is
//! up to a third less than one ordered map of all keys, and a walk reads memory in order.
//!
//! Invariants: a leaf with the empty bound always exists; a leaf holds exactly the keys from its bound
//! up to the next bound; only the apply lane writes. Readers hold the lock for a bounded number of
//! keys and read at a revision, so versions above it, of unpublished commands, are invisible to them.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::history::{History, Version};
use crate::types::{KeyRange, LeaseId, RecordId, Revision};

/// Maximum keys of a leaf: 4 KiB of entries, of which an insertion moves half on average.
const LEAF_KEYS: usize = 64;

/// Growth of a leaf, in keys. Doubling would leave a quarter of all memory unused.
const LEAF_GROWTH: usize = 8;

/// The index behind its lock.
#[derive(Debug, Default)]
pub struct Index {
    keys: RwLock<Keys>,
}

impl Index {
    /// Number of existing keys, including the effects of commands that are being applied.
    pub fn alive(&self) -> usize {
        self.read().alive
    }

    /// Visits at most `keys_max` keys of the range in order. Returns the rest of the range, if any.
    pub fn walk(
        &self,
        range: &KeyRange,
        keys_max: usize,
        visit: impl FnMut(&[u8], &History),
    ) -> Option<KeyRange> {
        self.read().walk(range, keys_max, visit)
    }

    /// The version of a key that is visible at `revision`.
    pub fn get(&self, key: &[u8], revision: Revision) -> Option<Version> {
        self.read().get(key).and_then(|history| history.at(revision).copied())
    }

    /// Adds the version that a put makes: the next one of an existing key, or the first one. Returns
    /// it, and the previous lease of the key.
    pub fn put(&self, key: &[u8], id: RecordId, lease: LeaseId) -> (Version, LeaseId) {
        let mut previous_lease = LeaseId::default();
        let version = self.write().append(key, |before| match before.and_then(History::alive) {
            Some(alive) => {
                previous_lease = alive.lease;
                Version::put(id, alive.created, alive.version + 1, lease)
            }
            None => Version::put(id, id.main, 1, lease),
        });
        (version, previous_lease)
    }

    /// Adds a complete version: a tombstone, or a version from disk.
    pub fn append(&self, key: &[u8], version: Version) {
        self.write().append(key, |_| version);
    }

    /// Prunes the keys from `from` on, whole leaves, until `keys_max` keys were examined. Reports the
    /// discarded records. Returns the key to continue from, if any.
    pub fn prune(
        &self,
        from: &[u8],
        keys_max: usize,
        revision: Revision,
        discarded: &mut Vec<RecordId>,
    ) -> Option<Box<[u8]>> {
        self.write().prune(from, keys_max, revision, discarded)
    }

    // A panic under the lock is one of the apply lane, which stops the member. Its unfinished changes
    // are above every published revision, so readers may continue until then.
    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

type Leaf = Vec<KeyEntry>;

#[derive(Debug)]
struct KeyEntry {
    key: Box<[u8]>,
    history: History,
}

#[derive(Debug)]
struct Keys {
    leaves: BTreeMap<Box<[u8]>, Leaf>,
    /// Keys whose latest version is not a tombstone.
    alive: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Keys { leaves: BTreeMap::from([(Box::default(), Leaf::new())]), alive: 0 }
    }
}

impl Keys {
    fn get(&self, key: &[u8]) -> Option<&History> {
        let (_, leaf) = self.leaf(key);
        find(leaf, key).ok().map(|at| &leaf[at].history)
    }

    fn walk(
        &self,
        range: &KeyRange,
        keys_max: usize,
        mut visit: impl FnMut(&[u8], &History),
    ) -> Option<KeyRange> {
        let (start, end) = match range {
            KeyRange::One(key) => {
                if let Some(history) = self.get(key) {
                    visit(key, history);
                }
                return None;
            }
            KeyRange::Span { start, end } => (start, Some(end)),
            KeyRange::From(start) => (start, None),
        };
        let (bound, first) = self.leaf(start);
        let before = find(first, start).unwrap_or_else(|after| after);
        let entries = self.leaves.range::<[u8], _>((Included(bound), Unbounded));
        let mut last = None;
        for (visited, entry) in entries.flat_map(|(_, leaf)| leaf).skip(before).enumerate() {
            if end.is_some_and(|end| *entry.key >= **end) {
                return None;
            }
            if visited == keys_max {
                return last.map(|last| rest(last, end));
            }
            visit(&entry.key, &entry.history);
            last = Some(&entry.key);
        }
        None
    }

    fn append(&mut self, key: &[u8], version: impl FnOnce(Option<&History>) -> Version) -> Version {
        let mut leaf = self.leaf_mut(key);
        let mut slot = find(leaf, key);
        if slot.is_err() && leaf.len() == LEAF_KEYS {
            self.split(key);
            leaf = self.leaf_mut(key);
            slot = find(leaf, key);
        }
        let (was_alive, version) = match slot {
            Ok(at) => {
                let history = &mut leaf[at].history;
                let was_alive = history.alive().is_some();
                let version = version(Some(history));
                history.push(version);
                (was_alive, version)
            }
            Err(at) => {
                let version = version(None);
                if leaf.len() == leaf.capacity() {
                    leaf.reserve_exact(LEAF_GROWTH);
                }
                leaf.insert(at, KeyEntry { key: key.into(), history: History::new(version) });
                (false, version)
            }
        };
        self.alive = self.alive + usize::from(!version.tombstone) - usize::from(was_alive);
        version
    }

    /// Moves the upper half of the leaf of `key` into a new leaf.
    fn split(&mut self, key: &[u8]) {
        let leaf = self.leaf_mut(key);
        let upper = leaf.split_off(LEAF_KEYS / 2);
        leaf.shrink_to_fit();
        self.leaves.insert(upper[0].key.clone(), upper);
    }

    fn prune(
        &mut self,
        from: &[u8],
        keys_max: usize,
        revision: Revision,
        discarded: &mut Vec<RecordId>,
    ) -> Option<Box<[u8]>> {
        let first = self.leaf(from).0.to_vec();
        let (mut examined, mut thin, mut next) = (0, Vec::new(), None);
        for (bound, leaf) in self.leaves.range_mut::<[u8], _>((Included(&first[..]), Unbounded)) {
            if examined >= keys_max {
                next = Some(bound.clone());
                break;
            }
            examined += leaf.len().max(1);
            leaf.retain_mut(|entry| entry.history.prune(revision, discarded));
            if leaf.len() < LEAF_KEYS / 4 {
                thin.push(bound.clone());
            }
            if leaf.capacity() >= leaf.len() + 2 * LEAF_GROWTH {
                leaf.shrink_to_fit();
            }
        }
        for bound in thin {
            self.merge_down(&bound);
        }
        next
    }

    /// Moves the entries of this leaf into the previous one, if they fit.
    fn merge_down(&mut self, bound: &[u8]) {
        let Some(len) = self.leaves.get(bound).map(Vec::len) else { return };
        let before = self.leaves.range::<[u8], _>((Unbounded, Excluded(bound))).next_back();
        let Some((target, _)) = before.filter(|(_, leaf)| leaf.len() + len <= LEAF_KEYS) else {
            return;
        };
        let target = target.clone();
        let moved = self.leaves.remove(bound).unwrap_or_default();
        let leaf = self.leaf_mut(&target);
        leaf.reserve_exact(len);
        leaf.extend(moved);
    }

    /// The leaf of `key`, and its bound.
    fn leaf(&self, key: &[u8]) -> (&[u8], &Leaf) {
        let leaf = self.leaves.range::<[u8], _>((Unbounded, Included(key))).next_back();
        let (bound, leaf) = leaf.expect("the leaf with the empty bound always exists");
        (bound, leaf)
    }

    fn leaf_mut(&mut self, key: &[u8]) -> &mut Leaf {
        let leaf = self.leaves.range_mut::<[u8], _>((Unbounded, Included(key))).next_back();
        leaf.expect("the leaf with the empty bound always exists").1
    }
}

fn find(leaf: &Leaf, key: &[u8]) -> Result<usize, usize> {
    leaf.binary_search_by(|entry| (*entry.key).cmp(key))
}

/// The keys after `last`, up to `end`. The successor of a key is the key with a zero byte appended.
fn rest(last: &[u8], end: Option<&Bytes>) -> KeyRange {
    let start = Bytes::from([last, &[0]].concat());
    match end {
        Some(end) => KeyRange::Span { start, end: end.clone() },
        None => KeyRange::From(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(main: i64) -> RecordId {
        RecordId { main: Revision(main), sub: 0 }
    }

    fn key(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    /// Multiplying by an odd number visits every residue of a power of two once, far apart.
    fn scattered(count: u64) -> impl Iterator<Item = u64> {
        assert!(count.is_power_of_two());
        (0..count).map(move |n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count)
    }

    fn filled(keys: impl Iterator<Item = u64>) -> Index {
        let index = Index::default();
        for (at, number) in keys.enumerate() {
            index.put(&key(number), id(at as i64 + 2), LeaseId(0));
        }
        index
    }

    fn walked(index: &Index, range: KeyRange, keys_max: usize) -> Vec<u64> {
        let (mut keys, mut left) = (Vec::new(), Some(range));
        while let Some(range) = left {
            left = index.walk(&range, keys_max, |key, _| {
                keys.push(u64::from_be_bytes(key.try_into().unwrap()));
            });
        }
        keys
    }

    fn everything() -> KeyRange {
        KeyRange::From(Bytes::new())
    }

    fn span(start: u64, end: u64) -> KeyRange {
        let bytes = |number| Bytes::copy_from_slice(&key(number));
        KeyRange::Span { start: bytes(start), end: bytes(end) }
    }

    /// Bytes per key, without the key itself and the allocator's rounding.
    fn bytes_per_key(index: &Index) -> usize {
        let keys = index.read();
        let entries: usize = keys.leaves.values().map(Vec::capacity).sum();
        let bound_bytes = size_of::<(Box<[u8]>, Leaf)>() * 2 + 32;
        let count: usize = keys.leaves.values().map(Vec::len).sum();
        (entries * size_of::<KeyEntry>() + keys.leaves.len() * bound_bytes) / count
    }

    #[test]
    fn a_key_with_one_version_fits_the_memory_budget_for_any_order_of_insertion() {
        assert_eq!(size_of::<KeyEntry>(), 64);
        for index in [filled(0..1 << 14), filled((0..1 << 14).rev()), filled(scattered(1 << 14))] {
            let bytes = bytes_per_key(&index);
            assert!(bytes <= 90, "{bytes} bytes a key");
        }
    }

    #[test]
    fn a_walk_in_chunks_of_any_size_yields_every_key_of_the_range_once_in_order() {
        let index = filled(scattered(1024));
        for keys_max in [1, 7, 64, 2000] {
            assert!(walked(&index, everything(), keys_max).into_iter().eq(0..1024));
            assert!(walked(&index, span(60, 300), keys_max).into_iter().eq(60..300));
            assert_eq!(walked(&index, span(300, 60), keys_max), Vec::<u64>::new());
        }
    }

    #[test]
    fn pruned_leaves_are_merged_and_still_hold_every_key_that_is_left() {
        let index = filled(scattered(4096));
        for (at, number) in (0..4096).filter(|number| number % 100 != 0).enumerate() {
            index.append(&key(number), Version::tombstone(id(5000 + at as i64)));
        }
        let (mut discarded, mut next) = (Vec::new(), Some(Box::default()));
        while let Some(from) = next {
            next = index.prune(&from, 100, Revision(100_000), &mut discarded);
        }
        assert!(walked(&index, everything(), 10).into_iter().eq((0..4096).step_by(100)));
        assert_eq!(discarded.len(), 2 * (4096 - 41));
        assert!(index.read().leaves.len() < 4, "{} leaves", index.read().leaves.len());
        assert_eq!(index.get(&key(4000), Revision(100_000)).unwrap().version, 1);
        assert_eq!(index.get(&key(4001), Revision(100_000)), None);
    }
}
