//! One cluster from one bootstrap record: a store is deleted, its volumes stay, and it is applied
//! again while some of the volumes are away. No pod may found a second, empty cluster meanwhile.

use std::{ops::Range, path::PathBuf};

use serde_json::{Map, Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::k8s::{
    kubectl::{Kubectl, eventually},
    pods::lose_volume,
    scenarios::ScenarioContext,
    store::{Installation, Store},
    workload::Workload,
};

/// An empty pod that finds no other one would have founded a cluster long before.
const WATCHED: Duration = Duration::from_secs(20);
/// The reason to wait, in Events.
const REASON: &str = "may hold the data of a former cluster";
const RECORD: &str = "configmap/kv-cluster";

/// Two pods are new. They start first, and find no other pod.
pub async fn volumes_attach_late(s: &ScenarioContext) {
    let late = volumes(s, 0..3).await;
    return_after(s, &late, Installation { replicas: 5, ..s.store.installation() }).await;
    s.store.membership(5, 0).await;
}

/// All pods but the first are new.
pub async fn first_volume_late(s: &ScenarioContext) {
    let late = volumes(s, 0..1).await;
    return_after(s, &late, Installation { replicas: 3, ..s.store.installation() }).await;
    s.store.membership(3, 0).await;
}

/// The volumes belong to ordinals that the store no longer has, until its old ordinals are applied.
pub async fn applied_at_other_ordinals(s: &ScenarioContext) {
    let (cluster, members) = (s.store.cluster().await, s.store.ids().await);
    s.store.delete_objects().await;
    s.store.apply_as(Installation { start: 10, ..s.store.installation() }).await;
    assert_unfounded(&s.store, &["kv-10", "kv-11", "kv-12"]).await;
    s.store.apply().await;
    s.store.ready(3).await;
    assert_eq!(s.store.cluster().await, cluster, "another cluster has been founded");
    assert_eq!(s.store.ids().await, members, "the same members are there again");
    s.store.membership(3, 0).await;
}

/// The claims were created before the StatefulSet, and their data arrives late, as by a backup tool
/// that restores a namespace.
pub async fn restored_claims(s: &ScenarioContext) {
    let cluster = s.store.cluster().await;
    s.store.delete_objects().await;
    let mut backups = Vec::new();
    for volume in volumes(s, 0..3).await {
        let backup = volume.with_extension("backup");
        s.host().copy(&volume, &backup).await;
        backups.push(backup);
    }
    create_claims_again(&s.store.kubectl).await;
    let restored = volumes(s, 0..3).await;
    for volume in &restored {
        s.host().detach(volume).await;
    }
    s.store.apply_as(Installation { replicas: 5, ..s.store.installation() }).await;
    assert_unfounded(&s.store, &["kv-3", "kv-4"]).await;
    for (backup, volume) in backups.iter().zip(&restored) {
        s.host().attach(volume).await;
        s.host().restore(backup, volume).await;
    }
    s.store.ready(5).await;
    assert_eq!(s.store.cluster().await, cluster, "another cluster has been founded");
    s.store.membership(5, 0).await;
}

/// The lines of the manual that delete the data, as they are written: a new, empty store follows.
pub async fn delete_the_data(s: &mut ScenarioContext) {
    let cluster = s.store.cluster().await;
    // The old clients must not write to the new store.
    s.load.pause().await;
    for line in lines_that_delete_the_data() {
        println!("  kubectl {line}");
        if line.starts_with("apply ") {
            s.store.apply().await;
        } else {
            s.store.kubectl.run(&line.split_whitespace().collect::<Vec<_>>()).await;
        }
    }
    s.store.ready(3).await;
    assert_ne!(s.store.cluster().await, cluster, "the old cluster is back");
    s.load = Workload::start(&s.store).await;
}

/// The arguments of `kubectl` in that block of `k8s/README.md`, without the namespace.
fn lines_that_delete_the_data() -> Vec<String> {
    let manual = std::fs::read_to_string("k8s/README.md").expect("it is shipped");
    let first = "kubectl scale -n kv statefulset/kv --replicas 0\n";
    let start = manual.find(first).expect("the manual says how data is deleted");
    let block = manual[start..].split("```").next().unwrap_or_default();
    block
        .lines()
        .map(|line| line.trim().trim_start_matches("kubectl ").replace("-n kv ", ""))
        .collect()
}

/// The bootstrap record of a running cluster is deleted: it is written again, so that a member with
/// an empty volume joins.
pub async fn record_deleted(s: &ScenarioContext) {
    let record = async || s.store.kubectl.attempt(&["get", RECORD, "--output=json"]).await;
    let data =
        |printed: &str| serde_json::from_str::<Value>(printed).expect("JSON")["data"].clone();
    let before = data(&record().await.expect("it exists"));
    s.store.kubectl.run(&["delete", RECORD]).await;
    eventually(async || match data(&record().await?) {
        now if now == before => Ok(()),
        now => Err(format!("the record was {before}, and is {now}")),
    })
    .await;
    lose_volume(s, 2).await;
}

/// The volumes of the old ordinals are not wanted any more, and a person says so: the new pods found
/// another cluster.
pub async fn found_despite_volumes(s: &mut ScenarioContext) {
    let cluster = s.store.cluster().await;
    s.store.delete_objects().await;
    s.store.apply_as(Installation { start: 10, ..s.store.installation() }).await;
    assert_unfounded(&s.store, &["kv-10", "kv-11", "kv-12"]).await;
    // The old clients must not write to the new store.
    s.load.pause().await;
    let order = ["exec", "kv-10", "--", "kvctl", "cluster", "found", "--despite-volumes"];
    println!("  {}", s.store.kubectl.run(&order).await.trim());
    s.store.ready_at(10..13).await;
    assert_ne!(s.store.cluster().await, cluster, "the old cluster is back");
    s.load = Workload::start(&s.store).await;
}

/// Deletes everything but the volumes, takes some volumes away, and applies the store again. The
/// volumes return later.
async fn return_after(s: &ScenarioContext, late: &[PathBuf], installation: Installation) {
    let cluster = s.store.cluster().await;
    s.store.delete_objects().await;
    for volume in late {
        s.host().detach(volume).await;
    }
    s.store.apply_as(installation).await;
    let early: Vec<String> =
        (late.len() as u32..installation.replicas).map(|ordinal| format!("kv-{ordinal}")).collect();
    assert_unfounded(&s.store, &early.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for volume in late {
        s.host().attach(volume).await;
    }
    s.store.ready(installation.replicas).await;
    assert_eq!(s.store.cluster().await, cluster, "another cluster has been founded");
}

/// Waits until these pods run, then checks that the store stays without a cluster.
async fn assert_unfounded(store: &Store, running: &[&str]) {
    store
        .until(|pods| {
            let has_address =
                |name: &&&str| pods.iter().any(|p| p.name == **name && !p.ip.is_empty());
            let all = running.iter().filter(has_address).count() == running.len();
            if all { Ok(()) } else { Err(format!("not {running:?} run: {pods:#?}")) }
        })
        .await;
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        let ready: Vec<_> = store.followed_pods().into_iter().filter(|pod| pod.ready).collect();
        assert!(
            ready.is_empty(),
            "a cluster has been founded after {:.0?}: {ready:#?}",
            began.elapsed()
        );
        sleep(Duration::from_millis(200)).await;
    }
    let record = store.kubectl.get(&[RECORD]).await;
    let unwritten = record["data"].as_object().is_none_or(Map::is_empty);
    assert!(unwritten, "the bootstrap record is written: {}", record["data"]);
    store.has_event(running[0], REASON).await;
}

async fn volumes(s: &ScenarioContext, ordinals: Range<u32>) -> Vec<PathBuf> {
    let mut volumes = Vec::new();
    for ordinal in ordinals {
        volumes.push(s.host().volume(&s.store.kubectl, &format!("kv-{ordinal}")).await);
    }
    volumes
}

/// Deletes the claims of a namespace with their data, and creates the same claims again.
async fn create_claims_again(kubectl: &Kubectl) {
    let list = kubectl.get(&["persistentvolumeclaims"]).await;
    let claims: Vec<Value> = list["items"].as_array().expect("a list has items").clone();
    kubectl.run(&["delete", "persistentvolumeclaims", "--all"]).await;
    for old in &claims {
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": old["metadata"]["name"], "labels": old["metadata"]["labels"]},
            "spec": {
                "accessModes": old["spec"]["accessModes"],
                "resources": old["spec"]["resources"],
            },
        });
        kubectl.feed(&["create", "--filename=-"], &claim.to_string()).await;
    }
    let bound = ["wait", "--for=jsonpath={.status.phase}=Bound", "persistentvolumeclaims", "--all"];
    kubectl.run(&[&bound[..], &["--timeout=60s"]].concat()).await;
}
