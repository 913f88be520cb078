//! The hash by which members compare what they hold.
//!
//! It covers every version that a read at some revision from the compacted one up to the hashed one
//! can see, in the order of keys and then of revisions, values included and read back from where
//! they are kept. So it depends on what the store *is*, and on nothing else: not on how far pruning
//! has come, on blocks, or on restarts. It is not etcd's value.

use bytes::Bytes;

use super::{
    generation::Generation,
    history::Version,
    records::{OnDisk, Records},
    scan::{FETCH_RECORDS, WALK_KEYS},
    storage::StorageError,
};
use crate::types::{KeyRange, Revision};

/// The hash of what can be read between two revisions. Members agree on it where they agree on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// -1 if nothing was compacted ever.
    pub compacted: Revision,
    pub revision: Revision,
}

/// The caller holds a pin at `compacted`.
pub(super) fn hash_kv(
    generation: &Generation,
    compacted: Revision,
    revision: Revision,
) -> Result<KvHash, StorageError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut rest = Some(KeyRange::From(Bytes::new()));
    let mut seen: Vec<(Bytes, Version)> = Vec::new();
    while let Some(keys) = rest {
        rest = generation.index.walk(&keys, WALK_KEYS, |key, history| {
            let versions = history.seen_between(compacted, revision);
            seen.extend(versions.map(|version| (Bytes::copy_from_slice(key), *version)));
        });
        for chunk in seen.chunks(FETCH_RECORDS) {
            add(&mut hasher, generation, chunk)?;
        }
        seen.clear();
    }
    Ok(KvHash { hash: hasher.finalize(), compacted, revision })
}

fn add(
    hasher: &mut crc32fast::Hasher,
    generation: &Generation,
    chunk: &[(Bytes, Version)],
) -> Result<(), StorageError> {
    let ids: Vec<_> = chunk.iter().map(|(_, version)| version.id()).collect();
    let records = OnDisk(&*generation.storage).read(&ids)?;
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
