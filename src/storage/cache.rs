//! A cache of recently used records.
//!
//! New records enter a *probation* queue. A record that is hit again before it reaches the end of that
//! queue moves to the *main* queue, and stays there as long as it is hit. So a large scan can evict
//! only records that were hit once.
//!
//! Bounded by bytes, and split into shards to reduce lock contention. A hit costs a hash, a lock and a
//! reference count.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use crate::{
    state::{Record, RecordMeta},
    types::RecordId,
};

const SHARDS: usize = 16;
/// Memory of an entry without its key and value: maps, queues, reference counts.
const ENTRY_BYTES: usize = 200;

/// A bounded map of records.
#[derive(Debug)]
pub struct Cache {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<RecordId, CacheEntry, BuildHasherDefault<IdHasher>>,
    probation: Queue,
    main: Queue,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    ids: VecDeque<RecordId>,
    bytes: usize,
}

#[derive(Debug)]
struct CacheEntry {
    record: Arc<Record>,
    hit: AtomicBool,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        let shard = || Mutex::new(Shard { bytes_max: bytes_max / SHARDS, ..Shard::default() });
        Cache { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Neighbouring ids are in different shards, so that writes and scans spread.
    fn shard(&self, id: RecordId) -> MutexGuard<'_, Shard> {
        let number = (id.main.0 as usize).wrapping_add(id.sub as usize) % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: RecordId) -> Option<Arc<Record>> {
        let shard = self.shard(id);
        let entry = shard.entries.get(&id)?;
        entry.hit.store(true, Ordering::Relaxed);
        Some(entry.record.clone())
    }

    pub fn insert(&self, record: Arc<Record>) {
        self.shard(record.meta.id).insert(record);
    }
}

impl Shard {
    fn insert(&mut self, record: Arc<Record>) {
        let (id, weight) = (record.meta.id, weight(&record));
        if weight > self.bytes_max / 4 {
            return;
        }
        let entry = CacheEntry { record, hit: AtomicBool::new(false) };
        if self.entries.insert(id, entry).is_none() {
            self.probation.push(id, weight);
        }
        while self.probation.bytes + self.main.bytes > self.bytes_max {
            self.evict_next();
        }
    }

    /// Evicts the next record, or moves it to the main queue if it was hit.
    fn evict_next(&mut self) {
        let probation_is_large = self.probation.bytes > self.bytes_max / 4;
        let queue = if probation_is_large || self.main.ids.is_empty() {
            &mut self.probation
        } else {
            &mut self.main
        };
        let Some(id) = queue.ids.pop_front() else { return };
        let Some(entry) = self.entries.get(&id) else { return };
        let weight = weight(&entry.record);
        queue.bytes -= weight;
        if entry.hit.swap(false, Ordering::Relaxed) {
            self.main.push(id, weight);
        } else {
            self.entries.remove(&id);
        }
    }
}

impl Queue {
    fn push(&mut self, id: RecordId, weight: usize) {
        self.ids.push_back(id);
        self.bytes += weight;
    }
}

fn weight(record: &Record) -> usize {
    record.meta.key.len() + record.value.len() + ENTRY_BYTES
}

/// A copy that does not share the buffer of its page.
pub fn compact(record: &Record) -> Arc<Record> {
    let mut buf = BytesMut::with_capacity(record.meta.key.len() + record.value.len());
    buf.extend_from_slice(&record.meta.key);
    buf.extend_from_slice(&record.value);
    let mut key: Bytes = buf.freeze();
    let value = key.split_off(record.meta.key.len());
    Arc::new(Record { meta: RecordMeta { key, ..record.meta.clone() }, value })
}

/// Spreads record ids by one multiplication. Clients do not choose them, so no keyed hash is needed.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaseId, Revision};

    fn record(main: i64, value_bytes: usize) -> Arc<Record> {
        Arc::new(Record {
            meta: RecordMeta {
                id: RecordId { main: Revision(main), sub: 0 },
                key: Bytes::from_static(b"k"),
                create_revision: Revision(main),
                version: 1,
                lease: LeaseId(0),
                tombstone: false,
            },
            value: vec![0; value_bytes].into(),
        })
    }

    fn held(cache: &Cache) -> usize {
        let bytes = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            assert_eq!(shard.entries.len(), shard.probation.ids.len() + shard.main.ids.len());
            shard.entries.values().map(|entry| weight(&entry.record)).sum::<usize>()
        };
        cache.shards.iter().map(bytes).sum()
    }

    #[test]
    fn the_cache_stays_within_its_bytes() {
        let cache = Cache::new(1 << 20);
        for main in 0..50_000 {
            cache.insert(record(main, (main % 300) as usize));
            if main % 3 == 0 {
                cache.get(RecordId { main: Revision(main / 2), sub: 0 });
            }
        }
        assert!(held(&cache) <= 1 << 20);
        assert!(held(&cache) > 1 << 19, "it is used, too");
    }

    #[test]
    fn a_scan_does_not_evict_records_that_are_hit_repeatedly() {
        let cache = Cache::new(1 << 20);
        let hot = |main: i64| RecordId { main: Revision(main), sub: 0 };
        (0..500).for_each(|main| cache.insert(record(main, 100)));
        for main in 1_000..20_000 {
            cache.insert(record(main, 100));
            let again = hot(main % 500);
            assert!(cache.get(again).is_some(), "lost {again} at {main}");
        }
    }

    #[test]
    fn a_value_larger_than_the_cache_is_not_kept() {
        let cache = Cache::new(1 << 16);
        cache.insert(record(1, 1 << 17));
        assert!(cache.get(RecordId { main: Revision(1), sub: 0 }).is_none());
    }

    #[test]
    fn a_compact_copy_is_equal() {
        let original = record(7, 9);
        assert_eq!(*compact(&original), *original);
    }
}
