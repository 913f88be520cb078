//! The same instruments for each of several things, such as the other members.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Things beyond these are counted together, under the key's default: what a peer says of itself
/// must not take memory without a bound.
const KEYS_MAX: usize = 64;

/// Instruments by key, made when they are first asked for, for ever.
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
    /// Worth keeping: finding it takes a lock.
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
