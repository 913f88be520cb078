//! The API server, DNS or the network fails.

use std::env;

use tokio::time::{Duration, sleep};

use crate::k8s::{scenarios::ScenarioContext, store::Deletion};

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
