//! Compares what a store holds with what it promised, and with what a watch told of it.

use ordinal::{
    client::{Client, Get, Keys, Watch},
    proto::mvccpb::KeyValue,
};
use tokio::time::{Duration, sleep, timeout};

use crate::{
    history::{check_real_time, check_versions},
    kubectl::{PATIENCE, eventually},
    store::{Store, client_of, endpoint},
    watcher::FIRST,
    workload::{PREFIX, Seen},
};

/// Asserts that every acknowledged write is there at its revision, that each revision is one
/// write, and that the watch told exactly that. Nobody may write meanwhile.
pub(crate) async fn holds_what_it_promised(store: &Store, seen: &Seen) {
    let revision = agreed_revision(store).await;
    let versions = history(&store.client().await, revision).await;
    check_versions(&versions, &seen.attempts);
    check_real_time(&seen.attempts);
    let revisions: Vec<i64> = versions.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(revisions, (FIRST..=revision).collect::<Vec<_>>(), "every revision is one write");
    assert!(seen.watched == versions, "the watch told something else than the history");
}

/// Waits until all ready members hold the same, and says up to which revision.
pub(crate) async fn agreed_revision(store: &Store) -> i64 {
    let mut before = None;
    eventually(async || {
        let mut hashes = Vec::new();
        for pod in store.pods().await.iter().filter(|pod| pod.ready && !pod.deleting) {
            hashes.push(hash(&client_of(&[endpoint(&pod.ip)])).await);
        }
        let first = hashes.first().copied().flatten();
        let same = hashes.iter().all(|hash| *hash == first);
        // A write whose outcome is unknown may still be on its way: look twice.
        if let Some((revision, ..)) = first.filter(|_| same && before == first) {
            return Ok(revision);
        }
        before = if same { first } else { None };
        sleep(Duration::from_millis(300)).await;
        Err(format!("the members differ (revision, hash, compacted): {hashes:?}"))
    })
    .await
}

/// Revision, hash and compacted revision of what a member holds, once it holds all there is.
async fn hash(client: &Client) -> Option<(i64, u32, i64)> {
    client.range(Get::new("x")).await.ok()?;
    let answer = client.hash_kv(0).await.ok()?;
    Some((answer.hash_revision, answer.hash, answer.compact_revision))
}

/// Every version of every key, in the order of revisions.
async fn history(client: &Client, end: i64) -> Vec<KeyValue> {
    let mut versions: Vec<KeyValue> = Vec::new();
    let watch = Watch::new(Keys::prefix(PREFIX)).from_revision(FIRST);
    let mut watcher = client.watch(watch).await.expect("the store is well");
    while versions.last().is_none_or(|last| last.mod_revision < end) {
        let batch = timeout(PATIENCE, watcher.next()).await.expect("the history comes").unwrap();
        versions.extend(batch.events.into_iter().map(|event| event.kv.unwrap()));
    }
    versions
}
