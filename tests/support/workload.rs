//! The requests of all workloads: attempts that the oracle records, and answers that it checks.

use std::sync::atomic::{AtomicU64, Ordering};

use ordinal::{
    client::{Client, Get, Put},
    proto::etcdserverpb::RangeResponse,
};
use tokio::time::Instant;

use super::{
    oracle::{Attempt, Floor, Oracle, Outcome},
    retry::promise,
};

/// Attempts one put of a unique value, padded to this size, and records its outcome.
pub async fn put(client: &Client, oracle: &Oracle, key: String, value_bytes: usize) -> Outcome {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let value = format!("{:-<value_bytes$}", NEXT.fetch_add(1, Ordering::Relaxed));
    let began = Instant::now();
    let outcome = match client.put(Put::new(&key, &value)).await {
        Ok(done) => Outcome::Acknowledged(done.header.unwrap().revision),
        Err(error) if error.certainly_not_applied() => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    };
    oracle.note(Attempt { key, value, began, ended: Instant::now(), outcome });
    outcome
}

/// Asserts that a linearizable read of a key saw every write acknowledged before it began.
pub fn assert_linearizable(key: &str, answer: &RangeResponse, floor: Floor) {
    let revision = answer.header.as_ref().unwrap().revision;
    let of_key = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
    promise(|| {
        assert!(
            revision >= floor.revision && of_key >= floor.of_key,
            "a linearizable read of {key} is answered at revision {revision}, key at {of_key}; \
             acknowledged before it began: {floor:?}"
        );
    });
}

/// Revision, hash and compacted revision of a member that has applied every acknowledged write.
pub async fn state_hash(client: &Client) -> Option<(i64, u32, i64)> {
    // The linearizable read waits until the member has applied every acknowledged write.
    client.range(Get::new("x")).await.ok()?;
    let answer = client.hash_kv(0).await.ok()?;
    Some((answer.hash_revision, answer.hash, answer.compact_revision))
}
