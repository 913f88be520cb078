//! Compares the contents of a store with the acknowledged writes and with the events of a watch.

use ordinal::{
    client::{Client, Keys, Watch},
    proto::mvccpb::KeyValue,
};
use tokio::time::{Duration, sleep, timeout};

use crate::{
    k8s::{
        kubectl::{CHANGE_TIMEOUT, eventually},
        store::{Store, client_of, endpoint},
        watcher::FIRST_REVISION,
        workload::{PREFIX, Seen},
    },
    support::{
        history::{check_real_time, check_versions},
        workload::state_hash,
    },
};

/// Asserts that each acknowledged write is at its revision, that each revision is one write, and
/// that the watch delivered exactly these. No client may write meanwhile.
pub async fn assert_history_holds(store: &Store, seen: &Seen) {
    let revision = agreed_revision(store).await;
    let versions = history(&store.client().await, revision).await;
    check_versions(&versions, &seen.attempts);
    check_real_time(&seen.attempts);
    let revisions: Vec<i64> = versions.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(
        revisions,
        (FIRST_REVISION..=revision).collect::<Vec<_>>(),
        "every revision is one write"
    );
    assert!(seen.watched == versions, "the events of the watch differ from the history");
}

/// Waits until all ready members hold the same data, and returns its revision.
pub async fn agreed_revision(store: &Store) -> i64 {
    let mut before = None;
    eventually(async || {
        let mut hashes = Vec::new();
        for pod in store.pods().await.iter().filter(|pod| pod.ready && !pod.deleting) {
            hashes.push(state_hash(&client_of(&[endpoint(&pod.ip)])).await);
        }
        let first = hashes.first().copied().flatten();
        let same = hashes.iter().all(|hash| *hash == first);
        // A write with an unknown outcome may still be in flight, so two rounds must agree.
        if let Some((revision, ..)) = first.filter(|_| same && before == first) {
            return Ok(revision);
        }
        before = if same { first } else { None };
        sleep(Duration::from_millis(300)).await;
        Err(format!("the members differ (revision, hash, compacted): {hashes:?}"))
    })
    .await
}

/// Every version of every key, ordered by revision.
async fn history(client: &Client, end: i64) -> Vec<KeyValue> {
    let mut versions: Vec<KeyValue> = Vec::new();
    let watch = Watch::new(Keys::prefix(PREFIX)).from_revision(FIRST_REVISION);
    let mut watcher = client.watch(watch).await.expect("a healthy store");
    while versions.last().is_none_or(|last| last.mod_revision < end) {
        let batch =
            timeout(CHANGE_TIMEOUT, watcher.next()).await.expect("the history comes").unwrap();
        versions.extend(batch.events.into_iter().map(|event| event.kv.unwrap()));
    }
    versions
}
