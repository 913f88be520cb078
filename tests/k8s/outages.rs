//! The API server, DNS or the network fails.

use std::env;

use tokio::time::{Duration, Instant, sleep};

use crate::k8s::{scenarios::ScenarioContext, store::Deletion};

/// The cache of DNS keeps the address of a pod for this time.
const DNS_CACHE_SECONDS: u32 = 30;
/// From the deletion of a pod until its replacement is ready, without waiting for that cache.
const REPLACEMENT_LIMIT: Duration = Duration::from_secs(15);

/// Requests are served; membership changes wait.
pub async fn stop_api_server(s: &ScenarioContext) {
    let seconds = env::var("K8S_OUTAGE").map_or(60, |n| n.parse().expect("K8S_OUTAGE: seconds"));
    s.host().stop("apiserver").await;
    sleep(Duration::from_secs(seconds)).await;
    s.load.progress(200).await;
    s.host().start("apiserver").await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
}

/// Members that know each other continue, and a restarted member is found once DNS works again.
pub async fn stop_dns(s: &ScenarioContext) {
    s.host().stop("dns").await;
    sleep(Duration::from_secs(10)).await;
    let pod = s.store.follower().await;
    s.store.delete(&[&pod.name], Deletion::Graceful).await;
    s.load.progress(500).await;
    s.host().start("dns").await;
    s.store.replaced(&pod).await;
    s.store.ready(3).await;
}

/// The API server crashes while pods are replaced: requests that it refuses while it starts do not
/// mean that the StatefulSet is deleted.
pub async fn restart_api_server(s: &ScenarioContext) {
    let before = s.store.ready(3).await;
    s.store.kubectl.run(&["rollout", "restart", "statefulset/kv"]).await;
    s.store
        .until(|pods| match pods.iter().any(|pod| pod.deleting) {
            true => Ok(()),
            false => Err(format!("no pod is deleted: {pods:#?}")),
        })
        .await;
    s.host().stop("apiserver").await;
    s.host().start("apiserver").await;
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

/// DNS answers with the address that a restarted pod had before. The members find it nevertheless.
pub async fn cached_dns(s: &ScenarioContext) {
    s.host().cache_dns(DNS_CACHE_SECONDS).await;
    let pod = s.store.follower().await;
    // The cache learns the address.
    let url = format!("--endpoints=http://{}.kv-peers:2379", pod.name);
    let leader = s.store.leader().await;
    let ask = ["exec", &leader.name, "--", "/usr/local/bin/kvctl", &url, "endpoint", "status"];
    s.store.kubectl.run(&ask).await;
    let began = Instant::now();
    s.store.delete(&[&pod.name], Deletion::Graceful).await;
    s.store.replaced(&pod).await;
    let lasted = began.elapsed();
    println!("  {} is ready again after {lasted:.1?}", pod.name);
    assert!(lasted < REPLACEMENT_LIMIT, "{} is ready again after {lasted:.1?}", pod.name);
    s.store.ready(3).await;
}

/// The other members elect a new leader. The old one acknowledges no write, and answers no
/// linearizable read with stale data.
pub async fn cut_leader_off(s: &ScenarioContext) {
    let leader = s.store.leader().await;
    s.host().cut_off(&leader).await;
    sleep(Duration::from_secs(15)).await;
    s.load.progress_of_some(200).await;
    s.host().heal().await;
    s.store.ready(3).await;
    s.load.progress(200).await;
}
