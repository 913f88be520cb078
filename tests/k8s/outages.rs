//! What is around the store fails.

use std::env;

use tokio::time::{Duration, sleep};

use crate::{scenarios::Stage, store::End};

/// Data flows; the membership waits.
pub(crate) async fn stop_api_server(s: &Stage) {
    let seconds = env::var("K8S_OUTAGE").map_or(60, |n| n.parse().expect("K8S_OUTAGE: seconds"));
    s.host().stop("apiserver").await;
    sleep(Duration::from_secs(seconds)).await;
    s.load.progress(200).await;
    s.host().start("apiserver").await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
}

/// Members that know each other go on, and one that comes back is found once names are.
pub(crate) async fn stop_dns(s: &Stage) {
    s.host().stop("dns").await;
    sleep(Duration::from_secs(10)).await;
    let pod = s.store.follower().await;
    s.store.delete(&[&pod.name], End::Graceful).await;
    s.load.progress(500).await;
    s.host().start("dns").await;
    s.store.replaced(&pod).await;
    s.store.ready(3).await;
}

/// The others elect another; the old one acknowledges nothing, and answers no linearizable read
/// with what is no longer true.
pub(crate) async fn cut_leader_off(s: &Stage) {
    let leader = s.store.leader().await;
    s.host().cut_off(&leader).await;
    sleep(Duration::from_secs(15)).await;
    s.load.progress_of_some(200).await;
    s.host().heal().await;
    s.store.ready(3).await;
    s.load.progress(200).await;
}
