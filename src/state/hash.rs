//! The hash by which members compare their state.
//!
//! It covers every version that is visible to a read at any revision from the compacted one up to
//! the hashed one, in the order of keys and then of revisions, with values as read back from
//! storage. So it is a function of the store's content alone: the progress of pruning, the layout of
//! blocks and restarts do not change it. It is not etcd's value.

use bytes::Bytes;

use super::{
    history::Version,
    instance::StateInstance,
    record_source::{OnDisk, RecordSource},
    scan::{FETCH_RECORDS, WALK_KEYS},
    storage::StorageError,
};
use crate::types::{KeyRange, Revision};

/// The hash of everything readable between two revisions. Members whose revisions agree must agree
/// on the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// -1 if the store was never compacted.
    pub compacted: Revision,
    pub revision: Revision,
}

/// The caller holds a read snapshot at `compacted`.
pub fn hash_kv(
    instance: &StateInstance,
    compacted: Revision,
    revision: Revision,
) -> Result<KvHash, StorageError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut rest = Some(KeyRange::From(Bytes::new()));
    let mut visible: Vec<(Bytes, Version)> = Vec::new();
    while let Some(keys) = rest {
        rest = instance.index.walk(&keys, WALK_KEYS, |key, history| {
            let versions = history.visible_between(compacted, revision);
            visible.extend(versions.map(|version| (Bytes::copy_from_slice(key), *version)));
        });
        for chunk in visible.chunks(FETCH_RECORDS) {
            add(&mut hasher, instance, chunk)?;
        }
        visible.clear();
    }
    Ok(KvHash { hash: hasher.finalize(), compacted, revision })
}

fn add(
    hasher: &mut crc32fast::Hasher,
    instance: &StateInstance,
    chunk: &[(Bytes, Version)],
) -> Result<(), StorageError> {
    let ids: Vec<_> = chunk.iter().map(|(_, version)| version.id()).collect();
    let records = OnDisk(&*instance.storage).read(&ids)?;
    for ((key, version), record) in chunk.iter().zip(records) {
        for bytes in [key, &record.value] {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        }
        let id = version.id();
        hasher.update(&id.main.0.to_be_bytes());
        hasher.update(&id.sub.to_be_bytes());
        for number in [version.created.0, version.version, version.lease.0] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&[u8::from(version.tombstone)]);
    }
    Ok(())
}
