//! Instruments per label value, such as one counter for each other member.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Further keys are counted together, under the default key: IDs that peers send must not use unbounded
/// memory.
const KEYS_MAX: usize = 64;

/// Instruments by key. Created on first use, never removed.
#[derive(Debug)]
pub struct Labelled<K, T> {
    all: Mutex<BTreeMap<K, Arc<T>>>,
}

impl<K, T> Default for Labelled<K, T> {
    fn default() -> Labelled<K, T> {
        Labelled { all: Mutex::default() }
    }
}

impl<K: Ord + Copy + Default, T: Default> Labelled<K, T> {
    /// Takes a lock: callers on a hot path must keep the instrument.
    pub fn of(&self, key: K) -> Arc<T> {
        let mut all = self.lock();
        let key = if all.len() < KEYS_MAX || all.contains_key(&key) { key } else { K::default() };
        all.entry(key).or_default().clone()
    }

    pub fn all(&self) -> Vec<(K, Arc<T>)> {
        self.lock().iter().map(|(key, counts)| (*key, counts.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Arc<T>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn keys_beyond_the_bound_are_counted_together() {
        let counts: Labelled<u64, Counter> = Labelled::default();
        for key in 1..=100 {
            counts.of(key).increment();
        }
        let all = counts.all();
        assert_eq!(all.len(), KEYS_MAX + 1);
        assert_eq!((all[0].0, all[0].1.get()), (0, 36));
    }
}
