//! Compares the contents of a cluster with the history that clients observed.

use std::collections::BTreeSet;

use ordinal::{
    client::Client,
    proto::{
        etcdserverpb::{RangeRequest, RangeResponse},
        mvccpb::KeyValue,
    },
};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

use crate::{
    cluster::harness::Cluster,
    support::{
        WAIT_TIMEOUT,
        history::{check_real_time, check_versions},
        oracle::Oracle,
        workload::state_hash,
    },
};

/// Asserts that all members hold the same data, and that it matches the oracle: each acknowledged
/// write at its revision, each unknown write once or not at all, and nothing else.
///
/// All members must run, and no client may write meanwhile.
pub async fn assert_history_holds(cluster: &Cluster, oracle: &Oracle) {
    for member in &cluster.members {
        assert!(!member.log().contains("panicked"), "member {} panicked", member.ordinal);
    }
    let revision = agreed_revision(cluster).await;
    let versions = all_versions(cluster.members[0].client(), revision).await;
    let attempts = oracle.attempts();
    check_versions(&versions, &attempts);
    check_real_time(&attempts);
    let expected: BTreeSet<i64> = (2..=revision).collect();
    let found: BTreeSet<i64> = versions.iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(found, expected, "every revision is one write");
}

/// Waits until all running members are at the same revision and agree on its hash.
async fn agreed_revision(cluster: &Cluster) -> i64 {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let mut before = None;
    loop {
        let mut hashes = Vec::new();
        for member in cluster.members.iter().filter(|member| member.is_running()) {
            hashes.push(state_hash(&member.client()).await);
        }
        let same = hashes.iter().all(|hash| *hash == hashes[0]);
        // A write with an unknown outcome may still be in flight, so two rounds must agree.
        if same && hashes[0].is_some() && before == hashes[0] {
            return hashes[0].unwrap().0;
        }
        before = if same { hashes[0] } else { None };
        assert!(
            Instant::now() < deadline,
            "the members differ (revision, hash, compacted): {hashes:?}"
        );
        sleep(Duration::from_millis(300)).await;
    }
}

/// Every version of every key. The tests neither delete nor compact.
async fn all_versions(client: Client, revision: i64) -> Vec<KeyValue> {
    let client = std::sync::Arc::new(client);
    let latest = range(&client, b"\0", b"\0", revision).await.kvs;
    let mut keys = JoinSet::new();
    for latest in latest {
        let client = client.clone();
        keys.spawn(async move {
            let mut versions = vec![latest];
            while let Some(newer) = versions.last().filter(|kv| kv.version > 1) {
                let mut older = range(&client, &newer.key, b"", newer.mod_revision - 1).await.kvs;
                assert_eq!(older[0].version, newer.version - 1, "a version of a key is missing");
                versions.append(&mut older);
            }
            versions
        });
    }
    keys.join_all().await.into_iter().flatten().collect()
}

async fn range(client: &Client, key: &[u8], end: &[u8], revision: i64) -> RangeResponse {
    let request = RangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        revision,
        serializable: true,
        ..Default::default()
    };
    client.range(request).await.unwrap()
}
