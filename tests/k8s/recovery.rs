//! `kvctl cluster recover`, and the bootstrap record of another cluster under a running one: two
//! clusters never both serve behind one Service.

use std::collections::BTreeSet;

use ordinal::client::Get;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::k8s::{
    check::agreed_revision,
    kubectl::eventually,
    scenarios::ScenarioContext,
    store::{Deletion, Pod, Store, client_of, endpoint},
};

/// Both clusters may serve for this time, until the leader of the old one has read the record.
const BOTH_SERVE_LIMIT: Duration = Duration::from_secs(5);
/// Until a member has been without a majority for so long that it says for which members.
const ALONE: Duration = Duration::from_secs(12);
/// The old cluster must stay silent for this time.
const WATCHED: Duration = Duration::from_secs(10);

/// The member refuses, because a majority may live. Told a second time, it becomes a cluster of its
/// own, and the majority stops serving.
pub async fn recover_during_a_partition(s: &ScenarioContext) {
    let old = s.store.cluster().await;
    let pods = s.store.ready(3).await;
    let alone = s.store.follower().await;
    // The order accepts the loss of writes. The scenario makes none meanwhile.
    s.load.pause().await;
    agreed_revision(&s.store).await;
    s.host().cut_off(&alone).await;
    sleep(ALONE).await;

    let refused = recover(&s.store, &alone, &[]).await.expect_err("a majority may live");
    assert!(refused.contains("a majority of the voters may be alive"), "{refused}");
    assert_eq!(serving(&pods).await, BTreeSet::from([old]), "a refusal changes nothing");
    let uid = format!("{old:x}");
    let order = recover(&s.store, &alone, &["--cluster-id", &uid]).await;
    println!("  {}", order.expect("the uid is typed out").trim());

    let new = eventually(async || {
        let clusters = serving(&s.store.pods().await).await;
        clusters.into_iter().find(|cluster| *cluster != old).ok_or("no new cluster serves".into())
    })
    .await;
    let began = Instant::now();
    while serving(&s.store.pods().await).await.contains(&old) {
        let both = began.elapsed();
        assert!(both < BOTH_SERVE_LIMIT, "both clusters serve, for {both:.1?}");
    }
    println!("  the old cluster is silent after {:.1?}", began.elapsed());
    let silent = Instant::now();
    while silent.elapsed() < WATCHED {
        let now = serving(&s.store.pods().await).await;
        assert!(!now.contains(&old), "the old cluster serves again: {now:x?}");
        sleep(Duration::from_millis(200)).await;
    }
    s.host().heal().await;
    for other in pods.iter().filter(|pod| pod.name != alone.name) {
        let claim = format!("data-{}", other.name);
        s.store.kubectl.run(&["delete", "persistentvolumeclaim", &claim, "--wait=false"]).await;
        s.store.delete(&[&other.name], Deletion::Force).await;
        s.store.replaced(other).await;
    }
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    assert_eq!(s.store.cluster().await, new, "the recovered cluster goes on");
    s.load.resume();
}

/// Most volumes are lost for good, so that no majority can return: nothing needs to be typed out.
pub async fn recover_the_last_volume(s: &ScenarioContext) {
    let old = s.store.cluster().await;
    let pods = s.store.ready(3).await;
    s.load.pause().await;
    agreed_revision(&s.store).await;
    for lost in &pods[..2] {
        let claim = format!("data-{}", lost.name);
        s.store.kubectl.run(&["delete", "persistentvolumeclaim", &claim, "--wait=false"]).await;
        s.store.delete(&[&lost.name], Deletion::Force).await;
    }
    eventually(async || recover(&s.store, &pods[2], &[]).await).await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    assert_ne!(s.store.cluster().await, old, "the recovered cluster has an id of its own");
    s.load.resume();
}

/// The bootstrap record names another cluster: no member may serve. Once the record is right again,
/// the members return.
pub async fn record_of_another_cluster(s: &ScenarioContext) {
    let (cluster, members) = (s.store.cluster().await, s.store.ids().await);
    write_record(&s.store, "57a1e").await;
    s.store.has_event("kv", "stops serving: it belongs to cluster").await;
    eventually(async || match serving(&s.store.pods().await).await {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:x?} still serves")),
    })
    .await;
    write_record(&s.store, &format!("{cluster:x}")).await;
    let pods = s.store.pods().await;
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    // The kubelet would wait longer and longer before it starts the containers again.
    s.store.delete(&names, Deletion::Force).await;
    for pod in &pods {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
    assert_eq!(s.store.cluster().await, cluster, "another cluster has been founded");
    assert_eq!(s.store.ids().await, members, "the same members are there again");
}

async fn write_record(store: &Store, cluster: &str) {
    let patch = json!({"data": {"state": "formed", "cluster": cluster}}).to_string();
    let record = ["patch", "configmap/kv-cluster", "--type=merge", "--patch", &patch];
    store.kubectl.run(&record).await;
}

async fn recover(store: &Store, from: &Pod, more: &[&str]) -> Result<String, String> {
    let order = ["exec", &from.name, "--", "kvctl", "cluster", "recover", "--from"];
    let from = format!("{}:2379", from.ip);
    store.kubectl.attempt(&[&order[..], &[&from, "--accept-data-loss"], more].concat()).await
}

/// The clusters of the pods that answer linearizable reads, ready or not.
async fn serving(pods: &[Pod]) -> BTreeSet<u64> {
    let mut clusters = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !pod.ip.is_empty()) {
        if let Ok(answer) = client_of(&[endpoint(&pod.ip)]).range(Get::new("x")).await {
            clusters.insert(answer.header.unwrap_or_default().cluster_id);
        }
    }
    clusters
}
